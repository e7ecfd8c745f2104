"""The LASSO along lambda: where it starts, points on it, and the point of a requested sparsity."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from gramian.solvers.backend._xp import Array, full, namespace
from gramian.solvers.backend.computing import computation
from gramian.solvers.backend.options import flag, is_number, number, whole
from gramian.solvers.backend.printed import digits, span
from gramian.solvers.core.certificate import certify
from gramian.solvers.core.loop import Solver, watched_solve
from gramian.solvers.core.patterns import TopK
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Solution, Status
from gramian.solvers.core.terms import L1, L1Like, l1_of
from gramian.solvers.core.watch import Callback, Watch, watched
from gramian.solvers.l1.active import Workspace

__all__ = ["PathPoint", "SparsitySearch", "lambda_max", "lasso_path", "lasso_to_sparsity"]

SMALLEST = 1e-7  # of lambda_max in unit-diagonal coordinates: below this a LASSO on float64 moments is least squares


def lambda_max(problem: Quadratic, *, per_row: bool = False) -> Array:
    """min lambda such that V = 0 is optimal: max |grad f(0)|

    This is exact, equality included: zero is optimal if and only if |grad f(0)|_ij <= lambda everywhere. It scales with the
    square of the inputs, so a fixed upper end such as FISTAPruner's M = 1e6 is neither needed nor enough.

    Parameters
    ----------
    problem : Quadratic
        f.
    per_row : bool, default False
        Whether every row has its own.

    Returns
    -------
    array
        (1, 1), or (q, 1) with `per_row`.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import L1, Quadratic, lambda_max, lasso
    >>> problem = Quadratic(np.eye(2), np.array([[3.0, 0.5], [1.0, 2.0]]))
    >>> lambda_max(problem).tolist(), lambda_max(problem, per_row=True).tolist()
    ([[3.0]], [[3.0], [2.0]])
    >>> bool((lasso(problem, L1(lambda_max(problem))).weights == 0).all())
    True
    """
    xp = namespace(problem.anchor)
    size = xp.abs(problem.at_zero[1])
    return xp.max(size, axis=1, keepdims=True) if flag("per_row", per_row) else xp.reshape(xp.max(size), (1, 1))


@dataclass(frozen=True, eq=False)
class PathPoint:
    """Hold one point of a path.

    Parameters
    ----------
    weight : float or array
        lambda.
    solution : Solution
        argmin_V f(V) + lambda |V|_1, to the tolerance of the path.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import Quadratic, lasso_path
    >>> point = lasso_path(Quadratic(np.eye(2), np.array([[3.0, 0.5]])), [4.0])[0]
    >>> point.weight, point.solution.weights.tolist(), point.solution.status.name
    (4.0, [[0.0, 0.0]], 'CONVERGED')
    """

    weight: Array | float
    solution: Solution

    def __repr__(self) -> str:
        weight = digits(self.weight) if isinstance(self.weight, int | float) else span(self.weight)
        return f"PathPoint(lambda {weight}, {self.solution})"


@computation
def lasso_path(
    problem: Quadratic,
    weights: Iterable[L1Like | Array],
    *,
    solver: Solver | None = None,
    tol: float = 1e-6,
    max_steps: int = 10_000,
    throw: bool = False,
    time_limit: float | None = None,
    callback: Callback | None = None,
    progress: bool = False,
) -> list[PathPoint]:
    """argmin_V f(V) + lambda |V|_1 for every lambda in `weights`, each started from its predecessor

    Largest lambda first is cheapest: the first solution is then nearly zero, and supports grow slowly.

    Parameters
    ----------
    problem : Quadratic
        f.
    weights : iterable of float, array or L1
        The lambdas: numbers, or what `L1` takes.
    solver : Solver, optional
        None for `lasso`, of whose inverses all lambdas make use; or for instance `FISTA()`.
    tol : float, default 1e-6
        The tolerance of every solve.
    max_steps : int, default 10000
        The most steps of every solve.
    throw, time_limit, callback, progress : optional
        As of `solve`, for all solves together; steps are counted within each. What ends one solve ends the path.

    Returns
    -------
    list of PathPoint
        One for every lambda, in their order, as far as the path was followed. The last one's status says why it ended.

    Raises
    ------
    ValueError
        For a lambda that does not fit or is not finite and at least zero, and for numbers out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import Quadratic, lasso_path
    >>> problem = Quadratic(np.eye(2), np.array([[3.0, 0.5]]))
    >>> [point.solution.weights.round(6).tolist() for point in lasso_path(problem, [1.0, 0.25])]
    [[[2.0, 0.0]], [[2.75, 0.25]]]
    """
    tol, max_steps = number("tol", tol), whole("max_steps", max_steps)
    if is_number(weights):
        raise ValueError(f"a path needs several lambdas, as in [{weights}], but got the number {weights}")
    terms, points = [l1_of(each if isinstance(each, L1) else L1(each), problem.anchor) for each in weights], list[PathPoint]()
    with watched("lasso_path", len(terms), "lambda", time_limit=time_limit, callback=callback, progress=progress) as watch:
        within = watch.within
        run = runs(problem, solver, tol, max_steps, within)
        start = namespace(problem.anchor).zeros_like(problem.anchor)
        for term in terms:
            solution = run(term, start)
            if within.ended and len(points) + 1 < len(terms):
                solution = replace(solution, status=within.ended)
            points.append(PathPoint(term.weight, solution.required() if throw else solution))
            if within.ended:
                break
            start = solution.weights
            watch.count(len(points))
    return points


def runs(
    problem: Quadratic, solver: Solver | None, tol: float, max_steps: int, watch: Watch
) -> Callable[[L1, Array], Solution]:
    """Return (term, start) -> the LASSO of `problem`, by `solver`, or by `lasso` if it is None."""
    workspace = Workspace.of(problem) if solver is None else None

    def run(term: L1, start: Array) -> Solution:
        if solver is None:
            assert workspace is not None
            return workspace.lasso(term, watch, start=start, tol=tol, max_steps=max_steps)
        return watched_solve(problem, term, solver, watch, start=start, tol=tol, max_steps=max_steps)

    return run


@dataclass(frozen=True, eq=False)
class SparsitySearch:
    """zeros_below < target <= zeros at `below` < `weight`, the bracket on which a bisection ended

    The arrays have one entry per group: (1, 1) for the whole matrix, (q, 1) per row. Where even the smallest lambda that was
    tried has `target` zeros already, `below` is 0 and the status is UNREACHABLE.

    Parameters
    ----------
    solution : Solution
        The LASSO at `weight`, with at least `target` zeros.
    weight : array
        The upper lambda.
    below : array
        The lower lambda.
    zeros : array
        The number of zeros at `weight`.
    zeros_below : array
        The number of zeros at `below`.
    target : int
        The number of zeros that was requested of every group.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import Quadratic, lasso_to_sparsity
    >>> search = lasso_to_sparsity(Quadratic(np.eye(2), np.array([[3.0, 0.5]])), 0.5)
    >>> search.weight.tolist(), search.zeros.tolist(), search.target, search.solution.status.name
    ([[0.75]], [[1]], 1, 'SEARCHED')
    """

    solution: Solution
    weight: Array
    below: Array
    zeros: Array
    zeros_below: Array
    target: int

    def __repr__(self) -> str:
        return f"SparsitySearch(lambda {span(self.weight)}, target {self.target} zeros, {self.solution})"


@computation
def lasso_to_sparsity(
    problem: Quadratic,
    sparsity: float,
    *,
    per_row: bool = False,
    solver: Solver | None = None,
    tol: float = 1e-6,
    max_steps: int = 10_000,
    width: float = 1e-3,
    throw: bool = False,
    time_limit: float | None = None,
    callback: Callback | None = None,
    progress: bool = False,
) -> SparsitySearch:
    """min lambda such that argmin_V f(V) + lambda |V|_1 has at least `round(sparsity * n)` zeros, by bisection on log lambda

    What is returned is the smallest bracketed one. The search keeps N(lower) < target <= N(upper) for the counts of zeros N at
    every step, which needs no monotonicity of N. (N is a step function and not monotone, against FISTAPruner's Theorem 1: with
    G = [[5, 2], [2, 1]] and w = (-0.9, 3) it goes 0, 1, 0, 1, 2.) In general position each knot of the path changes N by one,
    so the count is met exactly once solves are exact and `width` is below the distance of knots; ties jump over it, and
    rounding to a pattern remains. The search ends where N(upper) = target, or where upper / lower < 1 + width.

    Parameters
    ----------
    problem : Quadratic
        f.
    sparsity : float
        The fraction of zeros, in [0, 1).
    per_row : bool, default False
        Whether every row has its own lambda and count; all rows are then bisected at once.
    solver : Solver, optional
        As of `lasso_path`.
    tol : float, default 1e-6
        The tolerance of every inner solve, each of which starts from the one before.
    max_steps : int, default 10000
        The most steps of every inner solve.
    width : float, default 1e-3
        The relative width of the bracket at which the search ends.
    throw, time_limit, callback, progress : optional
        As of `solve`, for all inner solves together; steps are counted within each. What ends one solve ends the search, and
        the solution is then at the upper end of the bracket so far.

    Returns
    -------
    SparsitySearch
        The bracket, with the solution at its upper end.

    Raises
    ------
    ValueError
        Unless width is positive, and for a sparsity out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import Quadratic, lasso_to_sparsity
    >>> rng = np.random.default_rng(0)
    >>> problem = Quadratic.from_data(rng.normal(size=(64, 8)), rng.normal(size=(4, 8)))
    >>> search = lasso_to_sparsity(problem, 0.75)
    >>> search.solution.status.name, int((search.solution.weights == 0).sum()), search.target
    ('SEARCHED', 24, 24)
    """
    tol, max_steps = number("tol", tol), whole("max_steps", max_steps)
    per_row, pattern = flag("per_row", per_row), TopK(sparsity)
    if not (is_number(width) and width > 0):
        raise ValueError(f"width is {width}: ties can jump over the count, and only a positive width ends the search then")
    width = max(width, 4 * float(namespace(problem.anchor).finfo(problem.anchor.dtype).eps))
    target = pattern.zeros(problem.shape[1] if per_row else problem.shape[0] * problem.shape[1])
    most = most_solves(width)
    with watched("lasso_to_sparsity", most, "lambda", time_limit=time_limit, callback=callback, progress=progress) as watch:
        search = watched_search(problem, target, per_row, solver, tol, max_steps, width, watch)
    if throw:
        search.solution.required()
    return search


def watched_search(
    problem: Quadratic,
    target: int,
    per_row: bool,
    solver: Solver | None,
    tol: float,
    max_steps: int,
    width: float,
    watch: Watch,
) -> SparsitySearch:
    """Do what `lasso_to_sparsity` does, whose options are checked already, beside a watch."""
    xp = namespace(problem.anchor)
    within = watch.within
    run = runs(problem, solver, tol, max_steps, within)
    upper = lambda_max(problem, per_row=per_row)
    upper = xp.where(upper > 0, upper, xp.ones_like(upper))  # nothing to fit: zero is optimal at any lambda
    smallest = least_lambda(problem, upper, per_row)
    weights = xp.zeros_like(problem.anchor)
    zeros_upper = count_zeros(weights, per_row)
    lower, zeros_lower = xp.zeros_like(upper), xp.full_like(zeros_upper, -1)
    kept, steps = weights, 0
    history: list[tuple[int, float]] = []

    def visit(weight: Array, start: Array) -> tuple[Array, Array]:
        """Solve at these lambdas, and return the weights and their counts of zeros."""
        nonlocal steps
        solution = run(L1(weight), start)
        steps += solution.steps
        watch.count(len(history) + 1)
        history.append((steps, solution.certificate.measure))
        return solution.weights, count_zeros(solution.weights, per_row)

    def absorb(groups: Array, weight: Array, weights: Array, zeros: Array) -> None:
        """Move one end of the bracket of every open group; an inexact solve must not reopen a closed one."""
        nonlocal upper, lower, zeros_upper, zeros_lower, kept
        enough, short = groups & (zeros >= target), groups & (zeros < target)
        kept = xp.where(enough, weights, kept)
        upper, zeros_upper = xp.where(enough, weight, upper), xp.where(enough, zeros, zeros_upper)
        lower, zeros_lower = xp.where(short, weight, lower), xp.where(short, zeros, zeros_lower)

    while True:  # walk down from lambda_max until every group has too few zeros, or has run out of lambda
        open_groups = (lower == 0) & (upper > smallest) & (zeros_upper != target)
        if not bool(xp.any(open_groups)):
            break
        weight = xp.where(open_groups, xp.where(0.25 * upper > smallest, 0.25 * upper, smallest), upper)
        weights, zeros = visit(weight, kept)
        if within.ended:
            break
        absorb(open_groups, weight, weights, zeros)
    while not within.ended:  # bisect
        open_groups = (lower > 0) & (zeros_upper != target) & (upper > (1 + width) * lower)
        if not bool(xp.any(open_groups)):
            break
        weight = xp.where(open_groups, xp.sqrt(upper) * xp.sqrt(xp.where(lower > 0, lower, upper)), upper)
        weights, zeros = visit(weight, kept)
        if within.ended:
            break
        absorb(open_groups, weight, weights, zeros)
    exhausted = (lower == 0) & (upper <= smallest) & (zeros_upper > target)
    status = within.ended or (Status.UNREACHABLE if bool(xp.any(exhausted)) else Status.SEARCHED)
    solution = Solution(kept, status, certify(problem, L1(upper), kept), steps, tuple(history))
    solution = replace(solution, detail={"lambda": float(xp.max(upper)), "target": float(target)})
    return SparsitySearch(solution, upper, lower, zeros_upper, zeros_lower, target)


def least_lambda(problem: Quadratic, upper: Array, per_row: bool) -> Array:
    """Return the lambda, (1, 1) or (q, 1), below which a LASSO is least squares whatever the scale of a channel.

    In unit-diagonal coordinates channel j has the weight lambda / sqrt(G_jj), so it is that of the channel of least norm.
    """
    xp = namespace(problem.anchor)
    pull = xp.max(xp.abs(problem.at_zero[1]) / problem.unit_scale, axis=1, keepdims=True)
    pull = pull if per_row else xp.max(pull, axis=0, keepdims=True)
    alive = problem.diagonal > 0
    least = xp.min(xp.where(alive, problem.unit_scale, xp.full_like(problem.unit_scale, float("inf"))))
    found = SMALLEST * xp.where(pull > 0, pull * xp.where(least < float("inf"), least, xp.ones_like(least)), upper)
    tiny = float(xp.finfo(upper.dtype).smallest_normal)
    return xp.where(found > tiny, found, xp.full_like(found, tiny))


def most_solves(width: float) -> int:
    """Return about how many lambdas a search visits at most: on its way down, and while it bisects a factor of 4."""
    return math.ceil(-math.log(SMALLEST, 4) + math.log2(math.log(4) / min(1.0, max(1e-16, width)) + 1))


def count_zeros(weights: Array, per_row: bool) -> Array:
    """Return exact zeros per row (q, 1), or in all (1, 1)."""
    xp = namespace(weights)
    zero = xp.astype(weights == full((1, 1), 0.0, weights), xp.int64)
    return xp.sum(zero, axis=1, keepdims=True) if per_row else xp.reshape(xp.sum(zero), (1, 1))
