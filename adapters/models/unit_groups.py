"""The depth-2 modules of a model, read from its tensors: which rows and columns a unit is, and how they are rearranged."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from gramian.adapters.models.discovery import operator_names
from gramian.adapters.models.families import Structure, chosen_names
from gramian.adapters.models.stacks import blocks_in, follows_pruned, stacks_of

__all__ = ["Side", "UnitGroup", "axis", "consumer_names", "kinds_of", "operator", "rearrange", "unit_groups_of", "width"]

Side = Literal["inputs", "outputs"]


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
        return places(units, self.size, 0)

    def of_groups(self, groups: np.ndarray) -> np.ndarray:
        """List the units of whole groups."""
        return places(groups, self.members, 0)

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
            sections, start = [], 0
            for level in levels:
                chosen, count = (units, self.units) if level == "unit" else (groups, self.groups)
                sections.append(places(chosen, self.size, start))
                start += count * self.size
            yield f"{self.block}.{path}", "outputs", np.concatenate(sections)
        yield self.name, "inputs", self.columns(units)


def places(chosen: np.ndarray, size: int, start: int) -> np.ndarray:
    """List the places of chosen runs of `size` entries, which lie one after another from `start` on; -1 for those of run -1."""
    runs = np.asarray(chosen, dtype=np.int64)[:, None]
    return np.where(runs < 0, -1, start + runs * size + np.arange(size)).reshape(-1)


def unit_groups_of(model: nn.Module) -> dict[str, UnitGroup]:
    """Find the depth-2 modules of a model by the full names of their consumers, in order.

    Widths are those of the tensors, so a model that has been shrunk is read as it is now. ValueError: a family whose row
    does not say where its units are (the error names those whose row does), operators whose shapes do not fit together.
    """
    unit_groups: dict[str, UnitGroup] = {}
    structures = {stack.blocks: stack.structures for stack in stacks_of(model)}
    for block in blocks_in(model):
        for structure in structures[block.rpartition(".")[0]]:
            unit_group = read_unit_group(model, block, structure)
            unit_groups[unit_group.name] = unit_group
    return unit_groups


def consumer_names(
    model: nn.Module, unit_groups: Mapping[str, UnitGroup], include: str | None, exclude: str | None
) -> list[str]:
    """List the consumers that `include` matches and `exclude` does not. Errors are those of `operator_names`."""
    if follows_pruned(model):
        return [name for name in operator_names(model, include, exclude) if name in unit_groups]
    return chosen_names(list(unit_groups), include, exclude)


def kinds_of(unit_groups: Iterable[UnitGroup]) -> list[dict[str, UnitGroup]]:
    """Sort modules into kinds: the configuration states the widths of a kind by the same keys."""
    kinds: dict[Hashable, dict[str, UnitGroup]] = {}
    for unit_group in unit_groups:
        kinds.setdefault(unit_group.structure.keys or unit_group.structure, {})[unit_group.name] = unit_group
    return list(kinds.values())


def read_unit_group(model: nn.Module, block: str, structure: Structure) -> UnitGroup:
    """Read a depth-2 module of one block; ValueError where its operators do not fit together."""
    size = getattr(owner_of(model, block, structure), structure.unit_size) if structure.unit_size else 1
    outputs = {path: width(operator(model, f"{block}.{path}"), "outputs") for path, _ in structure.producers}
    name = f"{block}.{structure.consumer}"
    units = groups = width(operator(model, name), "inputs") // size
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
    widths = {
        "intermediate_size": len(units),
        "num_heads": len(units),
        "num_attention_heads": len(units),
        "all_head_size": len(units) * unit_group.size,
        "num_key_value_heads": len(groups),
        "num_key_value_groups": len(units) // len(groups),
        "split_size": len(units) * unit_group.size,
    }
    owner = owner_of(model, unit_group.block, unit_group.structure)
    for attribute, value in widths.items():
        if hasattr(owner, attribute):  # what stock forward methods reshape by
            setattr(owner, attribute, value)


def take(tensor: torch.Tensor, dimension: int, index: np.ndarray) -> torch.Tensor:
    """Copy chosen slices into a tensor of their own, with zeros where the index is -1."""
    chosen = torch.from_numpy(index).to(tensor.device)
    taken = tensor.detach().index_select(dimension, chosen.clamp(min=0))
    missing = np.flatnonzero(index < 0)
    return taken.index_fill_(dimension, torch.from_numpy(missing).to(tensor.device), 0) if len(missing) else taken
