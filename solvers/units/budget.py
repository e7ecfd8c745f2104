"""Many modules, one parameter budget: which units of which module to keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gramian.solvers.backend._xp import Array, namespace
from gramian.solvers.backend.computing import computation
from gramian.solvers.backend.given import given
from gramian.solvers.backend.options import number
from gramian.solvers.backend.printed import digits, kept
from gramian.solvers.core.certificate import Certificate, measured
from gramian.solvers.core.watch import Callback, watched
from gramian.solvers.units.box import solve_program
from gramian.solvers.units.mask import Budget, MaskProblem, RelaxedMask, keep_within, ratio
from gramian.solvers.units.program import BoxProgram

__all__ = ["Allocation", "allocate", "allocate_by_score", "allocate_uniformly"]


@dataclass(frozen=True, eq=False)
class Allocation:
    """Hold one 0/1 mask per module, with what all of them cost and lose.

    Parameters
    ----------
    masks : tuple of arrays (m,) of bool
        One per module, True = kept.
    scores : tuple of arrays (m,)
        What the masks were cut from.
    cost : float
        The cost of the masks, within the budget.
    errors : tuple of float
        The relative error of every module, |X* V^T - X W^T|^2 / |X W^T|^2 for V = W diag(mask).
    certificate : Certificate
        Its objective is the sum of importance * error; its bound holds for any 0/1 masks of the same cost, -inf where nothing
        is known.
    relaxation : RelaxedMask, optional
        Of the joint problem, over the modules' units one after another; None where masks come from given scores.
    rounding : float, optional
        What cutting the relaxation to 0/1 added to its objective; None likewise.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import MaskProblem, Quadratic, allocate
    >>> rng = np.random.default_rng(0)
    >>> layers = [Quadratic.from_data(rng.normal(size=(64, p)), rng.normal(size=(4, p))) for p in (8, 16)]
    >>> allocation = allocate([MaskProblem.from_problem(layer) for layer in layers], 18)
    >>> [mask.shape for mask in allocation.masks], sum(int(mask.sum()) for mask in allocation.masks), allocation.cost
    ([(8,), (16,)], 18, 18.0)
    """

    masks: tuple[Array, ...]
    scores: tuple[Array, ...]
    cost: float
    errors: tuple[float, ...]
    certificate: Certificate
    relaxation: RelaxedMask | None = None
    rounding: float | None = None

    def __repr__(self) -> str:
        units = f"{len(self.masks)} modules, {kept(*self.masks)} units"
        return f"Allocation({units}, cost {digits(self.cost)}, {measured(self.certificate)})"


@computation
def allocate(
    problems: Sequence[MaskProblem],
    budget: float,
    *,
    importance: Sequence[float] | None = None,
    tol: float = 1e-9,
    max_steps: int = 100,
    throw: bool = False,
    time_limit: float | None = None,
    callback: Callback | None = None,
    progress: bool = False,
) -> Allocation:
    """argmin_z sum_m importance_m loss_m(z_m) / energy_m subject to sum_m <c_m, z_m> = budget, 0 <= z <= 1, cut to 0/1

    The modules share nothing but the price of the budget. The relaxation is solved as one program whose Hessian is block
    diagonal, to a relative gap of `tol`, and is exact: at its price no unit of any module is worth moving. The masks keep
    the units of largest z, over all modules together, as long as the budget lasts, so their cost falls short of it by
    less than one unit's. The objective is a sum of relative errors because errors of different layers have no common unit.

    Parameters
    ----------
    problems : sequence of MaskProblem
        One per module, with costs in the same unit (parameters).
    budget : float
        What the kept units of all modules may cost.
    importance : sequence of float, optional
        Weights of the modules' relative errors. The default is 1 for each.
    tol : float, default 1e-9
        The relative gap of the relaxation.
    max_steps : int, default 100
        The most steps.
    throw, time_limit, callback, progress : optional
        As of `solve`, for the relaxation; the weights are the masks of all modules, one after another.

    Returns
    -------
    Allocation
        The masks, with the relaxation.

    Raises
    ------
    ValueError
        For numbers out of range, and for a module whose output is zero although its units' are not: it has no relative error.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import MaskProblem, Quadratic, allocate
    >>> rng = np.random.default_rng(0)
    >>> layers = [Quadratic.from_data(rng.normal(size=(64, p)), rng.normal(size=(4, p))) for p in (8, 16)]
    >>> allocation = allocate([MaskProblem.from_problem(layer) for layer in layers], 18)
    >>> allocation.cost, allocation.certificate.bound <= allocation.certificate.objective
    (18.0, True)
    """
    weights = relative_weights(problems, importance)
    total = Budget(budget, sum(problem.total for problem in problems))
    program = BoxProgram(tuple(problems), weights, total)
    with watched("allocate", max_steps, "step", time_limit=time_limit, callback=callback, progress=progress) as watch:
        relaxation = solve_program(program, watch, tol=tol, max_steps=max_steps)
    if throw:
        relaxation.required()
    scores = program.split(relaxation.keep)
    return evaluated(problems, weights, scores, keep_jointly(problems, scores, total.amount), relaxation)


@computation
def allocate_by_score(
    problems: Sequence[MaskProblem],
    scores: Sequence[Array],
    budget: float,
    *,
    importance: Sequence[float] | None = None,
) -> Allocation:
    """Keep the units of largest score, over all modules together, as long as the budget lasts.

    With the scores of `newton_score` this is the global ranking of Numerical Pruning, Eq. (8), its pruning ratio meant as
    a ratio of parameters. There a head is alpha = 4 D_h / 3 times as large as a channel; here that is the ratio of their
    costs, and acts where costs are summed. As printed, alpha multiplies the *score* of a head and units are counted: heads
    then rank above all channels, and 0.67 of the requested parameters are removed (LLaMA-7B); or, if heads rank lowest,
    four times as many. Masks of growing budgets are nested. No lower bound is computed; `allocate` has one.

    Parameters
    ----------
    problems : sequence of MaskProblem
        One per module, with costs in the same unit (parameters).
    scores : sequence of arrays (m,)
        One per module, larger = kept longer.
    budget : float
        What the kept units of all modules may cost.
    importance : sequence of float, optional
        Weights of the modules' relative errors. The default is 1 for each.

    Returns
    -------
    Allocation
        The masks, without a bound.

    Raises
    ------
    ValueError
        For scores that do not fit, and for numbers out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import MaskProblem, Quadratic, allocate_by_score
    >>> problem = MaskProblem.from_problem(Quadratic(np.eye(3), np.ones((1, 3))))
    >>> scores = [np.array([3.0, 1.0, 2.0]), np.array([6.0, 5.0, 4.0])]
    >>> [mask.astype(int).tolist() for mask in allocate_by_score([problem, problem], scores, 4).masks]
    [[1, 0, 0], [1, 1, 1]]
    """
    weights = relative_weights(problems, importance)
    limit = Budget(budget, sum(problem.total for problem in problems))
    scores = checked_scores(problems, scores)
    return evaluated(problems, weights, scores, keep_jointly(problems, scores, limit.amount))


@computation
def allocate_uniformly(
    problems: Sequence[MaskProblem],
    scores: Sequence[Array],
    budget: float,
    *,
    importance: Sequence[float] | None = None,
) -> Allocation:
    """Spend the same fraction of every module's cost, budget / sum_m <c_m, 1>, on its units of largest score.

    Every module meets it to within one of its units.

    Parameters
    ----------
    problems : sequence of MaskProblem
        One per module, with costs in the same unit (parameters).
    scores : sequence of arrays (m,)
        One per module, larger = kept longer.
    budget : float
        What the kept units of all modules may cost.
    importance : sequence of float, optional
        Weights of the modules' relative errors. The default is 1 for each.

    Returns
    -------
    Allocation
        The masks, without a bound.

    Raises
    ------
    ValueError
        For scores that do not fit, and for numbers out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import MaskProblem, Quadratic, allocate_uniformly
    >>> problem = MaskProblem.from_problem(Quadratic(np.eye(3), np.ones((1, 3))))
    >>> scores = [np.array([3.0, 1.0, 2.0]), np.array([6.0, 5.0, 4.0])]
    >>> [mask.astype(int).tolist() for mask in allocate_uniformly([problem, problem], scores, 4).masks]
    [[1, 0, 1], [1, 1, 0]]
    """
    weights = relative_weights(problems, importance)
    limit = Budget(budget, sum(problem.total for problem in problems))
    scores = checked_scores(problems, scores)
    fraction = limit.amount / limit.total
    masks = [keep_within(score, problem.cost, fraction * problem.total) for problem, score in zip(problems, scores)]
    return evaluated(problems, weights, scores, masks)


def keep_jointly(problems: Sequence[MaskProblem], scores: Sequence[Array], budget: float) -> list[Array]:
    """Return `keep_within` over the units of all modules, the first module's first."""
    xp = namespace(*scores)
    mask = keep_within(xp.concat(list(scores)), xp.concat([problem.cost for problem in problems]), budget)
    parts, first = [], 0
    for problem in problems:
        parts.append(mask[first : first + problem.units])
        first += problem.units
    return parts


def evaluated(
    problems: Sequence[MaskProblem],
    weights: Sequence[float],
    scores: Sequence[Array],
    masks: Sequence[Array],
    relaxation: RelaxedMask | None = None,
) -> Allocation:
    """Return the allocation of these masks, with everything computed from them."""
    losses = [problem.value(mask) for problem, mask in zip(problems, masks)]
    cost = sum(problem.spent(mask) for problem, mask in zip(problems, masks))
    objective = sum(weight * loss for weight, loss in zip(weights, losses))
    energy = sum(weight * problem.energy for weight, problem in zip(weights, problems))
    size = sum(weight * problem.size for weight, problem in zip(weights, problems))
    sound = all(problem.possible(loss) for loss, problem in zip(losses, problems))
    bound = float("-inf") if relaxation is None else relaxation.bound_at(cost)
    certificate = Certificate(objective, bound, ratio(objective, energy, size), sound=sound)
    errors = tuple(ratio(loss, problem.energy, problem.size) for loss, problem in zip(losses, problems))
    rounding = None if relaxation is None else objective - relaxation.certificate.objective
    return Allocation(tuple(masks), tuple(scores), cost, errors, certificate, relaxation, rounding)


def relative_weights(problems: Sequence[MaskProblem], importance: Sequence[float] | None) -> tuple[float, ...]:
    """Return importance_m / energy_m; a module without any loss keeps its importance, which then multiplies zero."""
    if not problems:
        raise ValueError("there are no modules to share a budget")
    factors = [1.0] * len(problems) if importance is None else list(importance)
    if len(factors) != len(problems):
        raise ValueError(f"there are {len(problems)} modules but {len(factors)} importances")
    factors = [number(f"the importance of module {place}", factor, "(0, inf)") for place, factor in enumerate(factors)]
    for position, problem in enumerate(problems):
        if problem.silent:
            raise ValueError(f"module {position} has zero output, so no relative error: omit it")
    return tuple(factor / (problem.energy or 1.0) for problem, factor in zip(problems, factors))


def checked_scores(problems: Sequence[MaskProblem], scores: Sequence[Array]) -> list[Array]:
    """Return the scores of every module, or raise ValueError unless there is one per unit."""
    scores = [given("scores", score, problems[0].cost, "the mask problem") for score in scores]
    have, need = [tuple(score.shape) for score in scores], [(problem.units,) for problem in problems]
    if have != need:
        raise ValueError(f"the modules' units are {need} but their scores are {have}")
    return scores
