"""FISTAPruner (Algorithm 1): a LASSO solved roughly, rounded to the pattern, and lambda tuned by what rounding cost."""

from __future__ import annotations

import math

from gramian.solvers.backend._xp import Array, namespace
from gramian.solvers.backend.computing import computation
from gramian.solvers.backend.options import number, whole
from gramian.solvers.core.certificate import Certificate, certify
from gramian.solvers.core.patterns import Pattern, PatternLike, counted_pattern, pattern_of
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Solution, Status
from gramian.solvers.core.terms import L1, Support
from gramian.solvers.core.watch import Callback, watched
from gramian.solvers.l1.fista import FISTA, advanced
from gramian.solvers.support.starts import STARTS, check_choice

__all__ = ["COORDINATES", "PENALTIES", "WARM_STARTS", "fistapruner"]

WARM_STARTS = ("dense", *STARTS)
COORDINATES = ("unit", "raw")
PENALTIES = ("plain", "scaled")
SMALLEST = 1e-7  # of lambda_max, the lower end of the search


@computation
def fistapruner(
    problem: Quadratic,
    pattern: PatternLike,
    *,
    warm_start: str = "sparsegpt",
    coordinates: str = "unit",
    l1: str = "plain",
    inner_steps: int = 20,
    patience: int = 3,
    threshold: float = 0.3,
    tolerance: float = 1e-3,
    first_lambda: float = 1e-5,
    max_lambdas: int = 12,
    throw: bool = False,
    time_limit: float | None = None,
    callback: Callback | None = None,
    progress: bool = False,
) -> Solution:
    """min_V f(V) subject to V satisfying the pattern, approximately, by LASSOs that are rounded to the pattern

    V = FISTA on min f(V) + lambda |V|_1 runs from the best point so far, for `inner_steps`, and V is rounded to the pattern; if
    rounding made more than `threshold` of the error, lambda is raised, else lowered. The best of the points visited is
    returned. It satisfies the pattern and is never worse than the warm start rounded to it. Errors are |X* V^T - X W^T|_F,
    compared in float64; FISTA runs in float32.

    Parameters
    ----------
    problem : Quadratic
        f.
    pattern : Pattern, str or float
        Which masks are allowed; "2:4" and a sparsity will do.
    warm_start : str, default "sparsegpt"
        `dense`, `magnitude`, `wanda` or `sparsegpt`.
    coordinates : str, default "unit"
        `unit` runs FISTA and rounds in v'_j = v_j sqrt(G_jj), where rounding by size is exact for diagonal G; `raw` is the
        paper's.
    l1 : str, default "plain"
        `plain` is the paper's lambda |v_j|; `scaled` is lambda sqrt(G_jj) |v_j|, another model, equivariant under scaling of a
        channel.
    inner_steps : int, default 20
        Steps of FISTA at one lambda, the paper's K.
    patience : int, default 3
        Failures in a row after which the search ends, the paper's T.
    threshold : float, default 0.3
        The part of the error that rounding may make before lambda is raised, the paper's xi.
    tolerance : float, default 1e-3
        The relative gain below which the search ends, the paper's epsilon, there 1e-3 for LLaMA and 1e-6 for OPT.
    first_lambda : float, default 1e-5
        The paper's lambda_0, here in units of lambda_max, so that scaling the inputs changes nothing.
    max_lambdas : int, default 12
        The most lambdas.
    throw, time_limit, callback, progress : optional
        As of `solve`; the warm start counts, and is never cut short. Every lambda is a step, and a check.

    Returns
    -------
    Solution
        SEARCHED, TIME_LIMIT or STOPPED, with (steps, error) of every lambda as its history. Its detail: `lasso_gap`, the
        relative gap of the LASSO point that was rounded; `warm_start_error`; what the warm start's own detail says.

    Raises
    ------
    ValueError
        For an option out of range, and for a pattern that does not fit.

    Notes
    -----
    This is mended, against Algorithm 1 as printed:

    - the certificate of the rounded LASSO point replaces the stop on |W_k - W_{k-1}| < 1e-6, which depends on scale;
      inner runs end at their budget and the gap they reached is reported (`lasso_gap`);
    - lambda is bisected on a log scale inside [1e-7, 1] lambda_max: halving [0, 1e6] visits only lambdas whose solution
      is zero. This search claims no invariant, for the ratio is not monotone in lambda; hence the best of all visited;
    - the ratio E_round / E_total is taken as it is where it is negative (possible as FISTA is cut short) and as 0 where
      E_total = 0; either lowers lambda;
    - a dense start is rounded before it may be called the best, so what is returned is always sparse;
    - `patience` counts failures in a row, as the text says and the pseudocode does not; and each failure halves the
      inner budget, because a point that FISTA has carried too far is lost in rounding at any lambda;
    - rounding is in `unit` coordinates, and a pattern is exact to the count under ties.

    References
    ----------
    FISTAPruner, Eq. (3), (8) and Algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import NM, Quadratic, fistapruner, wanda
    >>> rng = np.random.default_rng(0)
    >>> problem = Quadratic.from_data(rng.normal(size=(64, 8)), rng.normal(size=(4, 8)))
    >>> solution = fistapruner(problem, NM(2, 4), warm_start="wanda")
    >>> solution.certificate.objective < wanda(problem, NM(2, 4)).certificate.objective, int((solution.weights == 0).sum())
    (True, 16)
    """
    check_options(warm_start, coordinates, l1, inner_steps, patience, threshold, tolerance, first_lambda, max_lambdas)
    pattern = pattern_of(pattern, problem.shape)
    if warm_start == "sparsegpt":
        counted_pattern(pattern, problem.shape, "its warm start, sparsegpt,")
    xp = namespace(problem.anchor)
    double = problem.double
    exact, scale = double.rescaled() if coordinates == "unit" else (double, xp.ones_like(double.diagonal))
    channel = double.unit_scale if l1 == "scaled" else xp.ones_like(scale)
    unit = L1(channel[None, :]).rescaled(scale)  # the term at lambda = 1, in working coordinates
    top = float(xp.max(unit.polar(exact.at_zero[1])))  # lambda_max
    work = exact.astype(xp.float32)

    def error_of(weights: Array) -> float:
        """Return |X* V^T - X W^T|_F in working coordinates, but for a constant factor."""
        return math.sqrt(max(exact.loss(weights), 0.0))

    def rounded(weights: Array) -> Array:
        """Return the weights on the largest entries that the pattern admits."""
        score = xp.where(exact.diagonal > 0, xp.abs(weights), xp.zeros_like(weights))  # dead channels go first
        return Support(pattern.select(score)).prox(weights, 1.0)

    with watched("fistapruner", max_lambdas, "lambda", time_limit=time_limit, callback=callback, progress=progress) as watch:
        warm = starting_point(double, pattern, warm_start)
        start = xp.astype((double.anchor if warm is None else warm.weights) * scale, xp.float64)
        best = rounded(start)
        if warm is not None:
            start = best
        best_error = error_of(best)
        detail = {"warm_start_error": exact.relative_error(best)}
        detail |= {f"warm_start_{name}": value for name, value in (warm.detail if warm else {}).items()}
        source: tuple[Array, L1] | None = None  # the LASSO point that `best` was rounded from, or else the last one
        low, high, weight = SMALLEST, 1.0, first_lambda
        failures, budget, steps, improved = 0, inner_steps, 0, False
        history: list[tuple[int, float]] = []

        def reached() -> tuple[Array, Certificate]:
            """Return the best weights so far."""
            weights = best / scale
            return weights, certify(double, Support(weights != 0), weights)

        over = not (best_error > 0 and top > 0)
        ended = watch.verdict(0, reached, over=over)
        while not (over or ended):
            term = L1(unit.weight * (weight * top))
            point = advanced(work, term, xp.astype(start, xp.float32), budget, FISTA())
            steps += budget
            candidate = xp.astype(rounded(point), xp.float64)
            error = error_of(candidate)
            gain = (best_error - error) / best_error
            enough = start is best and 0 < gain < tolerance  # a gain over a dense start says nothing about gains to come
            ratio = (error - math.sqrt(max(work.loss(point), 0.0))) / error if error > 0 else 0.0
            history.append((steps, error))
            low, high = (weight, high) if ratio > threshold else (low, weight)
            weight = math.sqrt(low * high)
            if gain > 0:
                failures, best, best_error, improved = 0, candidate, error, True
            else:
                failures, budget = failures + 1, max(1, budget // 2)
            if gain > 0 or not improved:
                source = (point, term)
            start = best
            over = enough or len(history) >= max_lambdas or failures >= patience or not best_error > 0
            ended = watch.verdict(len(history), reached, over=over)
    if source is not None:
        detail["lasso_gap"] = certify(exact, source[1], source[0]).relative_gap
    weights, certificate = reached()
    solution = Solution(weights, ended or Status.SEARCHED, certificate, steps, tuple(history), detail)
    return solution.required() if throw else solution


def starting_point(problem: Quadratic, pattern: Pattern, warm_start: str) -> Solution | None:
    """Return what the search starts from, or None for `dense`, the anchor, which is not sparse yet."""
    if warm_start == "dense":
        return None
    return STARTS[warm_start](problem.astype(namespace(problem.anchor).float32), pattern)


def check_options(
    warm_start: str,
    coordinates: str,
    l1: str,
    inner_steps: int,
    patience: int,
    threshold: float,
    tolerance: float,
    first_lambda: float,
    max_lambdas: int,
) -> None:
    """Raise ValueError for the first option out of range."""
    check_choice("warm_start", warm_start, WARM_STARTS)
    check_choice("coordinates", coordinates, COORDINATES)
    check_choice("l1", l1, PENALTIES)
    for name, count in (("inner_steps", inner_steps), ("patience", patience), ("max_lambdas", max_lambdas)):
        whole(name, count)
    number("tolerance", tolerance)
    number("threshold", threshold, "[0, 1]")
    number("first_lambda", first_lambda, f"[{SMALLEST:g}, 1]")
