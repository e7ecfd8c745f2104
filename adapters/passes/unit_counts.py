"""How many units every module keeps, by a search of what the model's own output loses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from gramian.adapters.methods.allocation import Selection
from gramian.adapters.methods.rounded_widths import least_counts, rounded_counts
from gramian.adapters.methods.types import UnitScores
from gramian.adapters.methods.unit_sets import UnitSet, places_in
from gramian.adapters.models.loading import storage_dtype
from gramian.adapters.passes.dense_operators import DenseOperators
from gramian.adapters.passes.levels import OperatorLevels, UnitLevels, counts_of
from gramian.adapters.passes.planned import home_of, nothing
from gramian.adapters.passes.searched import Search, Searched, found_by_search, level_files
from gramian.adapters.removal.plan import Removal
from gramian.adapters.run.level_files import LevelFiles

__all__ = ["levelling_units", "units_by_search"]


def levelling_units(
    model: Any,
    paths: tuple[str, ...],
    plan: Removal,
    scored: Sequence[UnitScores],
    files: LevelFiles,
    fitted: int,
    advance: Callable[[], object] = nothing,
) -> DenseOperators:
    """The pass that solves levels of consumers. scored: by module. fitted: how many batches there are."""
    sets = {unit_set.name: unit_set for unit_set in plan.unit_sets}
    solve = UnitLevels(
        files, sets, dict(zip(sets, scored)), least_of(plan), plan.compensation, plan.damping, storage_dtype(model),
        multiple_of(plan),
    )  # fmt: skip
    stages = tuple(tuple((plan.unit_sets[place].name,) for place in places) for places in places_in(plan.unit_sets, paths))
    return DenseOperators(paths, stages, solve, fitted, home_of(model), advance, (OperatorLevels,), "levels")


def least_of(plan: Removal) -> dict[str, int]:
    """How many removables every module keeps at the least."""
    return {each.name: least for each, least in zip(plan.unit_sets, least_counts(plan.unit_sets, plan.rounding))}


def multiple_of(plan: Removal) -> int:
    """Of which numbers of channels are multiples."""
    return 1 if plan.rounding is None else plan.rounding.multiple


def units_by_search(search: Search, plan: Removal, scored: Sequence[UnitScores]) -> tuple[Selection, Searched]:
    """The units that are kept with the numbers that a search finds, and what it found.

    What goes beyond the amount that is wanted is given back to modules of channels, one channel each in turn; with numbers that
    are multiples, they are those nearest to what was found (`rounded_counts`)."""
    model, paths = search.blocks.model, search.blocks.paths
    share = plan.amount / sum(unit_set.cost * unit_set.removable for unit_set in plan.unit_sets)
    shares = {unit_set.name: share for unit_set in plan.unit_sets}
    with level_files(search.journal) as files:
        levels = partial(levelling_units, model, paths, plan, scored, files)
        found = found_by_search(search, files, levels, len(plan.unit_sets), plan.amount, shares, lambda names: [])
    level = {row.name: place for row, place in zip(found.rows, found.state.best.choice)}
    least, multiple = least_of(plan), multiple_of(plan)
    counts = [counts_of(each, least[each.name], multiple)[level[each.name]] for each in plan.unit_sets]
    if plan.rounding is None:
        counts = given_back(plan.unit_sets, counts, plan.amount)
    else:
        counts = rounded_counts(counts, plan.unit_sets, plan.bias_costs, plan.amount, plan.rounding)
    orders: Mapping[str, Any] = {each.name: one.scores for each, one in zip(plan.unit_sets, scored)}
    keep = {each.name: each.kept(np.asarray(orders[each.name]), count) for each, count in zip(plan.unit_sets, counts)}
    return Selection(keep, dict(zip(keep, counts))), found


def given_back(unit_sets: Sequence[UnitSet], counts: Sequence[int], amount: float) -> list[int]:
    """The counts, of which those of narrower modules of channels rise one by one in turn while `amount` remains removed."""
    kept = list(counts)
    excess = sum((each.removable - count) * each.cost for each, count in zip(unit_sets, kept)) - amount
    while True:
        some = [
            place
            for place, each in enumerate(unit_sets)
            if each.channels and each.cost <= excess and kept[place] < each.removable
        ]
        if not some:
            return kept
        for place in some:
            if unit_sets[place].cost <= excess:
                kept[place] += 1
                excess -= unit_sets[place].cost
