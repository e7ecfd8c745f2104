"""One width for all modules of a kind, of those that the stock class builds: how many units each keeps, before any work."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedModel

from gramian.adapters.methods.rounded_widths import Rounding
from gramian.adapters.methods.unit_sets import UnitSet
from gramian.adapters.models.stock_widths import stock_class_builds
from gramian.adapters.models.unit_groups import unit_groups_of
from gramian.adapters.models.units import UnitGroup
from gramian.solvers.units.choice import nearest_choice

__all__ = ["EqualWidths", "equal_widths"]

ALIGNED = 8  # what numbers of channels remain multiples of where they are, for n:m patterns and matrix units


@dataclass(frozen=True, eq=False)
class EqualWidths:
    """The modules that can be narrowed to equal widths, and what they may keep.

    unit_sets: the modules, in order. kinds: the places of the modules of every kind among them. counts: for every kind,
    (choices, modules), numbers of removables that give all its modules the same width. left: of the consumers of other modules,
    why they remain as they are."""

    unit_sets: tuple[UnitSet, ...]
    kinds: tuple[tuple[int, ...], ...]
    counts: tuple[np.ndarray, ...]
    left: Mapping[str, str]

    def removed(self, bias_costs: Sequence[int]) -> list[np.ndarray]:
        """The parameters that every choice of every kind removes, (choices,) each."""
        found = []
        for places, counts in zip(self.kinds, self.counts):
            sizes, costs = (
                np.array([getattr(self.unit_sets[place], name) for place in places]) for name in ("removable", "cost")
            )
            added = np.array([bias_costs[place] for place in places])
            found.append(((sizes - counts) * costs - added * (counts < sizes)).sum(axis=1))
        return found

    def bounds(self, bias_costs: Sequence[int]) -> tuple[int, int]:
        """The least number of parameters that a choice removes, if it removes any, and the largest."""
        removed = self.removed(bias_costs)
        forced = sum(int(each.min()) for each in removed)
        steps = [int(each[each > each.min()].min() - each.min()) for each in removed if len(each) > 1]
        return forced or min(steps), sum(int(each.max()) for each in removed)

    def chosen(self, bias_costs: Sequence[int], amount: float, at_least: bool) -> tuple[int, ...]:
        """argmin over one width for each kind k of sum_k |R_k - r T_k|, with sum_k R_k as near to `amount` as widths allow.

        R_k is what a width removes of the kind, T_k what its units have, and r = amount / sum_k T_k the part that is removed of
        all: the nearer R_k to r T_k, the closer are kinds to the same fraction removed of each. What is near is said by
        `nearest_choice`: within half a step of the kind whose steps are finest, or with `at_least` no less than the amount and
        within a step of it. The answer is the number of removables that every module keeps."""
        removed = self.removed(bias_costs)
        totals = [
            sum(self.unit_sets[place].removable * self.unit_sets[place].cost for place in places) for places in self.kinds
        ]
        part = amount / sum(totals)
        distances = [np.abs(each - part * total) for each, total in zip(removed, totals)]
        choice = nearest_choice(removed, distances, amount, at_least=at_least)
        assert choice is not None  # the bounds are known to hold the amount
        kept = [0] * len(self.unit_sets)
        for places, counts, entry in zip(self.kinds, self.counts, choice):
            for place, count in zip(places, counts[entry].tolist()):
                kept[place] = count
        return tuple(kept)


def equal_widths(model: PreTrainedModel, unit_sets: Sequence[UnitSet], rounding: Rounding | None) -> EqualWidths:
    """Find the widths that all of some modules may have, kind by kind. Modules are of a kind where the configuration states
    their widths by the same keys and their units have one size.

    Channels are multiples of what `rounding` says, else of the largest of 8, 4, 2 and 1 of which they are multiples now. Of
    the other widths those remain that every module of the kind can be cut to, and that `stock_class_builds`.

    ValueError: modules of a kind that can have no width in common."""
    kinds: dict[Hashable, list[UnitSet]] = {}
    for unit_set in unit_sets:
        kinds.setdefault(kind_of(unit_set.unit_group), []).append(unit_set)
    whole: dict[Hashable, dict[str, UnitGroup]] = {}
    for name, unit_group in unit_groups_of(model).items():
        whole.setdefault(kind_of(unit_group), {})[name] = unit_group
    narrower: dict[Hashable, np.ndarray] = {}
    left: dict[str, str] = {}
    for kind, members in kinds.items():
        found = [width for width in shared_widths(members, rounding) if any(width != width_of(each) for each in members)]
        if members[0].channels and found and not stock_class_builds(model, whole[kind], *found[0]):
            found = []
        elif not members[0].channels:
            found = [width for width in found if stock_class_builds(model, whole[kind], *width)]
        if found:
            same = [width_of(members[0])] if keeps_all(members, rounding) else []
            narrower[kind] = np.array([[count_at(each, width) for each in members] for width in [*found, *same]])
        else:
            reason = why_not(model, members, rounding)
            left |= {each.name: reason for each in members}
    kept = [unit_set for unit_set in unit_sets if unit_set.name not in left]
    places = {unit_set.name: place for place, unit_set in enumerate(kept)}
    return EqualWidths(
        tuple(kept),
        tuple(tuple(places[each.name] for each in kinds[kind]) for kind in narrower),
        tuple(narrower.values()),
        left,
    )


def kind_of(unit_group: UnitGroup) -> Hashable:
    """What the modules of one kind have in common."""
    return unit_group.structure.keys or unit_group.structure, unit_group.size


def width_of(unit_set: UnitSet) -> tuple[int, int]:
    """The units and groups that a module has now."""
    return unit_set.unit_group.units, unit_set.unit_group.groups


def multiple_of(members: Sequence[UnitSet], rounding: Rounding | None) -> int:
    """Of which number the widths of a kind are multiples."""
    if not members[0].channels:
        return 1
    return math.gcd(ALIGNED, *(each.removable for each in members)) if rounding is None else rounding.multiple


def keeps_all(members: Sequence[UnitSet], rounding: Rounding | None) -> bool:
    """Whether modules may remain as they are: they have one width, a multiple of what is wanted."""
    return len({width_of(each) for each in members}) == 1 and members[0].removable % multiple_of(members, rounding) == 0


def shared_widths(members: Sequence[UnitSet], rounding: Rounding | None) -> list[tuple[int, int]]:
    """The units and groups that every one of some modules can be cut to, the narrowest first."""
    step = multiple_of(members, rounding)
    different = {(width_of(each), each.per_kv_group): each for each in members}.values()
    found = [{each.width(count) for count in range(step, each.removable + 1, step)} for each in different]
    shared = sorted(set.intersection(*found))
    if not shared:
        widths = " and ".join(
            f"{units} units in {groups} groups" for units, groups in sorted({width_of(each) for each in members})
        )
        raise ValueError(
            f"allocation='equal' finds no width that {members[0].name} and others like it can be cut to together, which have "
            f"{widths}: choose another heads or allocation, or leave some out with exclude"
        )
    return shared


def count_at(unit_set: UnitSet, width: tuple[int, int]) -> int:
    """How many removables a module of a width keeps."""
    units, groups = width
    return units // unit_set.unit_group.groups if unit_set.per_kv_group else groups


def why_not(model: PreTrainedModel, members: Sequence[UnitSet], rounding: Rounding | None) -> str:
    """Say why all modules of a kind remain as they are."""
    units, kind = width_of(members[0])[0], "channels" if members[0].channels else "heads"
    if members[0].channels and units < 2 * multiple_of(members, rounding):
        return f"{units} {kind} are the least that equal widths in multiples of {multiple_of(members, rounding)} leave"
    if members[0].removable == 1 and len(members) == 1:
        return "it has one unit"
    return f"{type(model).__name__} builds no fewer {kind} in every block, which equal widths are made for"
