"""Save a model so that it loads again, complete or not at all.

A model is saved in one of these forms. Widths that stock classes can build load with stock `from_pretrained`. Other widths are
stated by layer in the configuration, beside which `modeling_gramian.py` builds them: they load with `load`, which does not run
that file, and with `from_pretrained(..., trust_remote_code=True)`, which does. Padded with zeros to widths that stock classes
can build, any shrunk model loads with stock `from_pretrained`, at the price of the padding. Operators A S B are stated and
built like other widths.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gramian.adapters.drafts import new_directory
from gramian.adapters.files import Saved, check_output, plain, write_bytes
from gramian.adapters.models.factored_weights import ADAPTER, model_factors, write_adapter
from gramian.adapters.models.heads import with_head
from gramian.adapters.models.libraries import one_line, quiet_libraries
from gramian.adapters.models.loading import storage_dtype
from gramian.adapters.models.own_classes import is_own, make_stock
from gramian.adapters.models.padding import padded
from gramian.adapters.models.plain_modules import check_plain
from gramian.adapters.models.remaining_layers import config_of_layers
from gramian.adapters.models.settings_files import weights_alone, write_config, write_generation
from gramian.adapters.models.side_files import copy_side_files
from gramian.adapters.models.uneven import make_uneven
from gramian.adapters.models.unit_groups import unit_groups_of
from gramian.adapters.models.widths import unstated_widths
from gramian.adapters.models.wrapped_operators import plain_operators, state_operators, wrapped_in
from gramian.adapters.models.wrappers import plain_model
from gramian.adapters.pages.beside import write_results

__all__ = ["save", "save_beside"]


def save(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    out: str | Path,
    *,
    pad: bool = False,
    report: Mapping[str, Any] | Saved | None = None,
    overwrite: bool = False,
) -> Path:
    """Save a model, its tokeniser and a report as a directory that `from_pretrained` loads.

    Weights are stored as safetensors in the storage dtype of the model, which is itself unchanged. Everything is written to a
    directory beside `out` first, which is renamed at the end: `out` is the complete new model or, after any failure, what it
    was before. If the process is killed, the next call for `out` clears up what is left beside it. What stands beside the
    weights in the directory that `load` has read the model from is copied: licence, model card, processors, modules of a
    sentence encoder; never what can execute, nor what is larger than 64 MiB. Settings for generating text are written as they
    are. Of weights S + B A, as `sparse-low-rank` gives them, S is saved, and in `adapter` an adapter of PEFT with both: `load`
    merges it, and `PeftModel.from_pretrained(base, out / "adapter")` adds it. Weights that were changed since are saved as they
    are. Widths of a shrunk model that stock classes cannot build are stated by layer in the configuration; it loads with
    `load`, and with `from_pretrained(..., trust_remote_code=True)` by a small file of code that is written with it. So does one
    that has operators A S B, as `armor` gives them with the option `save="wrapped"`.

    Parameters
    ----------
    model : PreTrainedModel
        The model to save; what `torch.compile` and `DataParallel` wrap is saved as the model that it is.
    tokenizer : PreTrainedTokenizerBase or None
        Its tokeniser; None where it has none.
    out : str or Path
        The directory to write.
    pad : bool
        Pad a shrunk model with zeros to widths that stock classes build, so that it loads anywhere.
    report : mapping or report, optional
        What `prune` returned, or plain numbers, strings, lists and dicts; it is written as `gramian.json`,
        with the SHA-256 of every other file, which `load` checks. What `prune` returned is shown in `report.html` as well.
    overwrite : bool
        Replace a saved model that is at `out`.

    Returns
    -------
    Path
        The directory, as an absolute path.

    Raises
    ------
    FileExistsError
        `out` is not empty and `overwrite` is False, or it is something other than a saved model.
    OSError
        The directory cannot be written.
    ValueError
        The model is not what its configuration describes, so that it would not load; but where blocks were deleted, the
        configuration that is written states those that remain. It has adapters of PEFT, quantised weights or weights that are
        not in memory, or is no model of transformers. Padding cannot hold a bias that it has.

    Examples
    --------
    >>> import tempfile
    >>> import gramian
    >>> from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
    >>> shape = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, vocab_size=50)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     saved = gramian.save(LlamaForCausalLM(LlamaConfig(**shape)), None, f"{folder}/model", report={"method": "none"})
    ...     sorted(file.name for file in saved.iterdir())
    ['config.json', 'generation_config.json', 'gramian.json', 'model.safetensors']
    """
    return save_beside({}, model, tokenizer, out, pad, report, overwrite)


def save_beside(
    files: Mapping[str, bytes],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    out: str | Path,
    pad: bool,
    report: Mapping[str, Any] | Saved | None,
    overwrite: bool,
) -> Path:
    """Do what `save` does, with files beside the model, which appear with it and which its report knows as well."""
    check_output(out, overwrite)
    model = plain_model(model)
    check_plain(model)
    whole, out = padded(model) if pad else model, Path(out).expanduser().resolve()
    with fitted(whole):
        write_all(files, whole, tokenizer, out, report, overwrite)
    return out


def write_all(
    files: Mapping[str, bytes],
    whole: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    out: Path,
    report: Mapping[str, Any] | Saved | None,
    overwrite: bool,
) -> None:
    """Write a model whose configuration describes it, and all that goes with it."""
    check_described(whole)
    try:
        with new_directory(out, overwrite) as draft:
            for name, content in files.items():
                write_bytes(draft / name, content)
            with quiet_libraries():
                write_model(whole, draft)
            write_adapter(model_factors(whole), draft / ADAPTER)
            with quiet_libraries():
                if tokenizer is not None:
                    tokenizer.save_pretrained(draft)
            copy_side_files(whole, draft, tokenizer is not None)
            if report is not None:
                write_results(draft, plain(report))
    except FileExistsError:
        raise
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk as its own error
        raise OSError(f"saving to {out} failed, nothing was changed there: {one_line(error)}") from error


@contextmanager
def fitted(model: PreTrainedModel) -> Iterator[None]:
    """Let a model have the configuration that its blocks and their widths ask for, and the class that builds it, while the
    context is open."""
    config, own, described = model.config, model.__class__, config_of_layers(model)
    try:
        model.config = described
        widths = unstated_widths(model)
        if widths or is_own(config) or wrapped_in(model):
            model.config = deepcopy(described)
            make_stock(model)
            widths = unstated_widths(model)
        if widths:
            with plain_operators(model):
                make_uneven(model, unit_groups_of(model), widths)
        state_operators(model)
        yield
    finally:
        model.config, model.__class__ = config, own


def check_described(model: PreTrainedModel) -> None:
    """Raise ValueError for a model that is not what its class builds by its configuration, such as one that was changed by
    hand: it would be saved, and not load."""
    build: Any = type(model)
    with torch.device("meta"):
        expected = {name: tuple(weight.shape) for name, weight in build(deepcopy(model.config)).state_dict().items()}
    if getattr(model, "pooler", model) is None:  # its weights came without, and load without
        expected = {name: shape for name, shape in expected.items() if not name.startswith("pooler.")}
    found = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    for name in (*found, *expected):
        if found.get(name) != expected.get(name):
            raise ValueError(
                f"{name} is {found.get(name, 'missing')} in the model, but {expected.get(name, 'missing')} by its "
                "configuration, so that what is saved would not load: change the configuration with the model"
            )


def write_model(model: PreTrainedModel, folder: Path) -> None:
    """Write the weights, rounded to the storage dtype, and the configuration."""
    storage = storage_dtype(model)
    # Casting each storage once keeps tied weights one tensor; model.to() would round the live buffers as well.
    cast: dict[tuple[Any, ...], torch.Tensor] = {}
    weights = {}
    for name, weight in model.state_dict().items():
        same = (weight.data_ptr(), weight.shape, weight.stride(), weight.dtype)
        if same not in cast:
            cast[same] = weight.to(storage) if weight.is_floating_point() else weight
        weights[name] = cast[same]
    for name, factors in model_factors(model).items():
        weights[f"{name}.weight"] = factors.sparse.to(storage)
    named, architectures = with_head(model, weights)
    stated = write_config(model.config, folder)
    try:
        with weights_alone(model, config=not stated):
            model.save_pretrained(folder, state_dict=named)
    finally:
        model.config.dtype = storage  # where save_pretrained puts the running dtype
    model.config.architectures = architectures
    write_config(model.config, folder)
    write_generation(model, folder)
