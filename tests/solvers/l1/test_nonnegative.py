"""`lasso` where no weight may be negative: least squares, with a price, with a ridge, on anything that may come."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from rounding import rounding_of_solve
from scipy.optimize import nnls

from gramian.proofs.kit.convex import cvxpy, minimum
from gramian.proofs.kit.strategies import Layer, fractions, layers, normal_layer
from gramian.solvers import NonNegative, Quadratic, Status, lasso

ENDED = (Status.CONVERGED, Status.DIRECT)


def objective(layer: Layer, point: np.ndarray, price: float | np.ndarray = 0.0, ridge: float = 0.0) -> float:
    assert np.all(point >= 0)
    return float(layer.loss(point) + np.sum(price * point) + 0.5 * ridge * np.sum(point**2))


def enumerated(layer: Layer, price: float) -> float:
    """The least objective, by enumerating supports: some optimum has independent columns, and is positive on its support."""
    gram, cross, width = layer.inputs.T @ layer.inputs, layer.outputs.T @ layer.inputs, layer.inputs.shape[1]
    least = 0.5 * np.sum(layer.outputs**2, axis=0)
    for support in (list(chosen) for size in range(1, width + 1) for chosen in combinations(range(width), size)):
        inverse = np.linalg.pinv(gram[np.ix_(support, support)], hermitian=True)
        point = np.zeros(layer.weight.shape)
        point[:, support] = np.maximum((cross[:, support] - price) @ inverse, 0)
        least = np.minimum(least, layer.row_losses(point) + price * point.sum(axis=1))
    return float(np.sum(least))


def interior(layer: Layer, price: float | np.ndarray, ridge: float) -> float:
    """The least objective, by an interior point method."""
    cp = cvxpy()
    point = cp.Variable(layer.weight.shape, nonneg=True)
    loss = 0.5 * cp.sum_squares(layer.inputs @ point.T - layer.outputs)
    price = np.broadcast_to(np.asarray(price, dtype=float), layer.weight.shape)
    return minimum(loss + cp.sum(cp.multiply(price, point)) + 0.5 * ridge * cp.sum_squares(point))


def planted(seed: int, inputs: int, outputs: int) -> tuple[Layer, np.ndarray]:
    """A layer whose optimum is known: v >= 0 with multipliers g >= 0, <g, v> = 0, and w = v - g G^-1."""
    rng = np.random.default_rng(seed)
    data = rng.normal(size=(4 * inputs, inputs)) * rng.uniform(0.5, 2.0, size=inputs)
    live = rng.random((outputs, inputs)) < 0.5
    optimum, slope = (rng.uniform(0.5, 2.0, size=live.shape) for _ in range(2))
    optimum, slope = np.where(live, optimum, 0.0), np.where(live, 0.0, slope)
    return Layer(data, optimum - np.linalg.solve(data.T @ data, slope.T).T), optimum


@pytest.mark.parametrize("seed", range(3))
def test_finds_the_planted_optimum_to_rounding(xp, seed):
    layer, optimum = planted(seed, 12, 4)
    solution = lasso(layer.problem(xp), NonNegative(), tol=1e-10)
    assert solution.status is Status.CONVERGED and solution.certificate.relative_gap <= 1e-10
    assert solution.certificate.violation == 0
    point, gram = xp.numpy(solution.weights), layer.inputs.T @ layer.inputs
    np.testing.assert_allclose(point, optimum, rtol=0, atol=rounding_of_solve(gram, 20.0, len(layer.inputs)))
    np.testing.assert_array_equal(point == 0, optimum == 0)


@pytest.mark.parametrize("drift", [0.0, 0.5])
@pytest.mark.parametrize("tokens", [40, 14])
def test_same_objective_as_scipy(xp, drift, tokens):
    layer = normal_layer(3, tokens, 12, 5, condition=20.0, drift=drift)
    solution = lasso(layer.problem(xp), NonNegative(), tol=1e-9)
    assert solution.status is Status.CONVERGED and np.all(xp.numpy(solution.weights) >= 0)
    expected = 0.5 * sum(nnls(layer.inputs, target)[1] ** 2 for target in layer.outputs.T)
    assert solution.certificate.objective == pytest.approx(expected, rel=1e-9)
    assert solution.certificate.bound <= expected * (1 + 1e-12)


@pytest.mark.parametrize("ridge", [0.0, 3.0])
@pytest.mark.parametrize("shape", [(), (3, 1), (1, 10), (3, 10)])
def test_same_objective_as_cvxpy(xp, shape, ridge):
    """With a price, one for all or many, some of them zero; with a ridge or without."""
    layer = normal_layer(4, 30, 10, 3, condition=20.0, drift=0.3)
    rng = np.random.default_rng(5)
    price = 0.1 * layer.largest * rng.uniform(0.1, 2.0, size=shape) * (rng.random(shape) < 0.8)
    term = NonNegative(xp.asarray(price) if shape else float(price), ridge)
    solution = lasso(layer.problem(xp), term, tol=1e-9)
    assert solution.status is Status.CONVERGED
    expected = interior(layer, price, ridge)
    assert objective(layer, xp.numpy(solution.weights), price, ridge) == pytest.approx(expected, rel=1e-8)
    assert solution.certificate.objective == pytest.approx(expected, rel=1e-8)


@given(layer=layers(inputs=4), fraction=fractions)
@settings(max_examples=40)
@pytest.mark.parametrize("priced", [False, True])
def test_exact_on_any_layer(xp, priced, layer: Layer, fraction):
    """Singular, dead, duplicated, one-row and badly scaled layers: the enumerated optimum, and soon."""
    assume(layer.largest > 1e-9 * np.sum(layer.inputs**2) * np.max(np.abs(layer.weight)))  # or prices are rounding
    price = fraction * layer.largest if priced else 0.0
    solution = lasso(layer.problem(xp), NonNegative(price), tol=1e-9, max_steps=2000)
    point = xp.numpy(solution.weights)
    least, reached = enumerated(layer, price), objective(layer, point, price)
    slack = 1e-12 * (layer.magnitude(point) + reached)
    assert solution.status in ENDED
    assert solution.certificate.bound <= least + slack
    assert reached - least <= 1e-9 * reached + slack


@pytest.mark.parametrize("kind", ["few tokens", "duplicates", "opposites", "whole numbers", "condition 1e8", "one sign"])
def test_what_is_hard(xp, kind):
    """Grams on which the optimum is no single point, no combination of channels has a positive product with all, or signs never
    turn."""
    rng = np.random.default_rng(41)
    layer = normal_layer(42, 40, 20, 4, condition=1e4 if kind == "condition 1e8" else 30.0)
    if kind == "few tokens":
        layer = Layer(rng.normal(size=(10, 16)), rng.normal(size=(4, 16)))
    elif kind == "duplicates":
        layer = Layer(np.hstack([layer.inputs, layer.inputs, 2 * layer.inputs[:, :5]]), rng.normal(size=(4, 45)))
    elif kind == "opposites":
        layer = Layer(np.hstack([layer.inputs, -layer.inputs[:, :7]]), rng.normal(size=(4, 27)))
    elif kind == "whole numbers":
        layer = Layer(rng.integers(-1, 2, size=(15, 25)).astype(float), rng.integers(-2, 3, size=(4, 25)).astype(float))
    elif kind == "one sign":
        layer = Layer(np.abs(layer.inputs), layer.weight)
    solution = lasso(layer.problem(xp), NonNegative(), tol=1e-8, max_steps=4000)
    point = xp.numpy(solution.weights)
    expected = 0.5 * sum(nnls(layer.inputs, target)[1] ** 2 for target in layer.outputs.T)
    assert solution.status in ENDED and solution.detail["open_rows"] == 0
    assert objective(layer, point) <= expected * (1 + 1e-8) + 1e-13 * layer.magnitude(point)


def test_zero_is_the_answer_where_every_slope_is_positive(xp):
    layer = normal_layer(6, 30, 8, 3)
    layer = Layer(np.abs(layer.inputs), -np.abs(layer.weight))
    solution = lasso(layer.problem(xp), NonNegative(), tol=1e-12)
    assert not np.any(xp.numpy(solution.weights)) and solution.status is Status.CONVERGED
    assert solution.certificate.relative_gap <= 1e-12


def test_weights_that_are_not_negative_are_left_alone(xp):
    layer = normal_layer(7, 30, 8, 3)
    problem = Layer(layer.inputs, np.abs(layer.weight)).problem(xp)
    solution = lasso(problem, NonNegative())
    np.testing.assert_array_equal(xp.numpy(solution.weights), np.abs(layer.weight))
    assert solution.steps == 0 and solution.status is Status.CONVERGED


def test_dead_channels(xp):
    """A weight of a dead channel stays if it may, and if it costs nothing."""
    layer = normal_layer(43, 20, 8, 3, dead=2)
    dead = ~np.any(layer.inputs, axis=0)
    free = xp.numpy(lasso(layer.problem(xp), NonNegative(), tol=1e-9).weights)
    np.testing.assert_array_equal(free[:, dead], np.maximum(layer.weight[:, dead], 0))
    priced = xp.numpy(lasso(layer.problem(xp), NonNegative(1e-9), tol=1e-9).weights)
    assert dead.sum() == 2 and not np.any(priced[:, dead])


@pytest.mark.parametrize("power", [-20, 20])
def test_no_units(xp, power):
    """Powers of two scale without rounding: the same bytes, and the same work."""
    layer, unit = normal_layer(47, 30, 8, 3, condition=50.0, drift=0.1), 2.0**power
    for price in (0.0, 0.05 * layer.largest):
        plain = lasso(layer.problem(xp), NonNegative(price))
        heavier = lasso(layer.scaled(weight=unit).problem(xp), NonNegative(unit * price))
        np.testing.assert_array_equal(xp.numpy(heavier.weights), unit * xp.numpy(plain.weights))
        louder = lasso(layer.scaled(inputs=unit).problem(xp), NonNegative(unit**2 * price))
        np.testing.assert_array_equal(xp.numpy(louder.weights), xp.numpy(plain.weights))
        assert plain.steps == heavier.steps == louder.steps > 0 and plain.detail == heavier.detail == louder.detail


def test_float32(xp):
    layer = normal_layer(24, 60, 16, 4, condition=10.0, drift=0.1)
    solution = lasso(layer.problem(xp, "float32"), NonNegative(), tol=1e-4)
    assert solution.weights.dtype == xp.dtype("float32")
    expected = 0.5 * sum(nnls(layer.inputs, target)[1] ** 2 for target in layer.outputs.T)
    assert objective(layer, xp.numpy(solution.weights).astype(float)) == pytest.approx(expected, rel=1e-4)


def test_rows_do_not_depend_on_each_other(xp):
    layer = normal_layer(16, 40, 10, 5, condition=30.0, drift=0.2)
    joint = xp.numpy(lasso(layer.problem(xp), NonNegative(), tol=1e-12).weights)
    for row in range(5):
        alone = Layer(layer.inputs, layer.weight[[row]], layer.dense).problem(xp)
        np.testing.assert_allclose(xp.numpy(lasso(alone, NonNegative(), tol=1e-12).weights)[0], joint[row], atol=1e-10)


@pytest.mark.parametrize("steps", [1, 10])
def test_step_limit_is_a_status_with_an_honest_certificate(xp, steps):
    layer = normal_layer(19, 60, 30, 6, condition=1e3)
    start = np.random.default_rng(20).normal(size=layer.weight.shape)
    solution = lasso(layer.problem(xp), NonNegative(), start=xp.asarray(start), tol=1e-10, max_steps=steps)
    assert solution.status is Status.STEP_LIMIT and solution.steps == steps
    expected = 0.5 * sum(nnls(layer.inputs, target)[1] ** 2 for target in layer.outputs.T)
    point = xp.numpy(solution.weights)
    assert solution.certificate.bound <= expected * (1 + 1e-12) <= objective(layer, point) * (1 + 2e-12)
    assert objective(layer, point) <= objective(layer, np.maximum(start, 0))


def test_a_start_of_negative_weights_is_brought_into_the_set(xp):
    layer, optimum = planted(8, 10, 3)
    problem = Quadratic(layer.problem(xp).gram, xp.asarray(layer.weight))
    solution = lasso(problem, NonNegative(), start=xp.asarray(-optimum), tol=1e-10)
    np.testing.assert_allclose(xp.numpy(solution.weights), optimum, atol=1e-9)
