"""Whole units are removed from a model, physically: hidden channels of feed-forward modules, heads of attention.

`keep` gives, by the full name of a consumer (`model.layers.3.mlp.down_proj`, `model.layers.3.self_attn.o_proj`;
`unit_groups_of(model)` lists them), the indices of the units that are kept, or a boolean mask over them. Units of attention are
query heads. Query heads that share keys and values form a group: a group of which no head is kept is removed with its keys and
values, and the others must keep equally many, since stock attention code computes nothing else. Modules that are not named
are unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from gramian.adapters.models.unit_groups import unit_groups_of
from gramian.adapters.models.units import UnitGroup, axis, operator, rearrange, width
from gramian.adapters.models.widths import state_widths
from gramian.solvers.backend._xp import to_numpy

__all__ = ["Keep", "count_parameters", "cut_units", "mask_model", "shrink_model"]

Keep = Mapping[str, Sequence[int] | Any]  # indices or booleans of any array library


def shrink_model(model: PreTrainedModel, keep: Keep) -> None:
    """f(x) = sum over kept units u of C_u h(P_u x): drop rows of the producers with their biases, and columns of the consumer.

    The model changes in place, and exactly: it computes what `mask_model(model, keep)` would, to rounding, with stock forward
    methods and key/value caches. Only caches that the configuration sizes ahead (continuous batching, static ones with chunked
    prefill) need heads that it can state. `model.config` is brought up to date where stock classes can express the widths, so
    that such a model loads anywhere once it is saved. Embeddings and whatever else is no producer or consumer are unchanged,
    tied or not.

    ValueError, after which the model is unchanged: an unsupported family (the error names the supported ones), a name that is
    no consumer, indices out of range or given twice, a module without a unit kept, groups that keep different numbers of heads.
    """
    for unit_group, units, groups in selections(model, keep):
        if len(units) < unit_group.units:
            rearrange(model, unit_group, units, groups)
    state_widths(model)


def cut_units(model: PreTrainedModel, name: str, kept: Any) -> None:
    """Cut one module of a model whose other blocks may have no weights in memory; the configuration is left as it is."""
    unit_group = unit_groups_of(model)[name]
    units, groups = selected(unit_group, kept)
    if len(units) < unit_group.units:
        rearrange(model, unit_group, units, groups)


def mask_model(model: PreTrainedModel, keep: Keep) -> None:
    """C_u = 0 for every unit u that is not kept, in place: the model that `shrink_model` gives, in the dense shapes.

    Zero columns of the consumer suffice, since nothing else reads a unit. Errors are those of `shrink_model`.
    """
    for unit_group, units, _ in selections(model, keep):
        module = operator(model, unit_group.name)
        columns = unit_group.columns(np.setdiff1d(np.arange(unit_group.units), units))
        with torch.no_grad():
            module.weight.index_fill_(axis(module, "inputs"), torch.from_numpy(columns).to(module.weight.device), 0)


def count_parameters(model: nn.Module, keep: Keep | None = None) -> int:
    """Count the numbers in a model's parameters, tied ones once; with `keep`, those after `shrink_model(model, keep)`."""
    total = sum(parameter.numel() for parameter in model.parameters())
    for unit_group, units, groups in selections(model, keep or {}):
        for name, side, index in unit_group.slabs(units, groups):
            module = operator(model, name)
            whole = width(module, side)
            slice_size = module.weight.numel() // whole + (side == "outputs" and module.bias is not None)
            total -= (whole - len(index)) * slice_size
    return total


def selections(model: nn.Module, keep: Keep) -> list[tuple[UnitGroup, np.ndarray, np.ndarray]]:
    """List every module that `keep` names with its kept units and groups in ascending order. All are checked first."""
    if not keep:
        return []
    unit_groups = unit_groups_of(model)
    for name in keep:
        if name not in unit_groups:
            raise ValueError(
                f"keep names {name!r}, which consumes no units; names look like {', '.join(list(unit_groups)[:2])}"
            )
    return [(unit_groups[name], *selected(unit_groups[name], kept)) for name, kept in keep.items()]


def selected(unit_group: UnitGroup, kept: Any) -> tuple[np.ndarray, np.ndarray]:
    """Read the units and groups of one module that are kept; ValueError for a selection that no stock class computes."""
    indices = to_numpy(kept)
    if indices.ndim != 1:
        raise ValueError(f"keep[{unit_group.name!r}] is an array of shape {indices.shape}, expected a list of units")
    if indices.dtype == bool:
        if len(indices) != unit_group.units:
            raise ValueError(
                f"keep[{unit_group.name!r}] is a mask of {len(indices)}, but the module has {unit_group.units} units"
            )
        indices = np.flatnonzero(indices)
    if len(indices) == 0:
        raise ValueError(f"{unit_group.name} would keep none of its {unit_group.units} units: keep at least one")
    if not np.issubdtype(indices.dtype, np.integer):
        raise ValueError(f"keep[{unit_group.name!r}] holds {indices.dtype} numbers, expected indices of units")
    outside = indices[(indices < 0) | (indices >= unit_group.units)]
    if len(outside):
        raise ValueError(f"keep[{unit_group.name!r}] holds {outside[0]}, but units run from 0 to {unit_group.units - 1}")
    units, times = np.unique(indices.astype(np.int64), return_counts=True)
    if times.max() > 1:
        raise ValueError(f"keep[{unit_group.name!r}] holds unit {units[times.argmax()]} more than once")
    members = np.bincount(units // unit_group.members, minlength=unit_group.groups)
    groups = np.flatnonzero(members)
    if len(set(members[groups])) > 1:
        raise ValueError(
            f"{unit_group.name} would keep {members.tolist()} query heads of its {unit_group.groups} key/value groups: keep "
            "equally many in every group that keeps any"
        )
    return units, groups
