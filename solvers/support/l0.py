"""Least squares over all weights that a sparsity pattern admits: ADMM to find a support, exact weights on it."""

from __future__ import annotations

from gramian.solvers.backend._xp import Array, clip, copied, namespace
from gramian.solvers.backend.computing import computation
from gramian.solvers.backend.options import number, whole
from gramian.solvers.core.certificate import Certificate
from gramian.solvers.core.patterns import Pattern, PatternLike, check_score, pattern_of
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Solution, Status
from gramian.solvers.core.watch import Callback, Watch, watched
from gramian.solvers.direct.restricted import refit
from gramian.solvers.support.obs import inverse_factor

__all__ = ["l0_admm"]

PIVOT_DAMPING = 0.01  # of the unit-diagonal Gram, in the pivots only; 0.001 to 0.03 measure alike


@computation
def l0_admm(
    problem: Quadratic,
    pattern: PatternLike,
    *,
    steps: int = 180,
    first: float = 0.03,
    last: float = 1.0,
    stage: int = 4,
    throw: bool = False,
    time_limit: float | None = None,
    callback: Callback | None = None,
    progress: bool = False,
) -> Solution:
    """min_V f(V) subject to V satisfying the pattern, approximately, by ADMM with a growing penalty and a refit

    The problem is not convex, and nothing says how near the answer is to its optimum; `l0_bound` does, from below. ADMM on
    f(V) + indicator(Z) subject to V = Z runs in coordinates v'_j = s_j v_j:

        V = argmin f(V) + rho/2 |V - Z + U|^2 = W + (rho (Z - U - W) - slope) (G + rho I)^-1,
        Z = V + U on the pattern's largest entries, 0 elsewhere,    U <- U + V - Z.

    The coordinates decide what is large. s_j^2 = 1 / (G^-1)_jj, the part of channel j that no other channels can make up
    for, is the cost of losing v_j when the others are refitted; s_j^2 = G_jj, the usual unit diagonal, is its cost when
    they are not. The former finds supports of 1 to 5 % less error on real layers, and generalises better.

    It converges because rho grows, geometrically from `first` to `last` times the mean eigenvalue; slower growth finds
    slightly better supports. The Gram is eigendecomposed once, every rho then costs one product of its size and every step one
    product `V G`, in float32. The weights are at last solved for exactly on the support found (`refit`). The count is exact,
    ties included: each step keeps the first of equals, which need not be what the search ends with. Dead channels are removed
    first.

    Parameters
    ----------
    problem : Quadratic
        f.
    pattern : Pattern, str or float
        Which masks are allowed; "2:4" and a sparsity will do.
    steps : int, default 180
        The number of steps in all.
    first : float, default 0.03
        The first rho, relative to the mean eigenvalue of G.
    last : float, default 1.0
        The last rho, likewise.
    stage : int, default 4
        Steps at each rho.
    throw, time_limit, callback, progress : optional
        As of `solve`. Every stage is a check, at which a callback costs a refit; it gets no first point.

    Returns
    -------
    Solution
        SEARCHED, TIME_LIMIT or STOPPED, with the KKT residual on the support.

    Raises
    ------
    ValueError
        For numbers out of range, and for a pattern that does not fit.

    References
    ----------
    Boyd et al. 2011, Section 9.1; a growing penalty as in ALPS (Meng et al. 2024).

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import Quadratic, TopK, l0_admm, wanda
    >>> rng = np.random.default_rng(0)
    >>> problem = Quadratic.from_data(rng.normal(size=(64, 8)), rng.normal(size=(4, 8)))
    >>> solution = l0_admm(problem, TopK(0.5))
    >>> solution.certificate.objective < wanda(problem, TopK(0.5)).certificate.objective, int((solution.weights == 0).sum())
    (True, 16)
    """
    steps, stage = whole("steps", steps), whole("stage", stage)
    first, last = number("first", first, "(0, inf)"), number("last", last, "(0, inf)")
    if first > last:
        raise ValueError(f"first must be at most last, since the penalty grows, but they are {first} and {last}")
    pattern = pattern_of(pattern, problem.shape)
    with watched("l0_admm", steps, "step", time_limit=time_limit, callback=callback, progress=progress) as watch:
        solution = watched_admm(problem, pattern, steps, first, last, stage, watch)
    return solution.required() if throw else solution


def watched_admm(
    problem: Quadratic, pattern: Pattern, steps: int, first: float, last: float, stage: int, watch: Watch
) -> Solution:
    """Do what `l0_admm` does, whose options are checked already, beside a watch."""
    xp = namespace(problem.anchor)
    scale, values, vectors = problem.noted("pivots", lambda: pivots_of(problem.double))
    work = problem.double.rescaled(scale)[0].astype(xp.float32)
    mean = float(xp.mean(values)) or 1.0
    alive = xp.astype(work.diagonal > 0, work.anchor.dtype)
    stages = -(-steps // stage)
    growth = (last / first) ** (1 / max(1, stages - 1))
    dead = not bool(xp.all(work.diagonal > 0))
    # Z and U. All that can be done in place is: new arrays of this size take as long as the products.
    sparse, dual, rho = copied(work.anchor), xp.zeros_like(work.anchor), first * mean
    ended: Status | None = None

    def reached() -> tuple[Array, Certificate]:
        """Return the exact weights on the support that there is now."""
        solution = refit(problem, mask)
        return solution.weights, solution.certificate

    for step in range(steps):
        if step % stage == 0:
            fresh = first * mean * growth ** (step // stage)
            dual *= rho / fresh  # rho U, the multiplier, is the same
            rho = fresh
            root = vectors / xp.sqrt(values + rho)
            inverse = root @ root.T  # symmetric in its very form: half the work where the backend sees it
        sparse -= dual
        sparse -= work.anchor
        sparse *= rho
        if work.slope is not None:
            sparse -= work.slope
        moved = sparse @ inverse  # the change of W, to which W and U are added
        moved += work.anchor
        moved += dual
        score = xp.abs(moved)
        if dead:
            score *= alive
        mask = pattern.largest(score)
        sparse = moved * xp.astype(mask, moved.dtype)  # a product: selecting by a random mask is ten times slower
        dual = moved
        dual -= sparse
        if (step + 1) % stage == 0 or step + 1 == steps:
            ended = watch.verdict(step + 1, reached, over=step + 1 == steps)
        elif watch.late():
            ended = Status.TIME_LIMIT
        if ended:
            break
    check_score(score)  # NaN, once there, remains
    solution = refit(problem, mask)  # not from `sparse`: where both fit alike, that is right to float32 only
    return Solution(solution.weights, ended or Status.SEARCHED, solution.certificate, step + 1, detail=solution.detail)


def pivots_of(problem: Quadratic) -> tuple[Array, Array, Array]:
    """Return s_j of the coordinates v'_j = s_j v_j with s_j^2 = 1 / (G^-1)_jj, G slightly damped, and the eigenvalues and
    eigenvectors of G there, in float32."""
    xp = namespace(problem.anchor)
    factor, _ = inverse_factor(problem.rescaled()[0], PIVOT_DAMPING)
    scale = problem.unit_scale / xp.sqrt(xp.sum(factor * factor, axis=0))  # (G + D)^-1 = U^T U
    values, vectors = xp.linalg.eigh(xp.astype(problem.gram / scale / scale[:, None], xp.float32))
    return scale, clip(values, 0, None), vectors
