"""Save a model so that it loads again, complete or not at all.

Three forms. Widths that the configuration can state load with stock `from_pretrained`. Other widths are recorded beside the
configuration, and load with `load`. Padded with zeros to widths that the configuration can state, any shrunk model loads
with stock `from_pretrained`, at the price of the padding.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gramian.adapters.files import check_output, new_directory, write_json
from gramian.adapters.models.libraries import one_line, quiet_libraries
from gramian.adapters.models.loading import storage_dtype
from gramian.adapters.models.padding import padded
from gramian.adapters.models.widths import unstated_widths, write_widths

__all__ = ["save"]


class Saved(Protocol):
    """A report that is saved beside a model."""

    def to_dict(self) -> dict[str, Any]: ...


def save(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    out: str | Path,
    *,
    pad: bool = False,
    report: Mapping[str, Any] | Saved | None = None,
    overwrite: bool = False,
) -> Path:
    """Save a model, its tokeniser and a report (`gramian.json`) as a directory that stock `from_pretrained` loads.

    Widths of a shrunk model that its configuration cannot state are recorded beside it, and only `load` loads it
    (`save` has a form for stock classes); a model wider than its configuration says is a ValueError. Weights
    are stored as safetensors in `storage_dtype(model)`; the model itself stays as it is. Everything is written to a
    sibling directory first and renamed at the end: `out` is the complete new model or, after any failure, what it was
    before. Failures to write raise OSError; existing directories need `overwrite` (see `check_output`).
    """
    check_output(out, overwrite)
    whole, out = padded(model) if pad else model, Path(out).expanduser().resolve()
    try:
        with new_directory(out, overwrite) as draft:
            write_widths(draft, unstated_widths(whole))
            with quiet_libraries():
                write_model(whole, draft)
                if tokenizer is not None:
                    tokenizer.save_pretrained(draft)
            if report is not None:
                write_json(draft / "gramian.json", report if isinstance(report, Mapping) else report.to_dict())
    except FileExistsError:
        raise
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk as its own error
        raise OSError(f"saving to {out} failed, nothing was changed there: {one_line(error)}") from error
    return out


def write_model(model: PreTrainedModel, folder: Path) -> None:
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
