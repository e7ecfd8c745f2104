"""FISTAPruner, Section 3.4, Eq. (8) and Algorithm 1: what rounding costs, and tuning lambda by it (claims F11, F12, F13)."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st

from gramian.proofs.fistapruner.printed import Visit, algorithm_one, fractional, hard_threshold, iterate
from gramian.proofs.kit.claims import Claim, Counterexample, Property, Verdict
from gramian.proofs.kit.exact_rows import Row, interior, rows, shares, squared_error
from gramian.proofs.kit.homotopy import lasso_homotopy
from gramian.proofs.kit.rational import exact, matmul
from gramian.proofs.kit.strategies import Layer, layers
from gramian.solvers import NM, TopK
from gramian.solvers.support.lasso_rounding import fistapruner

__all__ = ["F11", "F12", "F13"]


# -- F11: the search for lambda ----------------------------------------------------------------------------------------


@st.composite
def prunings(draw: st.DrawFn) -> tuple[Layer, TopK | NM, str]:
    """Draw a layer, a pattern that fits it, and a warm start."""
    layer = draw(layers(inputs=4, scales=(1.0,)))
    anywhere: list[TopK | NM] = [TopK(0.5), TopK(0.25, per_row=True)]
    pattern = draw(st.sampled_from(anywhere))
    if layer.weight.shape[1] % 2 == 0:
        pattern = draw(st.sampled_from([pattern, NM(1, 2)]))
    return layer, pattern, draw(st.sampled_from(["dense", "magnitude", "wanda"]))


def toolkit_prune(layer: Layer, pattern: Any, warm_start: str, coordinates: str = "unit") -> tuple[np.ndarray, list[float]]:
    """Return the weights, and the errors |V X* - W X| / sqrt 2 of all that was visited."""
    solution = fistapruner(
        layer.problem(np), pattern, warm_start=warm_start, coordinates=coordinates, inner_steps=8, max_lambdas=5
    )
    return solution.weights, [error for _, error in solution.history]


def starting(layer: Layer, pattern: Any, warm_start: str) -> np.ndarray:
    size = np.abs(layer.weight) * (np.linalg.norm(layer.inputs, axis=0) if warm_start == "wanda" else 1)
    return layer.weight if warm_start == "dense" else np.where(pattern.select(size), layer.weight, 0.0)


def as_printed(layer: Layer, pattern: Any, warm_start: str, steps: int = 8) -> tuple[np.ndarray, list[Visit]]:
    return algorithm_one(
        layer.inputs,
        layer.outputs,
        starting(layer, pattern, warm_start),
        lambda weights: np.where(pattern.select(np.abs(weights)), weights, 0.0),
        steps=steps,
    )


def indifferent_to_units(instance: tuple[Layer, Any, str], prune: Callable[..., np.ndarray]) -> None:
    """X -> c X, X* -> c X* changes no weight, because lambda is searched in units of lambda_max."""
    layer, pattern, warm_start = instance
    found = prune(layer, pattern, warm_start)
    for unit in (2.0**-10, 2.0**10):
        np.testing.assert_allclose(prune(layer.scaled(inputs=unit), pattern, warm_start), found, rtol=1e-5, atol=1e-7)


def best_of_what_it_saw(instance: tuple[Layer, Any, str], prune: Callable[..., tuple[np.ndarray, list[float]]]) -> None:
    layer, pattern, warm_start = instance
    found, errors = prune(layer, pattern, warm_start)
    slack = 1e-6 * np.sqrt(layer.magnitude(layer.weight))
    assert np.sqrt(layer.loss(found)) <= min(errors, default=np.inf) + slack


def last_visit(layer: Layer, pattern: Any, warm_start: str) -> tuple[np.ndarray, list[float]]:
    _, visits = as_printed(layer, pattern, warm_start)
    return visits[-1].candidate, [visit.error / np.sqrt(2) for visit in visits]


def first_visit(layer: Layer, pattern: Any, warm_start: str) -> tuple[np.ndarray, list[float]]:
    _, visits = as_printed(layer, pattern, warm_start)
    return visits[0].candidate, [visit.error / np.sqrt(2) for visit in visits]


def never_gets_below_a_million() -> None:
    """G = [[2, 1], [1, 2]], w = (3, 2), and one of two weights is to be removed: there is one zero for lambda in [6, 8), and
    all are zero from 8 on. With exact solves, M = 10^6, xi = 0.3 and T = 3 the lambdas are 1e-5, 5e5 and 2.5e5, and three
    failures end the search."""
    gram, weight = exact([[2, 1], [1, 2]]), exact([3, 2])
    path = lasso_homotopy(gram, matmul(gram, weight))
    assert path.knots == (8, 6) and path.counts == (2, 1, 0)
    best = squared_error(gram, [Fraction(0), Fraction(2)])  # of (3, 0), the larger weight kept
    low, high, current, seen = Fraction(0), Fraction(10**6), Fraction(1, 10**5), []
    for _ in range(3):
        point = path.weights(current)
        rounded = hard_threshold(fractional([point]), 1)[0]
        fit, total = (squared_error(gram, [a - b for a, b in zip(weight, found)]) for found in (point, rounded))
        assert total >= best  # a failure
        seen.append((current, point.count(0)))
        low, high = (current, high) if fit < (1 - Fraction(3, 10)) ** 2 * total else (low, current)
        current = (low + high) / 2
    assert [count for _, count in seen] == [0, 2, 2] and seen[2][0] > 8 * 10**4


F11 = Claim(
    "F11",
    "FISTAPruner, Section 3.4 and settings of Section 4.1",
    "Bisection of [0, M] with M = 10^6, lambda_0 = 10^-5 and T = 3, lambda up where E_round / E_total > xi, finds the lambda "
    "that yields the target sparsity.",
    Verdict.REFUTED,
    "Halving from 10^6 visits lambdas above lambda_max, whose solution is 0, and T failures end it before it gets lower. A "
    "search in units of lambda_max does not depend on those of X. As the ratio is no monotone function of lambda such a search "
    "has no invariant; what can be promised is the best of what it visited.",
    (
        Property(
            "the result does not depend on units",
            prunings(),
            indifferent_to_units,
            lambda *instance: toolkit_prune(*instance)[0],
            {"[0, 10^6] as printed": lambda *instance: as_printed(*instance)[0]},
            slow=3,
        ),
        Property(
            "the best of all visited is returned",
            prunings(),
            best_of_what_it_saw,
            toolkit_prune,
            {"the last": last_visit, "the first": first_visit},
        ),
    ),
    (Counterexample("no lambda between 1e-5 and 2.5e5 is visited, the target lies in [6, 8)", never_gets_below_a_million),),
)


# -- F12: the cost of rounding -----------------------------------------------------------------------------------------

Rounding = tuple[Row, Fraction, list[bool]]
roundings = st.tuples(rows(), shares, st.lists(st.booleans(), min_size=4, max_size=4))


def total_error(row: Row, weight: Fraction, removed: list[Fraction]) -> Fraction:
    """E_total^2 = E_lasso^2 + 2 lambda |D|_1 + |D X*|^2 at a solution, where D holds the entries that rounding removes."""
    lost = sum(map(abs, removed), Fraction(0))
    return row.error(row.path.weights(weight)) + 2 * weight * lost + squared_error(row.gram, removed)


def costs_what_it_says(instance: Rounding, total: Callable[..., Fraction]) -> None:
    """Any subset of the weights may be removed: E_round >= 0, and E_round < E_total where E_total > 0."""
    row, share, chosen = instance
    for weight in interior(row.path, share):
        point = row.path.weights(weight)
        removed = [entry if gone else Fraction(0) for entry, gone in zip(point, chosen)]
        expected = row.error([entry - lost for entry, lost in zip(point, removed)])
        assert total(row, weight, removed) == expected
        assert expected >= row.error(point) and (expected == 0 or row.error(point) > 0)


def rounding_helps() -> None:
    """G = diag(1, 3/1000), W = (1, -1), W_0 = (1, 1), lambda = 1e-4, K = 20: W_20 is (.9999, .80), and removing .80 brings the
    second weight nearer to -1. E_round < 0 < xi E_total lowers lambda, although W_20 has no zero."""
    gram, dense = fractional([[1, 0], [0, Fraction(3, 1000)]]), fractional([[1, -1]])
    for point in iterate(gram, dense @ gram, Fraction(1, 10**4), Fraction(1), fractional([[1, 1]]), 20)[-1]:
        rounded = hard_threshold(point, 1)
        total, fit = (squared_error(gram.tolist(), (found - dense)[0]) for found in (rounded, point))
        assert (point != 0).all() and total < Fraction(2, 5) * fit


def ratio_goes_both_ways() -> None:
    """G = [[5, 2], [2, 1]], w = (-9/10, 3), one weight is kept: 1 - E_round / E_total, squared, is computed at five lambdas."""
    gram, dense = exact([[5, 2], [2, 1]]), [Fraction(-9, 10), Fraction(3)]
    path, left = lasso_homotopy(gram, matmul(gram, dense)), []
    for weight in (Fraction(1, 20), Fraction(1, 5), Fraction(1, 2), Fraction(19, 20), Fraction(6, 5)):
        point = path.weights(weight)
        rounded = hard_threshold(fractional([point]), 1)[0]
        fit, total = (squared_error(gram, [a - b for a, b in zip(found, dense)]) for found in (point, rounded))
        left.append(fit / total)
    assert left[0] < left[1] < left[2] == 1 > left[3] and left[4] == 1


F12 = Claim(
    "F12",
    "FISTAPruner, Section 3.4 and Eq. (8)",
    "With E_total = |W_K+1 X* - W X|_F and E_round = E_total - |W_K X* - W X|_F, a high E_round / E_total says that W_K is not "
    "sparse enough and lambda should grow, a low one that its sparsity is adequate and lambda may fall.",
    Verdict.REFUTED,
    "At a solution of Eq. (3), E_total^2 = E_lasso^2 + 2 lambda |D|_1 + |D X*|_F^2 for the removed entries D, so the ratio is "
    "in [0, 1) wherever E_total > 0; it is not monotone in lambda. After only K steps it may be negative while W_K has no "
    "zero.",
    (
        Property(
            "the identity at exact solutions, for any entries removed",
            roundings,
            costs_what_it_says,
            total_error,
            {
                "lambda once": lambda row, weight, removed: total_error(row, weight / 2, removed),
                "without lambda |D|": lambda row, weight, removed: (
                    total_error(row, weight, removed) - 2 * weight * sum(map(abs, removed))
                ),
                "without |D X*|^2": lambda row, weight, removed: (
                    total_error(row, weight, removed) - squared_error(row.gram, removed)
                ),
                "2 lambda <D, 1>": lambda row, weight, removed: (
                    total_error(row, weight, removed) + 2 * weight * sum(entry - abs(entry) for entry in removed)
                ),
            },
        ),
    ),
    (
        Counterexample("K = 20: rounding removes most of the error, no weight was zero", rounding_helps),
        Counterexample("the ratio falls, rises and falls again along lambda", ratio_goes_both_ways),
    ),
)


# -- F13: what Algorithm 1 returns -------------------------------------------------------------------------------------


def is_sparse_and_no_worse(instance: tuple[Layer, Any, str], prune: Callable[..., np.ndarray]) -> None:
    """The pattern holds for every start, and the error is at most that of the rounded start."""
    layer, pattern, warm_start = instance
    found = prune(layer, pattern, warm_start)
    assert pattern.admits(found != 0)
    start = starting(layer, pattern, warm_start)
    rounded = np.where(pattern.select(np.abs(start)), start, 0.0)
    error, least = np.sqrt(layer.loss(found)), np.sqrt(layer.loss(rounded))
    assert error <= least + 1e-6 * np.sqrt(layer.magnitude(layer.weight))


def returns_dense_weights() -> None:
    """G = I, X* = X, W_0 = W = (1, 2): E_best = 0 at once, no E_total is less, and after T = 3 passes W_0 is returned."""
    best, visits = algorithm_one(np.eye(2), np.array([[1.0], [2.0]]), np.array([[1.0, 2.0]]), lambda w: hard_threshold(w, 1))
    assert np.count_nonzero(best) == 2 and len(visits) == 3 and all(visit.error >= 0 for visit in visits)


F13 = Claim(
    "F13",
    "FISTAPruner, Algorithm 1 and Section 4.5",
    "Algorithm 1 returns W_best with s % zeros or n:m sparsity, from warm starts that may be dense.",
    Verdict.REFUTED,
    "With X* = X and W_0 = W, E_best = 0 from the start and the dense W_0 comes back. Starting from W_best = H(W_0) the result "
    "is always sparse and E_best never grows. (E_stop is undefined until the first improvement, and 0 / 0 where E_best = 0; "
    "the text stops after T failures in a row, the pseudocode after T in all.)",
    (
        Property(
            "sparse for every start, and no worse than the start rounded",
            prunings(),
            is_sparse_and_no_worse,
            lambda layer, pattern, warm_start: toolkit_prune(layer, pattern, warm_start, "raw")[0],
            {
                "as printed": lambda *instance: as_printed(*instance)[0],
                "the last pass": lambda *instance: last_visit(*instance)[0],
            },
            slow=2,
        ),
    ),
    (Counterexample("a dense start is returned", returns_dense_weights, exact=False),),
)
