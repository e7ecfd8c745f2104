"""FISTAPruner's promises: never worse than its start, exact patterns, no units, honest figures, options that are checked."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from method_instances import PATTERNS, PLAIN, SHIFTED, STARTS, allowed, hard, kept_counts, problem_of, relative_error

from gramian.proofs.kit.strategies import Layer, layers, normal_layer
from gramian.solvers import NM, Status, TopK
from gramian.solvers.support.baselines import wanda
from gramian.solvers.support.lasso_rounding import WARM_STARTS, fistapruner


@pytest.mark.parametrize("start", WARM_STARTS)
@pytest.mark.parametrize("coordinates", ["unit", "raw"])
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("layer", [PLAIN, SHIFTED], ids=["plain", "shifted"])
def test_never_worse_than_the_rounded_warm_start(layer, pattern, coordinates, start):
    problem = problem_of(layer)
    solution = fistapruner(problem, pattern, warm_start=start, coordinates=coordinates)
    weights = solution.weights
    assert np.all(kept_counts(weights, pattern) <= allowed(weights, pattern))  # zeros of the LASSO count
    begin = layer.weight if start == "dense" else STARTS[start](problem, pattern).weights
    scale = np.linalg.norm(layer.inputs, axis=0) if coordinates == "unit" else 1.0
    bound = relative_error(layer, np.where(hard(np.abs(begin * scale), pattern), begin, 0))
    error = relative_error(layer, weights)
    assert error <= bound * (1 + 1e-6)  # the sweep of a warm start runs in float32
    assert error < 0.98 * bound or start in ("sparsegpt", "dense")  # and it is worth the trouble
    assert error <= solution.detail["warm_start_error"] * (1 + 1e-12)
    np.testing.assert_allclose(solution.detail["warm_start_error"], bound, rtol=1e-4)
    certificate = solution.certificate
    np.testing.assert_allclose(certificate.relative_error, error, rtol=1e-9)
    assert solution.status is Status.SEARCHED and weights.dtype == np.float64 and certificate.violation == 0
    dense = layer.inputs if layer.dense is None else layer.dense
    gradient = (layer.inputs @ weights.T - dense @ layer.weight.T).T @ layer.inputs
    residual = np.linalg.norm(gradient[weights != 0]) / np.linalg.norm(layer.outputs.T @ layer.inputs)
    np.testing.assert_allclose(certificate.residual, residual, rtol=1e-8)
    assert -1e-12 <= solution.detail.get("lasso_gap", 0.0) <= 1


@settings(max_examples=60)
@given(data=st.data())
def test_promises_on_odd_layers(data):
    """Dead and duplicate channels, zero weights, fewer tokens than channels, one row, one column, any scale of inputs."""
    layer = data.draw(layers(scales=(1.0, 1e-3, 1e3)))
    pattern = data.draw(st.sampled_from([TopK(0.5), TopK(0.3, per_row=True), TopK(0.0), NM(1, 1)]))
    start = data.draw(st.sampled_from(WARM_STARTS))
    coordinates, l1 = data.draw(st.sampled_from(["unit", "raw"])), data.draw(st.sampled_from(["plain", "scaled"]))
    problem = problem_of(layer)
    solution = fistapruner(problem, pattern, warm_start=start, max_lambdas=4, coordinates=coordinates, l1=l1)
    assert np.all(np.isfinite(solution.weights)) and pattern.admits(solution.weights != 0)
    slack = 1e-9 * layer.magnitude(layer.weight)
    if start != "dense":
        begin = STARTS[start](problem.astype(np.float32), pattern).weights.astype(float)
        assert layer.loss(solution.weights) <= layer.loss(begin) + slack
    np.testing.assert_allclose(solution.certificate.objective, layer.loss(solution.weights), atol=slack)
    assert -1e-9 <= solution.detail.get("lasso_gap", 0.0) <= 1 + 1e-9
    assert math.isfinite(solution.detail["warm_start_error"]) or problem.energy == 0  # it is relative to the output


def test_a_dense_start_comes_back_sparse():
    """With X* = X dense weights have no error, so nothing would ever be better than returning them."""
    layer = normal_layer(2, 40, 4, 4)
    solution = fistapruner(problem_of(layer), TopK(0.5), warm_start="dense")
    assert np.sum(solution.weights == 0) == 8 and solution.detail["warm_start_error"] > 0
    assert len(solution.history) > 0 and min(error for _, error in solution.history) < math.inf


def test_a_dense_start_drops_dead_channels_first():
    """Pruning their weights costs nothing; and in unit coordinates the rounded dense weights are Wanda's."""
    layer = normal_layer(3, 60, 24, 10, condition=5, dead=6)
    dead = np.linalg.norm(layer.inputs, axis=0) == 0
    solution = fistapruner(problem_of(layer), TopK(0.5), warm_start="dense")
    reference = relative_error(layer, wanda(problem_of(layer), TopK(0.5)).weights)
    np.testing.assert_allclose(solution.detail["warm_start_error"], reference, rtol=1e-9)
    assert not np.any(solution.weights[:, dead])


@pytest.mark.parametrize("scale", [2.0**-10, 2.0**10])
@pytest.mark.parametrize("start", WARM_STARTS)
def test_the_scale_of_inputs_changes_nothing_beside_dead_channels(start, scale):
    layer = normal_layer(3, 60, 24, 10, condition=5, dead=6)
    first, second = (fistapruner(problem_of(each), TopK(0.5), warm_start=start) for each in (layer, layer.scaled(inputs=scale)))
    np.testing.assert_array_equal(second.weights != 0, first.weights != 0)
    np.testing.assert_allclose(second.detail["warm_start_error"], first.detail["warm_start_error"], rtol=1e-6)


@pytest.mark.parametrize("start", WARM_STARTS)
def test_natural_zeros_count(start):
    """A matrix that is sparse enough already is its own answer."""
    weight = PLAIN.weight * (np.random.default_rng(4).random(PLAIN.weight.shape) < 0.3)
    layer = Layer(PLAIN.inputs, weight)
    solution = fistapruner(problem_of(layer), TopK(0.5), warm_start=start)
    np.testing.assert_allclose(solution.weights, weight, rtol=1e-6)
    assert relative_error(layer, solution.weights) < 1e-12 and np.sum(solution.weights != 0) == np.sum(weight != 0)


@pytest.mark.parametrize("start", WARM_STARTS)
@pytest.mark.parametrize("pattern", [TopK(0.5), NM(2, 4)], ids=str)
def test_nothing_to_fit(start, pattern):
    for layer in (
        Layer(np.zeros((5, 8)), PLAIN.weight[:, :8]),
        Layer(PLAIN.inputs[:, :8], np.zeros((3, 8))),
        Layer(np.zeros((5, 8)), PLAIN.weight[:, :8], PLAIN.inputs[:5, :8]),  # X* = 0, X is not
    ):
        solution = fistapruner(problem_of(layer), pattern, warm_start=start)
        assert np.all(np.isfinite(solution.weights)) and pattern.admits(solution.weights != 0)
        assert solution.certificate.relative_error == pytest.approx(1.0 if layer.dense is not None else 0.0)
        assert solution.steps == 0 and solution.history == ()


@pytest.mark.parametrize("shape", [(1, 24), (10, 1)])
def test_one_row_and_one_column(shape):
    layer = Layer(PLAIN.inputs[:, : shape[1]], PLAIN.weight[: shape[0], : shape[1]])
    for start in WARM_STARTS:
        solution = fistapruner(problem_of(layer), TopK(0.5), warm_start=start)
        assert solution.weights.shape == shape and np.sum(solution.weights == 0) == max(shape) // 2


@pytest.mark.parametrize("l1", ["plain", "scaled"])
@pytest.mark.parametrize("coordinates", ["unit", "raw"])
@pytest.mark.parametrize("start", WARM_STARTS)
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_scale_of_inputs_and_weights_changes_nothing(start, coordinates, l1, scale):
    options: dict[str, Any] = {"warm_start": start, "coordinates": coordinates, "l1": l1, "max_lambdas": 6}
    for layer in (PLAIN, SHIFTED):
        first = fistapruner(problem_of(layer), TopK(0.5), **options)
        for scaled, factor in ((layer.scaled(inputs=scale), 1.0), (layer.scaled(weight=scale), scale)):
            second = fistapruner(problem_of(scaled), TopK(0.5), **options)
            np.testing.assert_array_equal(second.weights != 0, first.weights != 0)
            np.testing.assert_allclose(second.weights, first.weights * factor, rtol=1e-2, atol=1e-3 * factor)
            assert second.steps == first.steps


def test_scaled_l1_ignores_the_scale_of_single_channels():
    """X -> X D, W -> W D^-1 gives V -> V D^-1 in unit coordinates; `plain` is another model after it."""
    channels = np.logspace(-2, 2, 24)
    other = Layer(PLAIN.inputs * channels, PLAIN.weight / channels)

    def weights(layer: Layer, l1: str) -> np.ndarray:
        return fistapruner(problem_of(layer), TopK(0.5), warm_start="wanda", l1=l1, first_lambda=1e-2).weights

    first, second = weights(PLAIN, "scaled"), weights(other, "scaled") * channels
    np.testing.assert_array_equal(first != 0, second != 0)
    np.testing.assert_allclose(first, second, rtol=1e-2, atol=1e-3)
    assert not np.allclose(weights(PLAIN, "plain"), weights(other, "plain") * channels, rtol=1e-2, atol=1e-3)


def test_every_backend_agrees(xp):
    expected = fistapruner(problem_of(SHIFTED), NM(2, 4), warm_start="wanda")
    solution = fistapruner(SHIFTED.problem(xp), NM(2, 4), warm_start="wanda")
    found = xp.numpy(solution.weights)
    assert np.all(kept_counts(found, NM(2, 4)) == 2)
    np.testing.assert_allclose(relative_error(SHIFTED, found), expected.certificate.relative_error, rtol=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warm_start": "lasso"}, "warm_start must be one of dense, magnitude, wanda, sparsegpt but is 'lasso'"),
        ({"coordinates": "polar"}, "coordinates"),
        ({"l1": "group"}, "l1 must be"),
        ({"inner_steps": 0}, "inner_steps"),
        ({"patience": 0}, "patience"),
        ({"max_lambdas": 0}, "max_lambdas"),
        ({"threshold": -0.1}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"threshold": 1.5}, "threshold"),
        ({"first_lambda": 0.0}, "first_lambda"),
        ({"first_lambda": 2.0}, "first_lambda"),
        ({"first_lambda": float("nan")}, "first_lambda"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"tolerance": float("nan")}, "tolerance"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        fistapruner(problem_of(PLAIN), TopK(0.5), **options)
