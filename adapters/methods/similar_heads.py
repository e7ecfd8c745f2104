"""As many heads are removed as are similar to a kept one, and hidden channels make up what is left of an amount."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gramian.adapters.methods.allocation import Selection, reachable, select_units
from gramian.adapters.methods.rounded_widths import Rounding, least_counts
from gramian.adapters.methods.types import UnitScores
from gramian.adapters.methods.unit_sets import UnitSet
from gramian.solvers import MaskProblem

__all__ = ["is_attention", "select_by_similarity"]


def is_attention(unit_set: UnitSet) -> bool:
    """Whether the units of a set are heads, or groups of them."""
    return unit_set.unit_group.structure.unit_size is not None


def select_by_similarity(
    unit_sets: Sequence[UnitSet],
    scored: Sequence[UnitScores],
    problems: Sequence[MaskProblem],
    removal: float,
    allocation: str,
    bias_costs: Sequence[int],
    rounding: Rounding | None = None,
    turning: Sequence[float] = (),
) -> Selection:
    """Select the units that are kept when all redundant heads go, and then as many channels as `removal` still asks for.

    Greedy Output Approximation, Algorithm 1, with a second moment for the channels. The arguments are those of `select_units`,
    which divides the channels. Where the heads alone are more parameters than `removal`, all channels are kept. ValueError
    where all channels but one of each module are fewer than what is still asked for.
    """
    heads = [place for place, unit_set in enumerate(unit_sets) if is_attention(unit_set)]
    channels = [place for place in range(len(unit_sets)) if place not in heads]
    keep = {unit_set.name: np.sort(unit_set.scored.reshape(-1)) for unit_set in unit_sets}
    counts, left = {unit_set.name: unit_set.removable for unit_set in unit_sets}, removal
    for place in heads:
        unit_set, redundant = unit_sets[place], scored[place].redundant
        if redundant is None or not len(redundant):
            continue
        keep[unit_set.name] = np.sort(np.delete(unit_set.scored, redundant, axis=0).reshape(-1))
        counts[unit_set.name] -= len(redundant)
        left -= len(redundant) * unit_set.cost - bias_costs[place]
    some, costs = [unit_sets[place] for place in channels], [bias_costs[place] for place in channels]
    if left > (most := reachable(some, costs, least_counts(some, rounding))):
        raise ValueError(
            f"similar heads are {removal - left:,.0f} of the {removal:,.0f} parameters to remove, and hidden channels can make "
            f"up {most:,} of the others: ask for less, or raise tau"
        )
    if left <= 0 or not channels:
        return Selection(keep, counts)
    own = [problems[place] for place in channels] if problems else []
    weights = [turning[place] for place in channels] if turning else ()
    given = [scored[place] for place in channels]
    chosen = select_units(some, given, own, left, allocation, costs, rounding=rounding, turning=weights)
    return Selection({**keep, **chosen.keep}, {**counts, **chosen.counts}, chosen.detail)
