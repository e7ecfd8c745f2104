"""How much is removed of each module: one ranking of the removables of all modules, cut where the budget is met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from gramian.adapters.methods.rounded_widths import Rounding, least_counts, rounded_counts
from gramian.adapters.methods.types import UnitScores
from gramian.adapters.methods.unit_sets import UnitSet
from gramian.solvers import Allocation, MaskProblem, allocate
from gramian.solvers.backend._xp import device, namespace, to_numpy
from gramian.solvers.levels.turning_blocks import proportional_scores

__all__ = ["Selection", "reachable", "select_units"]


@dataclass(frozen=True, eq=False)
class Selection:
    """The units that a run keeps, and the figures that say how good that selection is.

    keep: the units kept, ascending, by module. counts: the number of removables kept, by module. detail: where a joint
    relaxation was solved, sums over modules of the relative errors of masks alone on dense inputs: that of the selected
    masks (`mask_error`), a lower bound for any masks of their cost (`mask_bound`), and what cutting the relaxation to 0/1
    added (`rounding`)."""

    keep: dict[str, np.ndarray]
    counts: dict[str, int]
    detail: dict[str, float] = field(default_factory=dict)


def select_units(
    unit_sets: Sequence[UnitSet],
    scored: Sequence[UnitScores],
    problems: Sequence[MaskProblem],
    removal: float,
    allocation: str,
    bias_costs: Sequence[int],
    given: Sequence[int] = (),
    rounding: Rounding | None = None,
    turning: Sequence[float] = (),
) -> Selection:
    """Select the units that are kept when the lowest-ranked removables R of all modules, sum_R cost >= removal, are removed.

    A removable counts with its parameters, and every module keeps its best one. The sum exceeds `removal` by less than one
    removable, and by less than the cheapest one wherever enough of those remain. `allocation` says what is ranked:

    - `equal`: nothing; `equal_widths` has said how many removables each module keeps, `given`.
    - `per_type`: its place by the method's scores among all removables of modules of its type, as a fraction, so that
      attention as a whole and feed-forward modules as a whole have the same fraction removed, and the scores divide it
      among the layers of a type.
    - `score`: the method's scores as they are (Numerical Pruning, Eq. (8): its factor alpha = 4 D_h / 3 is a ratio of
      parameters, and it acts in their sum).
    - `loss`: the rise of the module's relative error per parameter, where the method knows it. Where the method does not,
      the joint relaxation of the modules' mask problems, `problems` (`gramian.solvers.allocate`), says how many are removed
      from each module, and also which ones if the method does not order them.
    - `angles`: its place in its module, such that one cut keeps parts of modules in proportion to `turning`, how far their
      blocks turn the stream (CFSP; `gramian.solvers.levels.turning_blocks`).

    bias_costs: the parameters that each module gains once something is removed from it; they have to be removed on top.
    rounding: of which numbers of channels are multiples, see `rounded_counts`, which then brings the sum nearest to `removal`.
    """
    orders = [np.zeros(len(unit_set.scored)) if one.scores is None else one.scores for unit_set, one in zip(unit_sets, scored)]
    if problems:
        relaxed = [unit_set.problem(problem, order) for unit_set, problem, order in zip(unit_sets, problems, orders)]
        joint = allocate(relaxed, sum(problem.total for problem in relaxed) - removal)
        ranked = [to_numpy(scores) for scores in joint.scores]
        orders = [place if one.scores is None else one.scores for one, place in zip(scored, ranked)]
    elif allocation == "per_type":
        ranked = ranking_by_type(unit_sets, [unit_set.of_removable(order, order) for unit_set, order in zip(unit_sets, orders)])
    elif allocation == "angles":
        own = [unit_set.of_removable(order, order) for unit_set, order in zip(unit_sets, orders)]
        ranked = [proportional_scores(scores, weight) for scores, weight in zip(own, turning, strict=True)]
    elif not given:
        ranked = [ranking(unit_set, one, order, allocation) for unit_set, one, order in zip(unit_sets, scored, orders)]
    if given:
        counts = list(given)
    else:
        costs, least = [unit_set.cost for unit_set in unit_sets], least_counts(unit_sets, rounding)
        counts = kept_counts(ranked, costs, bias_costs, removal, least)
        counts = counts if rounding is None else rounded_counts(counts, unit_sets, bias_costs, removal, rounding)
    keep = {unit_set.name: unit_set.kept(order, count) for unit_set, order, count in zip(unit_sets, orders, counts)}
    detail = figures(joint, relaxed, unit_sets, orders, counts) if problems else {}
    return Selection(keep, {unit_set.name: count for unit_set, count in zip(unit_sets, counts)}, detail)


def figures(
    joint: Allocation,
    relaxed: Sequence[MaskProblem],
    unit_sets: Sequence[UnitSet],
    orders: Sequence[np.ndarray],
    counts: Sequence[int],
) -> dict[str, float]:
    """The figures of `Selection.detail`."""
    cost = error = 0.0
    for unit_set, problem, order, count in zip(unit_sets, relaxed, orders, counts):
        best = np.arange(unit_set.removable) if unit_set.mixed else np.argsort(-order, kind="stable")
        mask = np.isin(np.arange(unit_set.removable), best[:count])
        loss = problem.value(namespace(problem.matrix).asarray(mask, device=device(problem.matrix)))
        error += loss / problem.energy if problem.energy > 0 else 0.0
        cost += count * unit_set.cost
    assert joint.relaxation is not None
    return {
        "mask_error": error,
        "mask_bound": joint.relaxation.bound_at(cost),
        "rounding": error - joint.relaxation.certificate.objective,
    }


def ranking(unit_set: UnitSet, one: UnitScores, order: np.ndarray, allocation: str) -> np.ndarray:
    """The numbers by which the removables of one module are ranked, (removable,)."""
    scores = one.relative if allocation == "loss" else one.scores
    assert scores is not None
    return unit_set.of_removable(scores, order)


def ranking_by_type(unit_sets: Sequence[UnitSet], scores: Sequence[np.ndarray]) -> list[np.ndarray]:
    """-(k + 1/2) / n for every removable of every module, k its place among the n of attention or of feed-forward modules.

    The largest score has place 0; among equal scores those of the first module come first, and they are kept longer."""
    ranked = [np.empty(len(each)) for each in scores]
    channels = [unit_set.channels for unit_set in unit_sets]
    for type_ in set(channels):
        places = [place for place, each in enumerate(channels) if each == type_]
        pooled = np.concatenate([scores[place] for place in places])
        rank = np.empty(len(pooled))
        rank[np.argsort(-pooled, kind="stable")] = -(np.arange(len(pooled)) + 0.5) / len(pooled)
        ends = np.cumsum([len(scores[place]) for place in places])[:-1]
        for place, piece in zip(places, np.split(rank, ends)):
            ranked[place] = piece
    return ranked


def kept_counts(
    ranked: Sequence[np.ndarray],
    costs: Sequence[int],
    bias_costs: Sequence[int],
    removal: float,
    least: Sequence[int],
) -> list[int]:
    """The number of removables kept in each module: its `least` best ones, and of all others those above the cut of a ranking.

    Removables are removed in ascending order, among equals those of the last module first, until `removal` parameters are
    removed. One that overshoots by the cheapest removable or more is passed over, as a head may outweigh hundreds of
    channels, and it is removed only when nothing else is left.
    """
    rest = [np.sort(values)[:-fixed] for values, fixed in zip(ranked, least)]
    values = np.concatenate(rest)
    module = np.repeat(np.arange(len(rest)), [len(each) for each in rest])
    order = np.lexsort((-module, values))
    kept, due = [len(each) for each in ranked], list(bias_costs)
    removed, passed = 0, []

    def remove(place: int) -> None:
        nonlocal removed
        removed, due[place] = removed + costs[place] - due[place], 0
        kept[place] -= 1

    for place in module[order].tolist():
        if removed >= removal:
            break
        if removed + costs[place] - due[place] >= removal + min(costs):
            passed.append(place)
        else:
            remove(place)
    for place in passed:
        if removed < removal:
            remove(place)
    return kept


def reachable(unit_sets: Sequence[UnitSet], bias_costs: Sequence[int], least: Sequence[int]) -> int:
    """The largest number of parameters that can be removed when every module keeps its `least` number of removables."""
    return sum(
        max(0, (unit_set.removable - count) * unit_set.cost - bias_cost)
        for unit_set, bias_cost, count in zip(unit_sets, bias_costs, least)
    )
