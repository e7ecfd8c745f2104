"""DSnoT: the mask of another method improved by exchanges, with the weights as they are."""

from __future__ import annotations

from gramian.solvers.backend._xp import Array, device, full, namespace
from gramian.solvers.backend.computing import computation
from gramian.solvers.backend.options import whole
from gramian.solvers.core.certificate import Certificate, certify
from gramian.solvers.core.patterns import NM, PatternLike, counted_pattern
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Solution, Status
from gramian.solvers.core.terms import Support
from gramian.solvers.core.watch import Callback, Watch, watched
from gramian.solvers.support.starts import STARTS, check_choice

__all__ = ["dsnot", "grow_and_prune"]

ROUNDING = 1e-12  # of a row's loss at zero: a smaller change is none


@computation
def dsnot(
    problem: Quadratic,
    pattern: PatternLike,
    *,
    start: str = "wanda",
    steps: int = 50,
    throw: bool = False,
    time_limit: float | None = None,
    callback: Callback | None = None,
    progress: bool = False,
) -> Solution:
    """f(W o mask), lowered by exchanges of a kept weight for a pruned one in every row, `steps` times at most

    The first mask is another method's. Weights are not updated, not even if that method did: each is w_j or 0. With g the
    gradient of the loss at W on the mask, growing i and pruning j changes it by

        w_i g_i - w_j g_j + 1/2 (w_i^2 G_ii + w_j^2 G_jj - 2 w_i w_j G_ij).

    The i is grown that changes it least with the best partner, their product left out; then the j is pruned that is best with
    i, in the same group for n:m and in the same row always, so that the count of every row remains.

    "Dynamic Sparse No Training" grows and prunes by the mean and variance of a row's error. Here both are chosen by their exact
    effect on the loss, which therefore never rises above that of W on the first mask.

    Parameters
    ----------
    problem : Quadratic
        f.
    pattern : TopK, NM, str or float
        Which masks are allowed; "2:4" and a sparsity will do. The original is published for per-row patterns and n:m.
    start : str, default "wanda"
        Whose mask is improved: `magnitude`, `wanda` or `sparsegpt`.
    steps : int, default 50
        The most exchanges in a row, at least 0.
    throw, time_limit, callback, progress : optional
        As of `solve`; the start counts, and is never cut short. An exchange in every row is a step, and a check.

    Returns
    -------
    Solution
        SEARCHED, TIME_LIMIT or STOPPED, with the KKT residual on the support, which is not zero because nothing is refitted.
        Its detail: `exchanges`, the number made in all rows; `start_error`, the relative error of W on the first mask.

    Raises
    ------
    ValueError
        For a start that is none of these, for steps < 0, and for a pattern that does not fit.

    References
    ----------
    Zhang et al. 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import Quadratic, TopK, dsnot, magnitude
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(64, 8)) * np.arange(1, 9)
    >>> problem, pattern = Quadratic.from_data(X, rng.normal(size=(4, 8))), TopK(0.5)
    >>> first = magnitude(problem, pattern)
    >>> better = dsnot(problem, pattern, start="magnitude")
    >>> better.certificate.objective < first.certificate.objective, int((better.weights == 0).sum())
    (True, 16)
    """
    check_choice("start", start, STARTS)
    pattern, steps = counted_pattern(pattern, problem.shape, "dsnot"), whole("steps", steps, 0)
    with watched("dsnot", steps, "step", time_limit=time_limit, callback=callback, progress=progress) as watch:
        mask = STARTS[start](problem, pattern).weights != 0
        solution = grow_and_prune(problem, pattern, mask, steps=steps, watch=watch)
    return solution.required() if throw else solution


@computation
def grow_and_prune(
    problem: Quadratic, pattern: PatternLike, mask: Array, *, steps: int = 50, watch: Watch | None = None
) -> Solution:
    """f(W o mask), lowered by the exchanges of `dsnot` from a mask of any method, which must satisfy the pattern.

    mask: (q, p) of bool, True where weights are kept. ValueError is raised for a mask off the pattern, and for steps < 0.
    """
    pattern, steps = counted_pattern(pattern, problem.shape, "dsnot"), whole("steps", steps, 0)
    if tuple(mask.shape) != problem.shape or not pattern.admits(mask):
        raise ValueError(f"the mask must be {problem.shape} and satisfy {pattern} but is {tuple(mask.shape)} or does not")
    exact = problem.double
    xp = namespace(exact.anchor, mask)
    rows, width = problem.shape
    group = pattern.group if isinstance(pattern, NM) else width
    weight, infinity = exact.anchor, full((1, 1), float("inf"), exact.anchor)
    own = 0.5 * weight**2 * exact.diagonal
    channels = xp.arange(width, device=device(weight))[None, :]
    gradient = exact.gradient(Support(mask).prox(weight, 1.0))
    first, made, done = exact.relative_error(Support(mask).prox(weight, 1.0)), 0.0, 0
    watch = watch or Watch()

    def reached() -> tuple[Array, Certificate]:
        """Return the weights on the mask that there is now."""
        weights = Support(mask).prox(problem.anchor, 1.0)
        return weights, certify(problem, Support(mask), weights)

    ended = watch.verdict(0, reached, over=steps == 0)
    while done < steps and not ended:
        growing = xp.where(mask, infinity, own + weight * gradient)
        pruning = xp.where(mask, own - weight * gradient, infinity)
        partner = xp.min(xp.reshape(pruning, (rows, -1, group)), axis=2, keepdims=True)
        partner = xp.reshape(xp.broadcast_to(partner, (rows, width // group, group)), (rows, width))
        grown = xp.argmin(growing + partner, axis=1)
        here = channels == grown[:, None]
        gained = xp.sum(xp.where(here, weight, xp.zeros_like(weight)), axis=1, keepdims=True)  # w_i
        along = gained * xp.take(exact.gram, grown, axis=0)
        beside = channels // group == grown[:, None] // group
        growth = xp.min(xp.where(here, growing, infinity), axis=1, keepdims=True)
        change = growth + xp.where(beside, pruning - weight * along, infinity)
        pruned = xp.argmin(change, axis=1)
        going = (xp.min(change, axis=1) < -ROUNDING * exact.at_zero[0])[:, None]
        if not bool(xp.any(going)):
            break
        there = channels == pruned[:, None]
        lost = xp.sum(xp.where(there, weight, xp.zeros_like(weight)), axis=1, keepdims=True)  # w_j
        moved = along - lost * xp.take(exact.gram, pruned, axis=0)
        gradient = gradient + xp.where(going, moved, xp.zeros_like(moved))
        mask = (mask | (here & going)) & ~(there & going)
        made, done = made + float(xp.sum(xp.astype(going, xp.float64))), done + 1
        ended = watch.verdict(done, reached, over=done == steps)
    weights, certificate = reached()
    detail = {"exchanges": made, "start_error": first}
    return Solution(weights, ended or Status.SEARCHED, certificate, done, detail=detail)
