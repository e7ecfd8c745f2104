"""Greedy Output Approximation: similar heads are removed first, then the units that add least to their module's output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gramian.adapters.methods.types import ModelContext, ScoreContext, UnitScores
from gramian.solvers import Quadratic
from gramian.solvers.backend._xp import to_numpy
from gramian.solvers.units.redundancy import RULES, redundant, redundant_first, similarity_groups

if TYPE_CHECKING:
    from torch import nn

    from gramian.adapters.methods.unit_sets import UnitSet

__all__ = ["MOMENTS", "HeadStatistics", "between_units", "check_moments", "check_options", "greedy_output", "look_at_heads"]

MOMENTS = ("empirical", "gaussian", "product", "identity")


@dataclass(frozen=True, eq=False)
class HeadStatistics:
    """What a run gathers of one module besides the moments of its consumer's inputs.

    distances: D (heads, heads), None where no heads are compared. units: the heads of each unit, (units, k). moments: M_u
    (units,), None where they follow from the moments of the inputs."""

    distances: np.ndarray | None = None
    units: np.ndarray | None = None
    moments: np.ndarray | None = None


def greedy_output(
    module: ScoreContext, *, tau: float | None = 0.2, similar: str = "independent", moment: str = "empirical"
) -> UnitScores:
    """M_u / cost, M_u = E |C_u h(P_u x)|^2, orders the units of a module; attention heads similar to a kept one go first.

    This is Greedy Output Approximation (Section 3.2). In attention, the heads that are similar to a kept one are removed
    first, the nearest before the others; after them, and in feed-forward modules from the start, the units with the least
    second moment M_u per parameter are removed.

    tau: heads are similar when their mean Jensen-Shannon distance is below it (`head_distances`). With 0 no heads are, and
    their attention is not compared; with None the number of heads to remove determines it (`farthest_first`). Key/value
    groups are as far apart as their heads are (`between_units`). tau says which heads go first, and the allocation how many of
    them; with the setting heads_by_similarity tau says how many too (Algorithm 1): those go, of grouped-query attention whole
    groups, that are similar to a kept one, where heads are kept farthest from each other first, so that a larger tau never
    removes fewer (`redundant`). similar: with `independent` each removed head is similar to
    a kept one, and the kept ones are those of largest moment; `scan` is the paper's Algorithm 1, whose pruned heads may all
    lack such a head.

    moment: `empirical`, of the consumer's inputs, is exact for a unit removed alone: a head counts with the products of its
    channels (Section 7.1 omits them), a gated channel with E u^2 a(g)^2 (Section 7.2 factors it). `gaussian`, for hidden
    channels, follows from mean and covariance of what enters the module. `product` is the formulas of Eq. (3), 7.1 and 7.2
    as printed. `identity` needs the weights alone. See `unit_moments`. Moments of single units do not say what the removal
    of several units together costs.
    """
    statistics: HeadStatistics = module.statistics or HeadStatistics()
    moments = statistics.moments
    if moments is None:
        moments = consumer_moments(module.inputs(), module.count, whole=moment != "product") / max(module.tokens, 1)
    scores = np.maximum(moments, 0.0) / module.cost
    relative = None
    if moment in ("empirical", "gaussian"):
        relative = 0.5 * module.tokens * scores / (module.inputs().energy or 1.0)
    if statistics.distances is None or statistics.units is None:
        return UnitScores(scores, relative)
    between = between_units(statistics.distances, statistics.units)
    groups = similarity_groups(statistics.distances, tau) if tau is not None else ()
    similar_to_kept = redundant(between, tau, scores, similar) if tau is not None else None
    return UnitScores(redundant_first(between, scores, tau, similar), relative, similar=groups, redundant=similar_to_kept)


def look_at_heads(
    context: ModelContext, *, tau: float | None = 0.2, similar: str = "independent", moment: str = "empirical"
) -> list[HeadStatistics]:
    """Gather for `greedy_output` the distances of heads, and the moments that do not follow from the consumers' inputs."""
    from gramian.adapters.methods.attention_maps import head_distances
    from gramian.adapters.methods.unit_moments import unit_moments

    unit_sets = context.unit_sets
    attention = [unit_set.name for unit_set in unit_sets if unit_set.unit_group.structure.unit_size is not None and tau != 0]
    distances: dict[str, np.ndarray] = {}
    if attention:
        distances = head_distances(context.model, context.windows, attention, context.blocks)  # type: ignore[arg-type]
    moments: list[np.ndarray | None] = [None] * len(unit_sets)
    if moment != "empirical":
        moments = unit_moments(context.model, context.windows, unit_sets, moment, context.blocks)
    return [HeadStatistics(distances.get(unit_set.name), unit_set.scored, each) for unit_set, each in zip(unit_sets, moments)]


def check_options(*, tau: float | None = 0.2, similar: str = "independent", moment: str = "empirical") -> None:
    """Raise ValueError for options of `greedy_output` that are out of range."""
    if tau is not None and not (isinstance(tau, int | float) and tau >= 0):
        raise ValueError(
            f"tau must be a distance of at least 0, or none (null) for as many as have to be removed, but is {tau!r}"
        )
    if similar not in RULES:
        raise ValueError(f"similar must be one of {', '.join(RULES)} but is {similar!r}")
    if moment not in MOMENTS:
        raise ValueError(f"moment must be one of {', '.join(MOMENTS)} but is {moment!r}")


def check_moments(model: nn.Module, unit_sets: Sequence[UnitSet], *, moment: str = "empirical") -> None:
    """Raise ValueError for a model in which the inputs of hidden channels are not gathered, where `moment` needs them."""
    from gramian.adapters.models.stacks import follows_pruned

    structures = [unit_set.unit_group.structure for unit_set in unit_sets]
    hidden = any(structure.unit_size is None for structure in structures)
    for unit_set in unit_sets if moment != "empirical" else ():
        structure = unit_set.unit_group.structure
        unknown = structure.groups or not (structure.unit_size or structure.activation or moment == "product")
        if unknown:
            raise ValueError(
                f"moment={moment!r} needs the activation, or the rows of values, of what {unit_set.name} consumes, and these "
                "are not known: take 'empirical'"
            )
    if hidden and moment in ("gaussian", "product") and not follows_pruned(model):
        raise ValueError(
            f"moment={moment!r} needs a model that runs block by block, and {type(model).__name__} does not: take 'empirical' "
            "or 'identity'"
        )


def consumer_moments(problem: Quadratic, units: int, whole: bool = True) -> np.ndarray:
    """|X_u W_u^T|^2 = 1^T [(W_u^T W_u) o G_uu] 1 for the columns u of every unit, (units,).

    Unless `whole`, products of different channels are omitted, so that only the diagonal of G counts."""
    weight, gram = to_numpy(problem.anchor), to_numpy(problem.gram)
    size = len(gram) // units
    if not whole or size == 1:
        return np.asarray((np.sum(weight**2, axis=0) * gram.diagonal()).reshape(units, size).sum(axis=1))
    columns = weight.reshape(len(weight), units, size)
    moments = np.empty(units)
    for unit in range(units):
        places = slice(unit * size, (unit + 1) * size)
        moments[unit] = np.sum((columns[:, unit] @ gram[places, places]) * columns[:, unit])
    return moments


def between_units(distances: np.ndarray, units: np.ndarray) -> np.ndarray:
    """max(max_i min_j D_ij, max_j min_i D_ij) over the heads i, j of every two units, (units, units).

    These Hausdorff distances are a metric, and below t when every head of either unit has one in the other nearer than t."""
    pairs = distances[units[:, None, :, None], units[None, :, None, :]]
    return np.asarray(np.maximum(pairs.min(axis=3).max(axis=2), pairs.min(axis=2).max(axis=2)))
