"""Exchanges from an answer by name: the best support of tiny problems, planted ones, never worse than a start refitted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from least_squares import USUAL, exchanges
from method_instances import planted

from gramian.proofs.kit.models import best_of_all_supports
from gramian.proofs.kit.strategies import layers, normal_layer
from gramian.solvers import NM, Pattern, Status, TopK, exchange, exchange_weights, refit
from gramian.solvers.support.local_search import BEGINNINGS


@pytest.mark.parametrize("start", BEGINNINGS)
@pytest.mark.parametrize("pattern", USUAL, ids=str)
def test_it_is_the_search_from_that_answer(xp, pattern, start):
    layer = normal_layer(110, 40, 16, 4, condition=30.0, drift=0.2)
    problem = layer.problem(xp)
    solution = exchange(problem, pattern, start=start, rounds=30)
    first = BEGINNINGS[start](problem, pattern)
    searched = exchange_weights(problem, pattern, first.weights, rounds=30)
    np.testing.assert_array_equal(xp.numpy(solution.weights), xp.numpy(searched.weights))
    assert solution.detail == searched.detail | {"start_error": first.certificate.relative_error}
    refitted = refit(problem, first.weights != 0, start=first.weights)
    assert solution.certificate.objective <= min(refitted.certificate.objective, first.certificate.objective) * (1 + 1e-9)
    assert solution.status is Status.SWAP_OPTIMAL and solution.certificate.residual < 1e-9
    found = exchanges(layer, xp.numpy(solution.weights) != 0, pattern)
    assert all(gain <= 1.1e-6 * loss + 1e-11 * zero for gain, loss, zero in found)
    # one refit alone is no search
    assert start != "magnitude" or solution.certificate.objective < 0.95 * refitted.certificate.objective


def test_a_search_cut_short_does_not_say_that_it_is_optimal():
    layer = normal_layer(111, 40, 24, 4, condition=100.0)
    none = exchange(layer.problem(np), TopK(0.5), start="magnitude", rounds=0)
    assert none.status is Status.SEARCHED and none.steps == 0 and none.detail["exchanges"] == 0
    narrow = exchange(layer.problem(np), TopK(0.5), start="magnitude", candidates=4, widest=8)
    assert narrow.status is Status.SEARCHED and narrow.detail["rows_at_rest"] == 0
    assert narrow.certificate.objective < none.certificate.objective


@pytest.mark.parametrize("pattern", [TopK(0.5), TopK(0.5, per_row=True), NM(2, 4)], ids=str)
def test_tiny_problems_by_brute_force(pattern):
    """No exchange of one weight helps, so the best of all supports is mostly found, and never beaten."""
    reached = 0
    for seed in range(20):
        layer = normal_layer(200 + seed, 12, 4, 2, condition=10.0)
        least = best_of_all_supports(layer.inputs, layer.outputs, pattern.admits)
        found = min(exchange(layer.problem(np), pattern, start=start).certificate.objective for start in ("wanda", "sparsegpt"))
        assert found >= least - 1e-9 * layer.energy
        reached += found <= least + 1e-9 * layer.energy
    assert reached >= 16


@pytest.mark.parametrize("start", BEGINNINGS)
@pytest.mark.parametrize("pattern", USUAL, ids=str)
def test_a_planted_support_is_found(xp, pattern, start):
    layer, sparse = planted(112, pattern)
    found = exchange(layer.problem(xp), pattern, start=start, rounds=30)
    np.testing.assert_allclose(xp.numpy(found.weights), sparse, atol=1e-6)
    assert found.certificate.relative_error <= 1e-12


@settings(max_examples=30)
@given(data=st.data())
def test_any_layer(xp, data):
    """Singular, dead, duplicated, tied, one row, one column, fewer tokens than channels, any scale, X* != X, float32."""
    layer = data.draw(layers(inputs=4, multiple=data.draw(st.sampled_from([1, 4]))))
    anywhere: list[Pattern] = [TopK(0.5), TopK(0.3, per_row=True), TopK(0.0), NM(1, 1)]
    pattern = data.draw(st.sampled_from(anywhere + ([NM(2, 4), NM(1, 2)] if layer.weight.shape[1] == 4 else [])))
    start, dtype = data.draw(st.sampled_from(sorted(BEGINNINGS))), data.draw(st.sampled_from(["float64", "float32"]))
    problem = layer.problem(xp, dtype)
    solution = exchange(problem, pattern, start=start)
    point = xp.numpy(solution.weights)
    assert point.dtype == dtype and np.all(np.isfinite(point))
    assert pattern.admits(xp.asarray(point != 0)) and solution.certificate.violation == 0
    first = BEGINNINGS[start](problem, pattern)
    refitted = refit(problem, first.weights != 0, start=problem_dtype(xp, first.weights, dtype))
    least = min(first.certificate.objective, refitted.certificate.objective)
    exact, answer = problem.double, point.astype(float)
    rounding = 1e-12 if dtype == "float64" else 1e-6
    assert solution.certificate.objective <= least + rounding * (layer.magnitude(layer.weight) + layer.magnitude(answer))
    assert solution.certificate.objective == exact.loss(xp.asarray(answer))
    assert (solution.status is Status.SWAP_OPTIMAL) == (solution.detail["swap_optimal"] == 1)


def problem_dtype(xp, weights, dtype):
    """Weights in the precision of the problem: FISTAPruner answers in float64."""
    return xp.asarray(xp.numpy(weights), dtype)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": "dense"}, "start must be one of magnitude, wanda, sparsegpt, l0, fistapruner but is 'dense'"),
        ({"rounds": -1}, "rounds must be a whole number of at least 0 but is -1"),
        ({"candidates": 1}, "candidates must be a whole number of at least 2 but is 1"),
        ({"candidates": 64, "widest": 32}, "widest must be a whole number of at least 64 but is 32"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        exchange(normal_layer(114, 20, 8, 2).problem(np), TopK(0.5), **options)
