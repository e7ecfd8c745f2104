"""FISTAPruner to the letter of its paper, Eq. (4) to (8) and Algorithm 1, beside which the mended one can be measured."""

from __future__ import annotations

import math

from gramian.solvers.backend._xp import Array, as_floating, full, namespace, on_host
from gramian.solvers.backend.computing import computation
from gramian.solvers.backend.options import number, whole
from gramian.solvers.core.certificate import certify
from gramian.solvers.core.patterns import PatternLike, counted_pattern, pattern_of
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Solution, Status
from gramian.solvers.core.terms import L1, Support
from gramian.solvers.support.starts import STARTS, check_choice

__all__ = ["fistapruner_printed"]

STANDSTILL = 1e-6  # of Eq. (6)


@computation
def fistapruner_printed(
    problem: Quadratic,
    pattern: PatternLike,
    *,
    warm_start: str = "wanda",
    inner_steps: int = 20,
    patience: int = 3,
    threshold: float = 0.3,
    tolerance: float = 1e-3,
    first_lambda: float = 1e-5,
    largest_lambda: float = 1e6,
    max_lambdas: int = 1000,
) -> Solution:
    """min_V f(V) subject to V satisfying the pattern, approximately, by Algorithm 1 of FISTAPruner as its paper prints it

        V <- FISTA on f(V) + lambda |V|_1 from the best point so far,    V' <- V on the pattern's largest |V_ij|,

    and lambda is bisected in [0, `largest_lambda`] by the part of the error |X* V'^T - X W^T|_F that rounding made. The best V'
    is returned, or else the warm start. Nothing is mended: `fistapruner` is the method to use, and this is what its mends are
    measured by. The answer depends on the units of inputs and weights, because lambda and the stop of FISTA have some.

    Parameters
    ----------
    problem : Quadratic
        f.
    pattern : Pattern, str or float
        Which masks are allowed; "2:4" and a sparsity will do.
    warm_start : str, default "wanda"
        `magnitude`, `wanda` (the paper's for LLaMA) or `sparsegpt` (the paper's for OPT).
    inner_steps : int, default 20
        The most steps of FISTA at one lambda, K, at least 1.
    patience : int, default 3
        Failures after which the search ends, T, at least 1.
    threshold : float, default 0.3
        xi, in [0, 1]: lambda grows where rounding made more than this part of the error.
    tolerance : float, default 1e-3
        The relative gain below which the search ends, epsilon, at least 0: 1e-3 for LLaMA and 1e-6 for OPT.
    first_lambda : float, default 1e-5
        lambda at first, in [0, `largest_lambda`] and in squared outputs per weight.
    largest_lambda : float, default 1e6
        M, positive and finite, likewise.
    max_lambdas : int, default 1000
        The most lambdas, at least 1, which the paper does not limit.

    Returns
    -------
    Solution
        SEARCHED where the search ended by itself, STEP_LIMIT where `max_lambdas` ended it, with (steps, error / sqrt 2) of
        every lambda as its history and the KKT residual on the support, which is not small because nothing is refitted. Its
        detail: `improvements`, the number of lambdas that found better weights, of which none leaves the warm start;
        `best_lambda`, that of the last of them, or else 0; `warm_start_error`; what the warm start's own detail says.

    Raises
    ------
    ValueError
        For an option out of range, and for a pattern that does not fit.

    Notes
    -----
    Where the text contradicts itself, cannot be run or breaks off, this is what was chosen:

    - Eq. (4a) prints X X*^T where its derivation in Appendix B has X* X*^T. The latter is taken: with the former error
      correction does nothing and the iteration may diverge. They are the same where X* = X;
    - Eq. (4d) is taken as printed, from the extrapolated point W_k, and W_K, which is rounded, is the extrapolated point too;
    - in Eq. (4) L is the largest eigenvalue, as printed; it is 1 where all inputs are zero;
    - Eq. (6) compares W_k and W_{k-1}, which are extrapolated points, by an absolute 1e-6;
    - Section 3.4 breaks off before it says what crossing xi does. As it reasons, lambda goes up where E_round / E_total is
      above xi, and down otherwise, to the middle of the bracket, which was [0, M] at first. The ratio counts as 0 where
      E_total = 0;
    - failures are counted in all, as in Algorithm 1; Section 3.5 says "consecutive", but t is never set back there;
    - E_stop is undefined until there is an improvement, and counts as infinite until then;
    - W_0 must satisfy the pattern, so `dense`, of which Section 4.5 speaks, is no choice: with X* = X dense weights have no
      error, and Algorithm 1 would return them as they are;
    - among entries of equal size the first is kept; Eq. (7) does not say. Everything is computed in float64.

    References
    ----------
    FISTAPruner, Eq. (3) to (8), Algorithm 1 and the settings of Section 4.1.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import NM, Quadratic, fistapruner_printed, wanda
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(64, 8)) / np.arange(1, 9) + rng.normal(size=(64, 1))
    >>> problem = Quadratic.from_data(X, rng.normal(size=(4, 8)))
    >>> solution = fistapruner_printed(problem, NM(2, 4))
    >>> solution.certificate.objective < wanda(problem, NM(2, 4)).certificate.objective, int((solution.weights == 0).sum())
    (True, 16)
    >>> len(solution.history), solution.detail["improvements"], solution.detail["best_lambda"]
    (4, 1.0, 1e-05)
    """
    check_options(warm_start, inner_steps, patience, threshold, tolerance, first_lambda, largest_lambda, max_lambdas)
    pattern = pattern_of(pattern, problem.shape)
    if warm_start == "sparsegpt":
        counted_pattern(pattern, problem.shape, "its warm start, sparsegpt,")
    exact = problem.double
    xp = namespace(exact.anchor)
    lipschitz = float(xp.max(xp.linalg.eigvalsh(exact.gram)))
    lipschitz = lipschitz if lipschitz > 0 else 1.0

    def error_of(weights: Array) -> float:
        """Return |X* V^T - X W^T|_F / sqrt 2."""
        return math.sqrt(max(exact.loss(weights), 0.0))

    warm = STARTS[warm_start](problem, pattern)
    best = as_floating(warm.weights, like=exact.anchor)
    least, best_lambda = error_of(best), 0.0
    low, high, weight = 0.0, largest_lambda, first_lambda
    failures, improvements, gain, steps = 0, 0, math.inf, 0
    history: list[tuple[int, float]] = []
    while failures < patience and gain >= tolerance and len(history) < max_lambdas:
        point, taken = iterate(exact, lipschitz, weight, best, inner_steps)
        candidate = Support(pattern.select(xp.abs(point))).prox(point, 1.0)  # Eq. (7)
        total = error_of(candidate)
        ratio = (total - error_of(point)) / total if total > 0 else 0.0  # Eq. (8)
        steps += taken
        history.append((steps, total))
        if total < least:
            gain, improvements = (least - total) / least, improvements + 1
            best, least, best_lambda = candidate, total, weight
        else:
            failures += 1
        low, high = (weight, high) if ratio > threshold else (low, weight)
        weight = (low + high) / 2
    ended = failures >= patience or gain < tolerance
    weights = as_floating(best, like=problem.anchor)
    certificate = certify(problem, Support(weights != 0), weights)
    detail = {"improvements": float(improvements), "best_lambda": best_lambda}
    detail |= {"warm_start_error": warm.certificate.relative_error}
    detail |= {f"warm_start_{name}": value for name, value in warm.detail.items()}
    return Solution(weights, Status.SEARCHED if ended else Status.STEP_LIMIT, certificate, steps, tuple(history), detail)


def iterate(problem: Quadratic, lipschitz: float, weight: float, start: Array, most: int) -> tuple[Array, int]:
    """Return W_K of Eq. (4) at lambda = `weight`, and K, the step at which Eq. (6) held, or else `most`."""
    xp = namespace(start)
    term, point, momentum = L1(weight), start, 1.0
    going = full((1, 1), 1.0, start) > 0  # on the device, which thus need not be waited for
    taken = xp.zeros_like(start[:1, :1])
    for _ in range(most):
        prox = term.prox(point - problem.gradient(point) / lipschitz, 1 / lipschitz)  # (4a), (4b)
        following = 0.5 * (1 + math.sqrt(1 + 4 * momentum**2))  # (4c)
        ahead = prox + (momentum - 1) / following * (prox - point)  # (4d)
        change = xp.sqrt(xp.sum((ahead - point) ** 2))
        point, momentum = xp.where(going, ahead, point), following
        taken = taken + xp.astype(going, taken.dtype)
        going = going & (change >= STANDSTILL)  # (6)
        if on_host(point) and not bool(xp.any(going)):
            break
    return point, int(xp.sum(taken))


def check_options(
    warm_start: str,
    inner_steps: int,
    patience: int,
    threshold: float,
    tolerance: float,
    first_lambda: float,
    largest_lambda: float,
    max_lambdas: int,
) -> None:
    """Raise ValueError for the first option out of range."""
    check_choice("warm_start", warm_start, STARTS)
    for name, count in (("inner_steps", inner_steps), ("patience", patience), ("max_lambdas", max_lambdas)):
        whole(name, count)
    number("threshold", threshold, "[0, 1]")
    number("tolerance", tolerance)
    largest = number("largest_lambda", largest_lambda, "(0, inf)")
    number("first_lambda", first_lambda, f"[0, {largest}]")
