"""Load a language model or a text encoder, as it was published or as `gramian` saved it.

A checkpoint's weights have a storage dtype (often bfloat16), and a loaded model has a running dtype. On a CPU the model runs in
float32, because half precision is slow and inexact there, but its weights are always numbers that the storage dtype can
hold, so that the model that is measured is the model that is saved. Weights come from safetensors or GGUF files only: nothing
that is loaded can execute.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gramian.adapters.devices import all_finite, usable_device
from gramian.adapters.files import check_files
from gramian.adapters.models.checkpoints import Stored, check_configuration, check_size, stored_in
from gramian.adapters.models.configurations import read_config
from gramian.adapters.models.factored_weights import merge_adapter
from gramian.adapters.models.gguf_files import read_once
from gramian.adapters.models.heads import keep_head
from gramian.adapters.models.libraries import one_line, quiet_libraries
from gramian.adapters.models.origins import remember, remember_hub
from gramian.adapters.models.own_classes import built_class, is_own
from gramian.adapters.models.placeless import refuse_incomplete, refuse_placeless, unseen
from gramian.adapters.models.places import Place, locate, weight_files
from gramian.adapters.models.tasks import auto_class, kind_of
from gramian.adapters.models.tokenizers import load_tokenizer
from gramian.adapters.models.wrapped_operators import merge_model

__all__ = ["check_directory", "load", "readable", "storage_dtype", "storage_of"]

DTYPES = ("auto", "float32", "bfloat16", "float16")
FLOATING = (*DTYPES[1:], "float64")
BUILDING = threading.RLock()
PANIC = "PanicException"  # of libraries in Rust: no Exception, and of a class that cannot be imported


def load(
    source: str | Path,
    *,
    dtype: str = "auto",
    device: str = "cpu",
    trust_remote_code: bool = False,
    classifier: bool = False,
    merged: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    """Load a model in eval mode, of the class that suits its configuration, and its tokeniser.

    The storage dtype is recorded in `model.config.dtype`, and the weights are rounded to it once. The model runs in float32 on
    a CPU, and in the storage dtype elsewhere. A directory whose configuration states widths by layer, as `save` and then
    `save_pretrained` of such a model write it, is built in those widths, without the code that stands beside it. So are
    operators A S B that were saved wrapped: they compute A (S (B x)), and the core has its zeros.

    Parameters
    ----------
    source : str or Path
        A directory, a `.gguf` file, a hub id `org/name`, or `demo`, which is gemma-3-270m from the extra `demo`.
    dtype : {"auto", "float32", "bfloat16", "float16"}
        The storage dtype. `auto` is the checkpoint's own; for a GGUF file, which is dequantised, it is bfloat16.
    device : str
        The device that the model is put on.
    trust_remote_code : bool
        Allow a model that brings code of its own to run it.
    classifier : bool
        Load what was saved as a classifier of texts (`*ForSequenceClassification`) as that, to be calibrated on texts with
        labels. Otherwise it is loaded as the encoder that it holds, and its head is kept aside. Other models load as ever.
    merged : bool
        Multiply operators A S B out to single matrices in the storage dtype, for what knows none; their zeros are gone then.
        Other models load as ever.

    Returns
    -------
    model : PreTrainedModel
        A causal language model, a sequence-to-sequence model, a text encoder, or a classifier.
    tokenizer : PreTrainedTokenizerBase or None
        The model's tokeniser; None where it has none.

    Raises
    ------
    FileNotFoundError
        There is no such model.
    ValueError
        Naming the file, one that is missing or changed by the `files` of `gramian.json`, or that is no safetensors file of the
        directory; weights that are unreadable, incomplete, pickled or quantised; naming the parameter, weights that hold NaN or
        Inf; a model that needs code of its own; a dtype or device that cannot be used.
    OSError
        The hub cannot be reached.
    ImportError
        Support of GGUF files, or the demonstration model, is not installed.

    Examples
    --------
    >>> import tempfile
    >>> import gramian
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> shape = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, vocab_size=50)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     saved = gramian.save(LlamaForCausalLM(LlamaConfig(**shape)), None, f"{folder}/model")
    ...     model, tokenizer = gramian.load(saved)
    >>> model.config.hidden_size, tokenizer
    (16, None)
    """
    storage_of(dtype, None)
    usable_device(device)
    place = locate(source)
    stored = check_directory(Path(place.name)) if place.local and not place.gguf else None
    with readable(source, place), read_once() if place.gguf else nullcontext():
        model, storage = load_weights(place, dtype, torch.device(device), trust_remote_code, stored, classifier)
        if place.local and not place.gguf:
            merge_adapter(model, Path(place.name), storage)
        if merged:
            merge_model(model, storage)
        tokenizer = load_tokenizer(place, trust_remote_code)
    settle(model, storage, source)
    model.to(torch.device(device))  # type: ignore[arg-type]
    return model, tokenizer


def storage_dtype(model: PreTrainedModel) -> torch.dtype:
    """Return the dtype that weights are stored in: `config.dtype` where it is set, else that of the first floating weight."""
    dtype = model.config.dtype
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype)
    return dtype or next(weight.dtype for weight in model.parameters() if weight.is_floating_point())


def storage_of(dtype: str, declared: Any) -> torch.dtype | None:
    """Return the requested dtype, or the one that the configuration declares; None where it declares none. ValueError for what
    is no dtype of weights."""
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}, expected one of {', '.join(DTYPES)}")
    if dtype == "auto" and declared is None:
        return None
    found = str(declared if dtype == "auto" else dtype).removeprefix("torch.")
    if found not in FLOATING:
        raise ValueError(f"its configuration states the dtype {declared!r}, expected one of {', '.join(FLOATING)}")
    storage: torch.dtype = getattr(torch, found)
    return storage


def check_directory(folder: Path) -> Stored:
    """Count what the weights of a directory hold. ValueError for files that are not those that were saved, weights that are no
    safetensors files of it, and a configuration that states more than they are."""
    check_files(folder)
    stored = stored_in(folder)
    check_configuration(folder, stored)
    return stored


@contextmanager
def readable(source: str | Path, place: Place) -> Iterator[None]:
    """Read a model's files with other libraries, one model at a time: they change settings of the whole process meanwhile.

    Whatever they raise for a file that is damaged is raised as one line that names the model, ValueError or, of the hub,
    OSError."""
    try:
        with BUILDING, quiet_libraries():
            yield
    except ImportError as error:
        raise ImportError(f"{source}: {one_line(error)}") from error
    except SafetensorError as error:
        raise ValueError(f"{source}: damaged or truncated safetensors weights ({error})") from error
    except BaseException as error:  # readers of damaged files raise anything
        if not isinstance(error, Exception) and type(error).__name__ != PANIC:
            raise
        # The library's own hint to trust_remote_code comes after too many words.
        hint = "; trust_remote_code=True allows its code to run" if "trust_remote_code" in str(error) else ""
        message = f"{source} cannot be loaded as a language model: {one_line(error)}{hint}"
        if isinstance(error, OSError) and not place.local:
            raise OSError(message) from error
        raise ValueError(message) from error


def load_weights(
    place: Place, dtype: str, device: torch.device, trust_remote_code: bool, stored: Stored | None, classifier: bool = False
) -> tuple[PreTrainedModel, torch.dtype]:
    """Load the model in its running dtype, and return it with its storage dtype. stored: what a directory's weights hold."""
    file: dict[str, Any] = {"gguf_file": place.gguf} if place.gguf else {}
    config = read_config(place, trust_remote_code)
    if given := getattr(config, "quantization_config", None):
        same = "compressed-tensors" in str(given)
        raise ValueError(
            "its weights are quantised, expected floating-point weights (or a GGUF file): load what it was made from"
            f"{' (what `gramian export` has packed are the same weights to the bit)' if same else ''}, or with transformers, "
            "which needs the package that it was quantised with"
        )
    storage = storage_of(dtype, "bfloat16" if place.gguf else config.dtype)
    running = torch.float32 if device.type == "cpu" else storage
    if place.gguf and hasattr(transformers, "GgufConfig"):  # without it some architectures remain packed on a GPU
        file["quantization_config"] = transformers.GgufConfig(dequantize=True)
    bare = built_class(config, classifier)
    factory: Any = bare if is_own(config) else auto_class(config, classifier)
    if stored is not None and bare is not None and not trust_remote_code:
        check_size(lambda: bare(deepcopy(config)), stored, place.name)
    with stock_form(place) as name:
        loaded: Any = factory.from_pretrained(
            name,
            config=config,
            dtype=running if storage else "auto",
            use_safetensors=True,
            variant=place.variant,
            trust_remote_code=trust_remote_code,
            ignore_mismatched_sizes=True,  # the library would only log what is missing and leave it random
            output_loading_info=True,
            **file,
        )
    model, info = loaded
    for name, found, expected in info["mismatched_keys"]:
        raise ValueError(f"{name} is {tuple(found)} in the weights but {tuple(expected)} by the configuration")
    refuse_incomplete(model, config, info["missing_keys"])
    shapes = {} if stored is None else stored.shapes
    unknown = {*info["unexpected_keys"], *unseen(model, shapes)}
    if stored is not None and kind_of(config) == "encoder":
        unknown -= keep_head(model, config, Path(place.name), set(info["unexpected_keys"]))
    refuse_placeless(model, config, unknown, shapes)
    if place.local and not place.gguf:
        model.name_or_path = place.name
        remember(model, Path(place.name))
    elif not place.local:
        remember_hub(model, place.name)
    if place.gguf:  # dequantised: from here on a model like any other, which can be saved
        model.hf_quantizer = None
        model.config.__dict__.pop("quantization_config", None)
    if storage is None:  # the configuration names no dtype, so the weights were loaded in their own
        storage = model.dtype
        model.to(torch.float32 if device.type == "cpu" else storage)
    return model, storage


@contextmanager
def stock_form(place: Place) -> Iterator[str]:
    """The name that `from_pretrained` is given. An index of weights without `metadata`, which the library insists on, is put
    right in a folder of links to the model's files that is there meanwhile."""
    folder = Path(place.name)
    index = weight_files(folder)[1] if place.local and not place.gguf else folder
    document = (
        json.loads(index.read_text(encoding="utf-8")) if index.is_file() and not weight_files(folder)[0].is_file() else {}
    )
    if not document or isinstance(document.get("metadata"), dict):
        yield place.name
        return
    with tempfile.TemporaryDirectory() as made:
        for file in folder.iterdir():
            if file != index:
                os.symlink(file.resolve(), Path(made) / file.name)
        (Path(made) / index.name).write_text(json.dumps({**document, "metadata": {}}), encoding="utf-8")
        yield made


def settle(model: PreTrainedModel, storage: torch.dtype, source: str | Path) -> None:
    """Round the weights to the storage dtype, and refuse NaN and Inf."""
    model.config.dtype = storage
    model.train(False)
    for name, parameter in model.named_parameters():
        weight = parameter.detach()
        if weight.dtype != storage and weight.is_floating_point():
            weight.copy_(weight.to(storage))
        if not all_finite(weight):
            raise ValueError(f"{source}: parameter {name} holds NaN or Inf in {str(storage).removeprefix('torch.')}")
