"""The relaxed mask with its box, solved exactly: an interior point method, then the active set that it points at."""

from __future__ import annotations

from dataclasses import dataclass

from gramian.solvers.backend._xp import Array, clip, namespace
from gramian.solvers.backend.computing import computation
from gramian.solvers.backend.options import number, whole
from gramian.solvers.core.certificate import Certificate, measured
from gramian.solvers.core.solution import Status
from gramian.solvers.core.watch import Callback, Watch, watched
from gramian.solvers.units.mask import Budget, MaskProblem, RelaxedMask
from gramian.solvers.units.program import BoxProgram

__all__ = ["relaxed_mask", "solve_program"]

PROGRESS = 0.5  # a step after which more than this of the complementarity remains is tried again without its second-order terms
FINISH_ROUNDS = 5  # of guessing the active set anew; after an interior point one or two are the rule


@computation
def relaxed_mask(
    problem: MaskProblem,
    budget: float,
    *,
    penalty: float = float("inf"),
    tol: float = 1e-9,
    max_steps: int = 100,
    throw: bool = False,
    time_limit: float | None = None,
    callback: Callback | None = None,
    progress: bool = False,
) -> RelaxedMask:
    """argmin_z loss(z) subject to 0 <= z <= 1 and <c, z> = budget, or to a penalty in its place

    A finite penalty adds penalty / 2 (<c, z> - budget)^2 to the loss in place of the budget. This is Numerical Pruning,
    Eq. (3), with the box that its Newton iteration lacks. One step is one Cholesky factorisation and 6 to 20 are the rule:
    2048 channels take 4 seconds of one core. A may be singular; z is then one of several minimisers.

    Parameters
    ----------
    problem : MaskProblem
        The loss.
    budget : float
        What the kept units may cost.
    penalty : float, default inf
        The penalty; infinity makes the budget exact.
    tol : float, default 1e-9
        The relative gap at which the solver has converged: objective - bound <= tol * objective, with a proven bound. An
        objective below 1e-4 of the summed losses of single units, where the relative gap has no meaning, counts as that.
    max_steps : int, default 100
        The most steps.
    throw, time_limit, callback, progress : optional
        As of `solve`; every step is a check, and the weights are z.

    Returns
    -------
    RelaxedMask
        CONVERGED, STEP_LIMIT, TIME_LIMIT, STOPPED, BROKEN, or DIRECT where only one point is feasible.

    Raises
    ------
    ValueError
        For numbers out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import MaskProblem, Quadratic, relaxed_mask
    >>> rng = np.random.default_rng(0)
    >>> layer = Quadratic.from_data(rng.normal(size=(64, 8)), rng.normal(size=(4, 8)))
    >>> problem = MaskProblem.from_problem(layer)
    >>> relaxed = relaxed_mask(problem, 6)
    >>> relaxed.status.name, bool((relaxed.keep >= 0).all() and (relaxed.keep <= 1).all())
    ('CONVERGED', True)
    """
    limit = Budget(budget, problem.total, penalty)
    whole("max_steps", max_steps)
    with watched("relaxed_mask", max_steps, "step", time_limit=time_limit, callback=callback, progress=progress) as watch:
        found = solve_program(BoxProgram((problem,), (1.0,), limit), watch, tol=tol, max_steps=max_steps)
    return found.required() if throw else found


def solve_program(program: BoxProgram, watch: Watch, *, tol: float, max_steps: int) -> RelaxedMask:
    """argmin of a box program by Mehrotra's predictor-corrector method, then by the linear system of its active set.

    The price enters a step as one more column, so a step of a joint problem costs one factorisation per module and there
    is no search over prices. It stops on the certificate of the point that would be returned.
    """
    tol, max_steps = number("tol", tol, "(0, inf]"), whole("max_steps", max_steps)
    program.budget.check_against(program.size)
    xp = namespace(program.cost)
    budget = program.budget
    fraction = min(1.0, budget.target / budget.total)
    removed = xp.full_like(program.cost, fraction)
    certificate, price = program.evaluated(removed)
    if program.size == 0 or (budget.exact and fraction in (0.0, 1.0)):  # any point will do, or only one is feasible
        return RelaxedMask(1 - removed, budget, price, certificate, Status.DIRECT)
    point = first_point(program, min(max(fraction, 0.01), 0.99) if fraction in (0.0, 1.0) else fraction)
    unmet, steps = Status.STEP_LIMIT, 0

    def reached() -> tuple[Array, Certificate]:
        """Return the mask that there is now."""
        return 1 - removed, certificate

    while True:
        ended = watch.verdict(steps, reached, measured(certificate))
        if ended and not program.meets(certificate, tol):
            return RelaxedMask(1 - removed, budget, price, certificate, ended, steps)
        if steps >= max_steps or program.meets(certificate, tol):
            break
        point = mehrotra_step(program, point)
        if not bool(xp.all(xp.isfinite(point.removed) & xp.isfinite(point.lower) & xp.isfinite(point.upper))):
            unmet = Status.BROKEN
            break
        steps += 1
        removed = clip(point.removed, 0.0, 1.0)  # u and 1 - u round apart
        certificate, price = program.evaluated(removed)
    removed, certificate, price = finish(program, removed, certificate, price, tol)
    status = Status.CONVERGED if program.meets(certificate, tol) else unmet
    return RelaxedMask(1 - removed, budget, price, certificate, status, steps)


@dataclass(frozen=True, eq=False)
class InteriorPoint:
    """Hold 0 < u < 1, 1 - u, the multipliers of both bounds, and the price.

    1 - u is kept apart: near u = 1 it has digits that u has not.
    """

    removed: Array
    kept: Array
    lower: Array
    upper: Array
    price: float


def first_point(program: BoxProgram, fraction: float) -> InteriorPoint:
    """Return u = fraction everywhere, with multipliers that satisfy stationarity."""
    removed = namespace(program.cost).full_like(program.cost, fraction)
    price = program.evaluated(removed)[1]
    reduced = program.product(removed) - program.linear - price * program.cost
    xp = namespace(reduced)
    positive = xp.where(reduced > 0, reduced, xp.zeros_like(reduced))
    sizes = program.diagonal + xp.abs(program.linear) + abs(price) * program.cost
    margin = float(xp.mean(xp.abs(reduced) + 0.01 * sizes)) or 1.0
    return InteriorPoint(removed, 1 - removed, positive + margin, positive - reduced + margin, price)


def mehrotra_step(program: BoxProgram, point: InteriorPoint) -> InteriorPoint:
    """Take one Newton step on the perturbed optimality conditions

        H u - b - price c - x + y = 0,   <c, u> + price / penalty = target,   u x = s,   (1 - u) y = s,

    with s and the second-order terms taken from a first step towards s = 0. It costs one factorisation and three solves.
    """
    xp = namespace(point.removed)
    cost, budget = program.cost, program.budget
    dual = program.product(point.removed) - program.linear - point.price * cost - point.lower + point.upper
    primal = budget.target - float(xp.sum(cost * point.removed)) - point.price / budget.penalty
    solve = program.normal(xp.ones_like(cost), point.lower / point.removed + point.upper / point.kept)
    column = solve(cost)
    stiffness = 1 / budget.penalty + float(xp.sum(cost * column))

    def direction(lower_miss: Array, upper_miss: Array) -> InteriorPoint:
        """Return the step towards these products u x and (1 - u) y."""
        base = solve(lower_miss / point.removed - upper_miss / point.kept - dual)
        price = (primal - float(xp.sum(cost * base))) / stiffness
        move = base + price * column
        lower = (lower_miss - point.lower * move) / point.removed
        upper = (upper_miss + point.upper * move) / point.kept
        return InteriorPoint(move, -move, lower, upper, price)

    lower_product, upper_product = point.removed * point.lower, point.kept * point.upper
    ahead = direction(-lower_product, -upper_product)
    mean = complementarity(point)
    trial = moved(point, ahead, min(1.0, longest_step(point, ahead)))
    aim = mean * (complementarity(trial) / mean) ** 3
    best = point
    for weight, least in ((1.0, 0.0), (0.0, 0.1)):  # the second-order terms are dropped where they do not help
        goal = min(max(aim, least * mean), 0.8 * mean)
        lower_miss = goal - lower_product - weight * ahead.removed * ahead.lower
        upper_miss = goal - upper_product - weight * ahead.kept * ahead.upper
        trial = searched(point, direction(lower_miss, upper_miss))
        if complementarity(trial) < complementarity(best):
            best = trial
        if complementarity(best) < PROGRESS * mean:
            break
    return best


def complementarity(point: InteriorPoint) -> float:
    """Return the mean of u x and (1 - u) y, a 2m-th of the duality gap of a feasible point."""
    xp = namespace(point.removed)
    return 0.5 * float(xp.mean(point.removed * point.lower + point.kept * point.upper))


def searched(point: InteriorPoint, move: InteriorPoint) -> InteriorPoint:
    """Return the step of least complementarity, which is a quadratic in it; without this the method is known to cycle."""
    step = min(1.0, 0.995 * longest_step(point, move))
    start, bend = complementarity(point), complementarity(move)
    slope = complementarity(moved(point, move, 1.0)) - start - bend
    if bend > 0 and -slope < 2 * bend * step:
        step = max(0.0, -slope / (2 * bend))
    return moved(point, move, step)


def moved(point: InteriorPoint, move: InteriorPoint, step: float) -> InteriorPoint:
    """Return the point after `step` times a move."""
    return InteriorPoint(
        point.removed + step * move.removed,
        point.kept + step * move.kept,
        point.lower + step * move.lower,
        point.upper + step * move.upper,
        point.price + step * move.price,
    )


def longest_step(point: InteriorPoint, move: InteriorPoint) -> float:
    """Return the largest step that keeps everything at least zero."""
    xp = namespace(point.removed)
    longest = float("inf")
    for name in ("removed", "kept", "lower", "upper"):
        value, change = getattr(point, name), getattr(move, name)
        shrinks = change < 0
        limit = xp.where(shrinks, -value / xp.where(shrinks, change, -xp.ones_like(change)), xp.full_like(value, float("inf")))
        longest = min(longest, float(xp.min(limit)))
    return longest


def finish(
    program: BoxProgram, removed: Array, certificate: Certificate, price: float, tol: float
) -> tuple[Array, Certificate, float]:
    """Return the same optimum with exact zeros and ones, if the active set can be identified, else what came in.

    A unit is at a bound when a projected gradient step ends there. The others solve H_FF u_F - price c_F = b_F - H_FA u_A
    with the budget; a tiny ridge on the change, undone by repeating, serves the case of a singular H_FF.
    """
    xp = namespace(removed)
    cost, budget = program.cost, program.budget
    floor = 1e-12 * float(xp.max(program.diagonal))
    curvature = xp.where(program.diagonal > floor, program.diagonal, xp.full_like(cost, floor or 1.0))
    point, slope = removed, price
    for _ in range(FINISH_ROUNDS):
        goal = point - (program.product(point) - program.linear - slope * cost) / curvature
        free = xp.astype((goal > 0) & (goal < 1), xp.float64)
        point = free * clip(point, 0.0, 1.0) + xp.astype(goal >= 1, xp.float64)
        solve = program.normal(free, (1 - free) + 1e-13 * free * curvature)
        column = free * solve(free * cost)
        stiffness = 1 / budget.penalty + float(xp.sum(cost * column))
        for _ in range(3):
            residual = program.linear + slope * cost - program.product(point)
            base = free * solve(free * residual)
            missing = budget.target - float(xp.sum(cost * (point + base))) - slope / budget.penalty
            change = missing / stiffness if stiffness > 0 else 0.0
            point, slope = point + base + change * column, slope + change
        candidate, slope = program.evaluated(point)
        inside = float(xp.min(point)) >= 0 and float(xp.max(point)) <= 1 and candidate.violation <= 1e-12
        if inside and (candidate.gap <= certificate.gap or program.meets(candidate, 0.01 * tol)):
            return point, candidate, slope
    return removed, certificate, price
