"""FISTAPruner's search: against Algorithm 1 written out, and what rounding does at an optimum of the LASSO."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from method_instances import PLAIN, SHIFTED, STARTS, hard, problem_of, relative_error

from gramian.proofs.kit.strategies import normal_layer
from gramian.solvers import FISTA, L1, Pattern, Quadratic, Status, TopK, certify, solve
from gramian.solvers.support.baselines import wanda
from gramian.solvers.support.lasso_rounding import WARM_STARTS, fistapruner


def search(
    problem: Quadratic, pattern: Pattern, begin: np.ndarray, **options: Any
) -> tuple[np.ndarray, list[tuple[int, float]]]:
    """Algorithm 1 in raw coordinates, written out from its description."""
    inner, patience, threshold, tolerance, weight, max_lambdas = (
        options[name] for name in ("inner_steps", "patience", "threshold", "tolerance", "first_lambda", "max_lambdas")
    )
    top = float(np.max(np.abs(problem.at_zero[1])))
    work = problem.astype(np.float32)

    def total(weights: np.ndarray) -> float:
        return math.sqrt(problem.loss(weights))

    best = np.where(hard(np.abs(begin), pattern), begin, 0)
    start, low, high = begin, 1e-7, 1.0
    budget, failures, steps, history = inner, 0, 0, []
    for _ in range(max_lambdas):
        term = L1(weight * top)
        point = solve(work, term, FISTA(), start=start.astype(np.float32), tol=0, max_steps=budget).weights
        steps += budget
        candidate = np.where(hard(np.abs(point), pattern), point, 0).astype(float)
        error, before = total(candidate), total(best)
        history.append((steps, error))
        if (error - total(point.astype(float))) / error > threshold:
            low = weight
        else:
            high = weight
        weight = math.sqrt(low * high)
        if error < before:
            rounded_start = not np.any(start[best == 0])
            best, failures = candidate, 0
            if rounded_start and (before - error) / before < tolerance:
                break
        else:
            failures += 1
            budget = max(1, budget // 2)
            if failures == patience:
                break
        start = best
    return best, history


DEFAULTS: dict[str, Any] = {
    "inner_steps": 20, "patience": 3, "threshold": 0.3, "tolerance": 1e-3, "first_lambda": 1e-5, "max_lambdas": 12,
}  # fmt: skip
CHANGES: list[dict[str, Any]] = [
    {},
    {"max_lambdas": 1},
    {"patience": 1},
    {"inner_steps": 3, "tolerance": 0.0},
    {"threshold": 0.05, "first_lambda": 1e-2, "tolerance": 1e-6, "max_lambdas": 30},
    {"threshold": 0.9, "first_lambda": 1.0},
    {"tolerance": 0.2},
    {"patience": 30, "max_lambdas": 14},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
@pytest.mark.parametrize("start", ["dense", "wanda", "sparsegpt"])
@pytest.mark.parametrize("layer", [PLAIN, SHIFTED], ids=["plain", "shifted"])
def test_the_search_is_algorithm_one(layer, start, change):
    problem, pattern = problem_of(layer), TopK(0.5)
    options = DEFAULTS | change
    begin = layer.weight if start == "dense" else STARTS[start](problem.astype(np.float32), pattern).weights.astype(float)
    expected, history = search(problem, pattern, begin, **options)
    solution = fistapruner(problem, pattern, warm_start=start, coordinates="raw", **options)
    np.testing.assert_array_equal(solution.weights != 0, expected != 0)
    np.testing.assert_allclose(solution.weights, expected, rtol=1e-3, atol=1e-4)  # lambda L1 rounds in another order
    assert [steps for steps, _ in solution.history] == [steps for steps, _ in history]
    np.testing.assert_allclose([error for _, error in solution.history], [error for _, error in history], rtol=1e-4)
    assert solution.steps == history[-1][0]
    if not change:  # the defaults are the ones above
        default = fistapruner(problem, pattern, warm_start=start, coordinates="raw")
        np.testing.assert_array_equal(default.weights, solution.weights)


def test_the_reference_search_meets_every_rule():
    """Improvement after failure, halved budgets, both directions of lambda: else the comparison proves little."""
    seen: set[str] = set()
    for layer in (PLAIN, SHIFTED):
        for start in ("dense", "wanda", "sparsegpt"):
            for change in CHANGES:
                solution = fistapruner(problem_of(layer), TopK(0.5), warm_start=start, coordinates="raw", **DEFAULTS | change)
                best = math.sqrt(solution.detail["warm_start_error"] * layer.energy)
                gains = []
                for _, error in solution.history:
                    gains.append(error < best)
                    best = min(best, error)
                text = "".join("x-"[gain] for gain in gains)
                seen |= {rule for rule in ("x-", "-x", "xxx", "--") if rule in text}
                if text.count("x") > 3:
                    seen.add("reset")
    assert seen == {"x-", "-x", "xxx", "--", "reset"}


@pytest.mark.parametrize("start", WARM_STARTS)
def test_the_best_of_all_visited_is_returned(start):
    for layer in (PLAIN, SHIFTED):
        for max_lambdas in (1, 2, 5, 12):
            solution = fistapruner(
                problem_of(layer), TopK(0.6), warm_start=start, max_lambdas=max_lambdas, patience=20, tolerance=0.0
            )
            visited = [error**2 / layer.energy for _, error in solution.history]
            assert len(visited) == max_lambdas
            best = min([*visited, solution.detail["warm_start_error"]])
            np.testing.assert_allclose(relative_error(layer, solution.weights), best, rtol=1e-9)
            assert ("lasso_gap" in solution.detail) == (best < solution.detail["warm_start_error"])


@pytest.mark.parametrize("layer", [PLAIN, SHIFTED], ids=["plain", "shifted"])
def test_the_gap_is_that_of_the_lasso_point_before_rounding(layer):
    problem, weight = problem_of(layer), 1e-2 * layer.largest
    begin = wanda(problem, TopK(0.5)).weights.astype(np.float32)
    point = solve(problem.astype(np.float32), L1(weight), FISTA(), start=begin, tol=0, max_steps=20).weights
    expected = certify(problem, L1(weight), point).relative_gap
    assert 1e-3 < expected < 1
    solution = fistapruner(problem, TopK(0.5), warm_start="wanda", coordinates="raw", first_lambda=1e-2, max_lambdas=1)
    np.testing.assert_allclose(solution.detail["lasso_gap"], expected, rtol=1e-3)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 1000),
    fraction=st.sampled_from([1e-3, 0.02, 0.1, 0.4]),
    drift=st.sampled_from([0.0, 0.3]),
    removed=st.floats(0, 1),
)
def test_rounding_error_at_the_lasso_optimum(seed, fraction, drift, removed):
    """E_total^2 = E_lasso^2 + 2 lambda |D|_1 + |D X*|^2 for any removed entries D, so rounding never helps there."""
    layer = normal_layer(seed, 30, 8, 3, condition=4, drift=drift)
    weight = fraction * layer.largest
    solution = solve(problem_of(layer), L1(weight), FISTA(), tol=1e-12, max_steps=20_000)
    assert solution.status is Status.CONVERGED
    optimum = solution.weights
    drop = np.random.default_rng(seed).random(optimum.shape) < removed
    delta = np.where(drop, optimum, 0)
    lasso, total = 2 * layer.loss(optimum), 2 * layer.loss(optimum - delta)
    expected = lasso + 2 * weight * np.sum(np.abs(delta)) + np.sum((layer.inputs @ delta.T) ** 2)
    np.testing.assert_allclose(total, expected, rtol=1e-6)  # a gap of 1e-12 leaves a gradient error of 1e-6
    assert total >= lasso * (1 - 1e-9)
