"""Least squares over all weights that a sparsity pattern admits: ADMM to find a support, exact weights on it."""

from __future__ import annotations

from collections.abc import Sequence

from gramian.solvers.backend._xp import Array
from gramian.solvers.backend.computing import computation
from gramian.solvers.backend.options import number, whole
from gramian.solvers.core.certificate import Certificate
from gramian.solvers.core.cuts import MovingCut
from gramian.solvers.core.patterns import PatternLike, pattern_of
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Solution, Status
from gramian.solvers.core.watch import Callback, watched
from gramian.solvers.direct.restricted import refit
from gramian.solvers.support.growing_penalty import Peers, searched

__all__ = ["l0_admm", "l0_on_parts"]


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
    steps, first, last, stage = checked(steps, first, last, stage)
    pattern = pattern_of(pattern, problem.shape)
    with watched("l0_admm", steps, "step", time_limit=time_limit, callback=callback, progress=progress) as watch:

        def look(step: int, masks: Sequence[Array], stage_over: bool) -> Status | None:
            """Return why the search ends, None where it goes on."""

            def reached() -> tuple[Array, Certificate]:
                """Return the exact weights on the support that there is now."""
                solution = refit(problem, masks[0])
                return solution.weights, solution.certificate

            if stage_over:
                return watch.verdict(step, reached, over=step == steps)
            return Status.TIME_LIMIT if watch.late() else None

        found = searched([problem], Peers(MovingCut(pattern).largest), steps, first, last, stage, look)[0]
    return found.required() if throw else found


@computation
def l0_on_parts(
    parts: Sequence[Quadratic],
    peers: Peers,
    *,
    steps: int = 180,
    first: float = 0.03,
    last: float = 1.0,
    stage: int = 4,
) -> list[Solution]:
    """min_V f(V) subject to V satisfying a pattern that may compare rows, by `l0_admm`, some parts of the rows here

    All parts of the rows go through their steps together, wherever they are: `peers.choose` is given the scores of those
    here, and returns their masks, for which it may ask for the scores of others. What a part ends with does not depend on
    which others are here.

    Parameters
    ----------
    parts : sequence of Quadratic
        f of some rows each, `Quadratic.parts` of one problem.
    peers : Peers
        What the parts ask of one another: choose(scores) -> masks, an array (rows, p) for every part, `steps` times, and
        in_turn, which gives the inverse of a stage.
    steps, first, last, stage : optional
        As of `l0_admm`.

    Returns
    -------
    list of Solution
        One for every part, with the KKT residual on its support.

    Raises
    ------
    ValueError
        For numbers out of range.

    References
    ----------
    As of `l0_admm`.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import Quadratic, TopK, l0_admm
    >>> from gramian.solvers.support.growing_penalty import Peers
    >>> from gramian.solvers.support.l0 import l0_on_parts
    >>> rng = np.random.default_rng(0)
    >>> problem, half = Quadratic.from_data(rng.normal(size=(64, 8)), rng.normal(size=(4, 8))), TopK(0.5)
    >>> parts = problem.parts([slice(0, 1), slice(1, 4)])
    >>> found = l0_on_parts(parts, Peers(lambda scores: np.split(half.largest(np.concatenate(scores)), [1])))
    >>> bool(np.allclose(np.concatenate([each.weights for each in found]), l0_admm(problem, half).weights))
    True
    """
    steps, first, last, stage = checked(steps, first, last, stage)
    return searched(parts, peers, steps, first, last, stage, lambda *_: None)


def checked(steps: int, first: float, last: float, stage: int) -> tuple[int, float, float, int]:
    """Return the options of both forms, in order. ValueError for numbers out of range."""
    steps, stage = whole("steps", steps), whole("stage", stage)
    first, last = number("first", first, "(0, inf)"), number("last", last, "(0, inf)")
    if first > last:
        raise ValueError(f"first must be at most last, since the penalty grows, but they are {first} and {last}")
    return steps, first, last, stage
