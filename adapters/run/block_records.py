"""The record of a block: its rows and the parameters that were written to, taken from a model and written to one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from gramian.adapters.devices import solver_array
from gramian.adapters.models.experts import expert_at
from gramian.adapters.models.layers import Layer
from gramian.adapters.models.mixtures import mixed_at, sliced
from gramian.adapters.run.blocks import Blocks, module_at, put
from gramian.adapters.run.journal import Record
from gramian.adapters.run.records import Packer, unpacked

__all__ = ["as_array", "as_tensor", "record_of", "restore", "restored", "written_to"]


def record_of(rows: list[Any], model: Any, written: Iterable[str], storage: torch.dtype) -> Record:
    """The record of a block: its rows, and the parameters of the operators that were written to, in the storage dtype."""
    packer, tensors, kinds = Packer(), {}, {}
    packed = packer.packed(rows)
    for operator in written:
        for name, parameter in written_to(model, operator).items():
            value = parameter.detach()
            value = value.to("cpu", storage) if value.is_floating_point() else value.cpu()
            kinds[name] = str(value.dtype).removeprefix("torch.")
            tensors[name] = as_array(value)
    return Record(packed, packer.arrays, tensors, kinds)


def written_to(model: Any, name: str) -> dict[str, torch.Tensor]:
    """The tensors of a module by full name, such as an operator or a norm, or those of a router or of experts that have a slice
    for every expert."""
    if (mixed := mixed_at(model, name)) is not None:
        return {f"{name}.{leaf}": tensor for leaf, tensor in sliced(mixed, mixed.num_experts).items()}
    if expert_at(model, name) is not None:
        return Layer.at(model, name).tensors
    return {f"{name}.{leaf}": parameter for leaf, parameter in module_at(model, name).named_parameters(recurse=False)}


def as_array(value: torch.Tensor) -> np.ndarray:
    """A tensor as a numpy array, of whole numbers with the same bits where numpy has no such numbers."""
    value = value.contiguous()
    return np.asarray((value.view(torch.int16) if value.dtype is torch.bfloat16 else value).numpy())


def as_tensor(array: np.ndarray, kind: str) -> torch.Tensor:
    """The tensor of an array, of the dtype called `kind`."""
    value = torch.from_numpy(array.copy())
    return value.view(torch.bfloat16) if kind == "bfloat16" else value


def restored(record: Record, blocks: Blocks, types: Sequence[type]) -> list[Any]:
    """Write what a record holds to the model, and return its rows."""
    restore(record, blocks.model, blocks.place)

    def placed(array: np.ndarray) -> Any:
        return solver_array(torch.from_numpy(array.copy()).to(blocks.place))

    rows: list[Any] = unpacked(record.rows, dict(record.arrays), {each.__name__: each for each in types}, placed)
    return rows


def restore(record: Record, model: Any, place: torch.device) -> None:
    """Write the tensors of a record to a model, in the dtype that it runs in."""
    for name, array in record.tensors.items():
        path, _, leaf = name.rpartition(".")
        value = as_tensor(array, record.kinds[name])
        if expert_at(model, name) is not None:
            Layer.at(model, name).tensors[name].data.copy_(value)
            continue
        if (mixed := mixed_at(model, path)) is not None:
            put(model, name, value.to(place, getattr(mixed, leaf).dtype))
            mixed.num_experts = len(value)
            continue
        present = getattr(module_at(model, path), leaf, None)
        if isinstance(present, torch.Tensor) and present.shape == value.shape and not present.is_meta:
            present.data.copy_(value)
        else:
            weight: torch.Tensor = module_at(model, path).weight  # type: ignore[assignment]
            put(model, name, value.to(place, weight.dtype))
