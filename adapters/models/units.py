"""Depth-2 modules as their tensors have them: which rows and columns a unit is, and how they are rearranged."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from gramian.adapters.models.families import Structure
from gramian.adapters.models.modeling_gramian import ConfigView

__all__ = [
    "COUNTS", "Side", "UnitGroup", "axis", "kinds_of", "operator", "owner_of", "read_unit_group", "rearrange",
    "width",
]  # fmt: skip

Side = Literal["inputs", "outputs"]

# What stock forward methods reshape by, by the attribute's name: the number of units, of groups, of units in a group, and of
# the rows of all units.
COUNTS: tuple[tuple[str, str], ...] = (
    ("intermediate_size", "units"),
    ("num_heads", "units"),
    ("num_attention_heads", "units"),
    ("n_heads", "units"),
    ("all_head_size", "outputs"),
    ("num_key_value_heads", "groups"),
    ("num_kv_heads", "groups"),
    ("num_key_value_groups", "members"),
    ("split_size", "outputs"),
)


@dataclass(frozen=True)
class UnitGroup:
    """One depth-2 module f(x) = sum over units u of C_u h(P_u x), which has `units` units in `groups` groups.

    name: the full name of its consumer. block: the full name of its block. size: columns C_u of the consumer per unit, 1
    for a hidden channel and head_dim for a query head. A group is `members` consecutive units: the query heads that share
    keys and values. In modules of other kinds every unit is a group of its own.
    """

    name: str
    block: str
    structure: Structure
    units: int
    groups: int
    size: int

    @property
    def members(self) -> int:
        """Units per group."""
        return self.units // self.groups

    def columns(self, units: np.ndarray) -> np.ndarray:
        """List the input columns of the consumer that belong to `units`, in their order."""
        return runs_at(np.asarray(units, dtype=np.int64) * self.size, self.size)

    def of_groups(self, groups: np.ndarray) -> np.ndarray:
        """List the units of whole groups."""
        return runs_at(np.asarray(groups, dtype=np.int64) * self.members, self.members)

    def resized(self, units: int, groups: int) -> tuple[np.ndarray, np.ndarray]:
        """Find, for every unit and every group of a module of other widths, the one here that takes its place, -1 for none:
        group for group and, inside a group, member for member."""
        if not 1 <= groups <= units or units % groups:
            raise ValueError(f"{self.name} cannot have {units} units in {groups} groups")
        group, member = np.divmod(np.arange(units), units // groups)
        here = (group < self.groups) & (member < self.members)
        chosen = np.arange(groups)
        return np.where(here, group * self.members + member, -1), np.where(chosen < self.groups, chosen, -1)

    def slabs(self, units: np.ndarray, groups: np.ndarray) -> Iterator[tuple[str, Side, np.ndarray]]:
        """Yield the full name, side and places of what each operator holds of `units` and `groups`; -1 remains -1."""
        for path, levels in self.structure.producers:
            sections = []
            for level, starts in zip(levels, self.starts(levels)):
                chosen = np.asarray(units if level == "unit" else groups, dtype=np.int64)
                sections.append(np.where(chosen < 0, -1, starts[chosen]))
            yield f"{self.block}.{path}", "outputs", runs_at(self.joined(sections, len(groups)), self.size)
        yield self.name, "inputs", self.columns(units)

    def starts(self, levels: tuple[str, ...]) -> list[np.ndarray]:
        """List, for each section of a producer, the first row of every unit or group in it."""
        counts = [self.units if level == "unit" else self.groups for level in levels]
        order = self.joined([np.arange(count) + sum(counts[:place]) for place, count in enumerate(counts)], self.groups)
        position = np.empty_like(order)
        position[order] = np.arange(len(order)) * self.size
        return np.split(position, np.cumsum(counts)[:-1])

    def joined(self, sections: list[np.ndarray], groups: int) -> np.ndarray:
        """Lay sections out as the rows of a producer are: one after the other, or group by group where they are interleaved.

        Without groups, which is how single units are counted, sections follow each other."""
        if not self.structure.interleaved or not groups:
            return np.concatenate(sections)
        return np.concatenate([section.reshape(groups, -1) for section in sections], axis=1).reshape(-1)

    def spread(self, levels: tuple[str, ...], of_units: np.ndarray, of_groups: np.ndarray) -> np.ndarray:
        """Give every row of a producer the value of its unit or group, (rows,)."""
        sections = [of_units if level == "unit" else of_groups for level in levels]
        return np.repeat(self.joined(sections, self.groups), self.size)


def runs_at(starts: np.ndarray, length: int) -> np.ndarray:
    """List the places of runs of `length` entries that begin at `starts`; -1 for those of a negative start."""
    runs = starts[:, None]
    return np.where(runs < 0, -1, runs + np.arange(length)).reshape(-1)


def kinds_of(unit_groups: Iterable[UnitGroup]) -> list[dict[str, UnitGroup]]:
    """Sort modules into kinds: the configuration states the widths of a kind by the same keys."""
    kinds: dict[Hashable, dict[str, UnitGroup]] = {}
    for unit_group in unit_groups:
        kinds.setdefault(unit_group.structure.keys or unit_group.structure, {})[unit_group.name] = unit_group
    return list(kinds.values())


def read_unit_group(model: nn.Module, block: str, structure: Structure) -> UnitGroup:
    """Read a depth-2 module of one block; ValueError where its operators do not fit together."""
    owner = owner_of(model, block, structure)
    size = whole_number(owner, block, structure.unit_size) if structure.unit_size else 1
    outputs = {path: width(operator(model, f"{block}.{path}"), "outputs") for path, _ in structure.producers}
    name = f"{block}.{structure.consumer}"
    units = groups = width(operator(model, name), "inputs") // size
    if structure.groups:
        groups = whole_number(owner, block, structure.groups)
    for path, levels in structure.producers:
        if "group" in levels:
            groups = (outputs[path] // size - levels.count("unit") * units) // levels.count("group")
    for path, levels in structure.producers:
        expected = size * sum(units if level == "unit" else groups for level in levels)
        if outputs[path] != expected or groups < 1 or units % groups:
            raise ValueError(
                f"{block}.{path} has {outputs[path]} outputs, but {name} takes {units} units of {size} in {groups} groups"
            )
    return UnitGroup(name, block, structure, units, groups, size)


def whole_number(owner: nn.Module, block: str, attribute: str) -> int:
    """Read an attribute that counts something; ValueError where it does not."""
    value: Any = getattr(owner, attribute, None)
    if type(value) is not int or value < 1:
        raise ValueError(f"{type(owner).__name__} of {block} has {attribute} = {value!r}, expected a number of at least 1")
    number: int = value
    return number


def owner_of(model: nn.Module, block: str, structure: Structure) -> nn.Module:
    """Find the module whose attributes repeat the widths."""
    return model.get_submodule(block).get_submodule(structure.owner)


def operator(model: nn.Module, name: str) -> nn.Linear | Conv1D:
    """Find a producer or consumer; ValueError unless its weight is a plain matrix of the size that the module states."""
    module = model.get_submodule(name)
    if isinstance(module, nn.Linear):
        stated = (module.out_features, module.in_features)
    elif isinstance(module, Conv1D):
        stated = (module.nx, module.nf)
    else:
        raise ValueError(f"{name} is a {type(module).__name__}: units are removed from Linear and Conv1D modules")
    if tuple(module.weight.shape) != stated:
        raise ValueError(f"{name} has a weight {tuple(module.weight.shape)} but states {stated}: it may be quantised")
    return module


def axis(module: nn.Linear | Conv1D, side: Side) -> int:
    """Return the dimension of a module's weight that runs over its inputs or outputs: Conv1D stores the transpose."""
    return int((side == "inputs") != isinstance(module, Conv1D))


def width(module: nn.Linear | Conv1D, side: Side) -> int:
    """Count a module's inputs or outputs."""
    return module.weight.shape[axis(module, side)]


def rearrange(model: nn.Module, unit_group: UnitGroup, units: np.ndarray, groups: np.ndarray) -> None:
    """Make a depth-2 module consist of these of its units and groups, in place, with zeros where -1 stands.

    This is how units are removed and how they are padded. The module keeps its class and has other widths.
    """
    for name, side, index in unit_group.slabs(units, groups):
        module = operator(model, name)
        module.weight = nn.Parameter(take(module.weight, axis(module, side), index), module.weight.requires_grad)
        if side == "outputs" and module.bias is not None:
            module.bias = nn.Parameter(take(module.bias, 0, index), module.bias.requires_grad)
        if isinstance(module, Conv1D):
            module.nx, module.nf = module.weight.shape
        else:
            module.out_features, module.in_features = module.weight.shape
    counts = {
        "units": len(units),
        "groups": len(groups),
        "members": len(units) // len(groups),
        "outputs": len(units) * unit_group.size,
        "group_outputs": len(groups) * unit_group.size,
    }
    owner: Any = owner_of(model, unit_group.block, unit_group.structure)
    stated: dict[str, int] = {}
    for attribute, counted in COUNTS if unit_group.structure.counts is None else unit_group.structure.counts:
        if attribute.startswith("config."):
            stated[attribute.removeprefix("config.")] = counts[counted]
        elif hasattr(owner, attribute):  # what stock forward methods reshape by
            if unit_group.structure.counts is not None:  # which may be read from a file
                whole_number(owner, unit_group.block, attribute)
            setattr(owner, attribute, counts[counted])
    if stated:
        owner.config = ConfigView.of(owner.config, stated)


def take(tensor: torch.Tensor, dimension: int, index: np.ndarray) -> torch.Tensor:
    """Copy chosen slices into a tensor of their own, with zeros where the index is -1."""
    chosen = torch.from_numpy(index).to(tensor.device)
    taken = tensor.detach().index_select(dimension, chosen.clamp(min=0))
    missing = np.flatnonzero(index < 0)
    return taken.index_fill_(dimension, torch.from_numpy(missing).to(tensor.device), 0) if len(missing) else taken
