"""A sparse core between two block-diagonal wrappers: ARMOR, by sweeps that never raise the loss."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gramian.solvers.backend._xp import Array, clip, copied, full, namespace
from gramian.solvers.backend.computing import computation
from gramian.solvers.backend.options import whole
from gramian.solvers.core.certificate import Certificate
from gramian.solvers.core.patterns import NM, Pattern, PatternLike, TopK, pattern_of
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Solution, Status
from gramian.solvers.core.watch import Callback, Watch, watched
from gramian.solvers.support.block_products import identities
from gramian.solvers.support.factor_updates import Factors, Landscape, best_left, best_right, residuals
from gramian.solvers.support.local_search import BEGINNINGS
from gramian.solvers.support.starts import check_choice

__all__ = ["WrappedSolution", "armor"]

STEPS = 8  # of conjugate gradients on a support, twice a sweep
SHORTEST = 1e-3  # of the diagonal step: what proposes a support then changes none
ENOUGH = 1e-5  # of the loss: a sweep that gains less ends the search


@dataclass(frozen=True, eq=False, repr=False)
class WrappedSolution(Solution):
    """Hold V = A S B as a solution, with its factors.

    Parameters
    ----------
    weights : array (q, p)
        The product V, which has no zeros of its own.
    status : Status
        How the solver ended.
    certificate : Certificate
        Its KKT residual is the largest of those of the three factors, each on its own least squares.
    steps : int, default 0
        Sweeps spent.
    history : tuple of (int, float), default ()
        Pairs (step, loss).
    detail : dict of str to float
        Named figures of the factors.
    factors : Factors
        The core S, which satisfies the pattern, and the blocks of A and B, in float64.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import Quadratic, armor
    >>> rng = np.random.default_rng(0)
    >>> problem = Quadratic.from_data(rng.normal(size=(64, 8)), rng.normal(size=(4, 8)))
    >>> solution = armor(problem, "2:4", block=4, sweeps=2, warm_start="sparsegpt")
    >>> int((solution.factors.core != 0).sum()), solution.weights.shape
    (16, (4, 8))
    """

    factors: Factors | None = None


@computation
def armor(
    problem: Quadratic,
    pattern: PatternLike,
    *,
    block: int = 32,
    sweeps: int = 30,
    warm_start: str = "l0",
    throw: bool = False,
    time_limit: float | None = None,
    callback: Callback | None = None,
    progress: bool = False,
) -> WrappedSolution:
    """min f(A S B) subject to S satisfying the pattern, A and B block-diagonal, by sweeps over S, B and A

    The start is the answer V of another method, as S = V between A = B = I, so that the loss is at most that of this method. A
    sweep solves for the weights of S on its support by conjugate gradients; proposes another support, the pattern's largest of

        h_ij (s_ij - t slope_ij / h_ij)^2,   h the diagonal of the Hessian of S,

    and keeps it in every block of rows where the loss is less once the weights there are solved for (t doubles there, up to 1,
    and is halved elsewhere; a pattern that lets blocks compete is kept or refused as a whole); then solves for every block of
    B, one after the other, and for all blocks of A. Each of these is exact but for the conjugate gradients. The problem is not
    convex in all factors together, so that nothing bounds the loss from below.

    A and B add about block (q + p) parameters, and every token costs as many multiply-adds more.

    Parameters
    ----------
    problem : Quadratic
        f.
    pattern : Pattern, str or float
        Which masks the core may have; "2:4" and a sparsity will do.
    block : int, default 32
        The rows of a block of A and of B; a last block is smaller where it does not divide q or p.
    sweeps : int, default 30
        The most sweeps, at least 0. Fewer where one gains less than 1e-5 of the loss.
    warm_start : str, default "l0"
        The method that the sweeps start from: `l0`, `magnitude`, `wanda`, `sparsegpt` or `fistapruner`.
    throw, time_limit, callback, progress : optional
        As of `solve`; the start counts, and is never cut short. Every sweep is a step, and a check.

    Returns
    -------
    WrappedSolution
        SEARCHED, TIME_LIMIT or STOPPED, with A S B as weights and (sweep, relative error) as history, from the start on, which
        never rises. Its detail: `left_residual`, `right_residual`, `core_residual`, the KKT residual of each factor beside the
        others; `core_zeros`; `wrapper_parameters`, those of A and B; `start_error`, the relative error of the start.

    Raises
    ------
    ValueError
        For a start that is none of these, for numbers out of range, and for a pattern that does not fit.

    References
    ----------
    ARMOR (2025) moves A, B and S by gradients and the support group by group; here each is solved for.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import Quadratic, armor, l0_admm
    >>> rng = np.random.default_rng(0)
    >>> problem = Quadratic.from_data(rng.normal(size=(64, 8)), rng.normal(size=(16, 8)))
    >>> solution, plain = armor(problem, "2:4", block=4), l0_admm(problem, "2:4")
    >>> solution.certificate.objective < 0.9 * plain.certificate.objective, solution.factors.zeros, solution.factors.added
    (True, 64, 96)
    """
    block, sweeps = whole("block", block), whole("sweeps", sweeps, 0)
    check_choice("warm_start", warm_start, BEGINNINGS)
    pattern = pattern_of(pattern, problem.shape)
    with watched("armor", sweeps, "sweep", time_limit=time_limit, callback=callback, progress=progress) as watch:
        first = BEGINNINGS[warm_start](problem, pattern)
        solution = watched_sweeps(problem, pattern, first, block, sweeps, watch)
    if throw:
        solution.required()
    return solution


def watched_sweeps(
    problem: Quadratic, pattern: Pattern, first: Solution, block: int, sweeps: int, watch: Watch
) -> WrappedSolution:
    """Do what `armor` does from weights that satisfy the pattern, beside a watch."""
    exact = problem.double
    xp = namespace(exact.anchor)
    core = copied(xp.astype(first.weights, xp.float64))
    rows, width = core.shape
    sizes = min(block, rows), min(block, width)
    factors = Factors(core, identities(rows, sizes[0], core), identities(width, sizes[1], core))
    lengths = full((factors.left.shape[0],), 1.0, core)
    losses = [exact.loss(core)]
    ended: Status | None = None

    def reached() -> tuple[Array, Certificate]:
        """Return the product that there is now."""
        found = answer(problem, pattern, factors, exact, {})
        return found.weights, found.certificate

    step = 0
    while step < sweeps and losses[-1] > 0 and not ended:
        fresh, lengths = swept(exact, pattern, factors, lengths)
        loss = exact.loss(fresh.dense())
        if not loss < losses[-1]:  # rounding is all that is left
            break
        factors, step = fresh, step + 1
        losses.append(loss)
        over = step == sweeps or losses[-2] - loss <= ENOUGH * losses[-2]
        ended = watch.verdict(step, reached, over=over)
        if over:
            break
    energy = exact.energy
    history = tuple((count, loss / energy if energy > 0 else 0.0) for count, loss in enumerate(losses))
    found = answer(problem, pattern, factors, exact, {"start_error": first.certificate.relative_error})
    return replace(found, status=ended or Status.SEARCHED, steps=step, history=history)


def swept(problem: Quadratic, pattern: Pattern, factors: Factors, lengths: Array) -> tuple[Factors, Array]:
    """Return the factors after one sweep, and the lengths t by which supports are proposed next, (n,)."""
    xp = namespace(factors.core)
    core = factors.core + settled(Landscape.of(problem, factors), pattern.select(xp.abs(factors.core)))
    factors = replace(factors, core=core)
    core, lengths = reselected(Landscape.of(problem, factors), pattern, lengths)
    factors = replace(factors, core=core)
    factors = replace(factors, right=best_right(problem, factors))
    return replace(factors, left=best_left(problem, factors)), lengths


def settled(land: Landscape, mask: Array) -> Array:
    """Return the change of the core to better weights on a support that holds it, 0 in blocks where rounding is in the way."""
    change = land.change_on(mask, STEPS)
    xp = namespace(change)
    return change * land.to_rows(xp.astype(land.rises(change) < 0, change.dtype))


def reselected(land: Landscape, pattern: Pattern, lengths: Array) -> tuple[Array, Array]:
    """Return the core on a better support, where one was found, and the lengths of the next proposals."""
    xp = namespace(land.core)
    alive = land.diagonal > 0
    step = land.to_rows(lengths) * land.slope / xp.where(alive, land.diagonal, xp.ones_like(land.diagonal))
    moved = land.core - xp.where(alive, step, xp.zeros_like(step))
    mask = pattern.select(land.diagonal * moved**2)
    change = land.change_on(mask, STEPS)
    rises = land.rises(change)
    if not (isinstance(pattern, NM) or (isinstance(pattern, TopK) and pattern.per_row)):
        rises = full((lengths.shape[0],), float(xp.sum(rises)), rises)  # blocks compete for what is kept
    better = rises < 0
    there = land.to_rows(xp.astype(better, change.dtype)) > 0
    core = xp.where(there, (land.core + change) * xp.astype(mask, change.dtype), land.core)
    return core, clip(xp.where(better, 2 * lengths, 0.5 * lengths), SHORTEST, 1.0)


def answer(
    problem: Quadratic, pattern: Pattern, factors: Factors, exact: Quadratic, detail: dict[str, float]
) -> WrappedSolution:
    """Return factors as a solution, with what can be proven of them."""
    xp = namespace(factors.core)
    weights = xp.astype(factors.dense(), problem.anchor.dtype)
    stored = xp.astype(weights, xp.float64)
    losses = exact.row_losses(stored)
    sound = exact.possible(losses, exact.rounding(stored))
    found = residuals(exact, factors)
    off = 0.0 if pattern.admits(factors.core != 0) else float(xp.max(xp.abs(factors.core)))
    error = exact.error_of(losses) if sound else float("inf")
    certificate = Certificate(float(xp.sum(losses)), float("-inf"), error, max(found.values()), off, sound=sound)
    counts = {"core_zeros": float(factors.zeros), "wrapper_parameters": float(factors.added)}
    return WrappedSolution(weights, Status.SEARCHED, certificate, detail={**found, **counts, **detail}, factors=factors)
