"""What is removed of a unit group at once, and what that saves: channels, heads, key/value groups, or one head of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from gramian.adapters.methods.vocabulary import Heads
from gramian.adapters.models.units import Side, UnitGroup, axis, operator
from gramian.solvers import MaskProblem
from gramian.solvers.backend._xp import device, namespace, to_numpy

__all__ = ["UnitSet", "magnitudes", "owners", "places_in", "unit_set_of", "unit_sums"]


@dataclass(frozen=True, eq=False)
class UnitSet:
    """What can be removed of one unit group.

    scored: (s, k), the units that share each of s scores; the largest is kept longest. A score is for a hidden channel, a
    head, or a whole key/value group with its query heads. That is also what is removed at once, a removable, unless the set
    is per_kv_group: scores are then for query heads, and a removable is one head of every key/value group, because stock
    attention code needs groups of equal size. cost: the parameters removed with a removable.
    """

    unit_group: UnitGroup
    scored: np.ndarray
    per_kv_group: bool
    cost: int

    @property
    def name(self) -> str:
        """The name of the group's consumer."""
        return self.unit_group.name

    @property
    def removable(self) -> int:
        """The number of removables."""
        return self.unit_group.members if self.per_kv_group else len(self.scored)

    @property
    def channels(self) -> bool:
        """Whether the units are hidden channels, and not heads."""
        return self.unit_group.structure.unit_size is None

    @property
    def mixed(self) -> bool:
        """Whether a removable has several scores, so that the scores determine which units it consists of."""
        return self.removable < len(self.scored)

    def width(self, count: int) -> tuple[int, int]:
        """The units, and the groups, that a module of `count` removables has."""
        if self.per_kv_group:
            return count * self.unit_group.groups, self.unit_group.groups
        return count * self.unit_group.members, count

    def grouped(self, preference: np.ndarray) -> np.ndarray:
        """Places of the scores of every removable, (removable, groups), the preferred removable first.

        Among equal preferences the first one in the module comes first."""
        rows = -np.asarray(preference).reshape(-1, self.removable)
        order = np.argsort(rows, axis=1, kind="stable")
        return np.asarray((order + self.removable * np.arange(len(rows))[:, None]).T)

    def of_removable(self, scores: np.ndarray, preference: np.ndarray) -> np.ndarray:
        """The mean of the scores of every removable, (removable,), the preferred removable first."""
        return np.asarray(np.asarray(scores, dtype=np.float64)[self.grouped(preference)].mean(axis=1))

    def kept(self, preference: np.ndarray, count: int) -> np.ndarray:
        """The units, ascending, of the `count` preferred removables."""
        return np.sort(self.scored[self.grouped(preference)[:count]].reshape(-1))

    def problem(self, scored: MaskProblem, preference: np.ndarray) -> MaskProblem:
        """The mask problem of the removables, from the mask problem `scored` of what is scored.

        Where a removable has several scores, one variable stands for all of them, and the preferred removable comes first."""
        xp = namespace(scored.matrix)
        cost = xp.full((self.removable,), float(self.cost), dtype=xp.float64, device=device(scored.matrix))
        if not self.mixed:
            return MaskProblem(scored.matrix, scored.linear, scored.constant, cost, trusted=True)
        place = np.zeros((self.removable, len(self.scored)))
        np.put_along_axis(place, self.grouped(preference), 1.0, axis=1)
        sums = xp.asarray(place, device=device(scored.matrix))
        return MaskProblem(sums @ scored.matrix @ sums.T, sums @ scored.linear, scored.constant, cost, trusted=True)


def unit_set_of(model: nn.Module, unit_group: UnitGroup, heads: Heads = "groups") -> UnitSet:
    """The unit set of a unit group.

    heads, for attention with several query heads to a key/value group: with `groups` whole groups are removed; with
    `per_kv_group` one query head of each group is removed at once, and keys and values are kept. Of a single group query
    heads are removed either way, because a module keeps at least one unit."""
    per_kv_group = unit_group.members > 1 and (heads == "per_kv_group" or unit_group.groups == 1)
    size = 1 if per_kv_group else unit_group.members
    scored = np.arange(unit_group.units).reshape(-1, size)
    some = scored[:: unit_group.members, 0] if per_kv_group else scored[0]
    cost = sum(len(places) * slice_size(model, name, side) for name, side, places in slabs_of(unit_group, some, per_kv_group))
    return UnitSet(unit_group, scored, per_kv_group, cost)


def places_in(unit_sets: Sequence[UnitSet], paths: Sequence[str]) -> list[list[int]]:
    """The places of the unit sets inside each of the modules at `paths`."""
    return [[place for place, unit_set in enumerate(unit_sets) if path in ("", unit_set.unit_group.block)] for path in paths]


def slabs_of(unit_group: UnitGroup, units: np.ndarray, per_kv_group: bool) -> list[tuple[str, Side, np.ndarray]]:
    """The slabs that are removed with `units`; with per_kv_group these hold no keys and values."""
    groups = np.empty(0, dtype=np.int64) if per_kv_group else np.unique(units // unit_group.members)
    return list(unit_group.slabs(units, groups))


def slice_size(model: nn.Module, name: str, side: Side) -> int:
    """The number of parameters of one output (with its bias) or of one input of an operator."""
    module = operator(model, name)
    return module.weight.numel() // module.weight.shape[axis(module, side)] + (side == "outputs" and module.bias is not None)


def magnitudes(model: nn.Module, unit_set: UnitSet, power: int) -> np.ndarray:
    """sum |w|^power over all weights of producers and consumer removed with each scored unit, (s,)."""

    def sums(name: str, side: Side) -> np.ndarray:
        module = operator(model, name)
        weight = module.weight.detach().double().abs() ** power
        return to_numpy(weight.sum(dim=1 - axis(module, side)))

    return unit_sums(unit_set, sums)


def unit_sums(unit_set: UnitSet, values: Callable[[str, Side], np.ndarray]) -> np.ndarray:
    """sum of values(name, side) over what is removed with each scored unit, (s,).

    values(name, side) holds one number for every output or input of an operator."""
    totals = np.zeros(len(unit_set.scored))
    for name, side, owned in owners(unit_set):
        removed = owned >= 0
        totals += np.bincount(owned[removed], weights=values(name, side)[removed], minlength=len(totals))
    return totals


def owners(unit_set: UnitSet) -> Iterator[tuple[str, Side, np.ndarray]]:
    """The full name and side of every operator of a module, and the scored unit to which each of its outputs or inputs belongs.

    The latter is -1 for outputs that belong to none: with per_kv_group keys and values are kept."""
    unit_group = unit_set.unit_group
    of_units = np.repeat(np.arange(len(unit_set.scored)), unit_set.scored.shape[1])
    of_groups = np.full(unit_group.groups, -1) if unit_set.per_kv_group else of_units[:: unit_group.members]
    for path, levels in unit_group.structure.producers:
        yield f"{unit_group.block}.{path}", "outputs", unit_group.spread(levels, of_units, of_groups)
    yield unit_group.name, "inputs", np.repeat(of_units, unit_group.size)
