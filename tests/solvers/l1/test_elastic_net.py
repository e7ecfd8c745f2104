"""`lasso` with a ridge on the weights, which is a LASSO of another Gram."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gramian.proofs.kit.convex import cvxpy, minimum
from gramian.proofs.kit.references import exact_lasso
from gramian.proofs.kit.strategies import Layer, fractions, layers, normal_layer
from gramian.solvers import L1, ElasticNet, Status, lasso


def augmented(layer: Layer, ridge: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same problem without a ridge: a token sqrt(ridge_j) of every channel, whose output should be zero."""
    rows = np.diag(np.sqrt(np.broadcast_to(ridge, layer.inputs.shape[1:])))
    return np.vstack([layer.inputs, rows]), np.vstack([layer.outputs, np.zeros((len(rows), len(layer.weight)))])


def objective(layer: Layer, price: float, ridge: np.ndarray, point: np.ndarray) -> float:
    return float(layer.loss(point) + price * np.sum(np.abs(point)) + 0.5 * np.sum(ridge * point**2))


@pytest.mark.parametrize("drift", [0.0, 0.5])
@pytest.mark.parametrize("tokens", [30, 6])
@pytest.mark.parametrize("per_channel", [False, True])
def test_same_objective_as_cvxpy(xp, drift, tokens, per_channel):
    layer = normal_layer(13, tokens, 10, 3, condition=20.0, drift=drift)
    price, ridge = 0.05 * layer.largest, np.full(10, 0.3) * (np.arange(10.0) if per_channel else 1.0)
    given_ridge = xp.asarray(ridge) if per_channel else 0.3
    solution = lasso(layer.problem(xp), ElasticNet(price, given_ridge), tol=1e-10)
    assert solution.status is Status.CONVERGED and solution.certificate.relative_gap <= 1e-10
    cp = cvxpy()
    point = cp.Variable((3, 10))
    loss = 0.5 * cp.sum_squares(layer.inputs @ point.T - layer.outputs) + price * cp.sum(cp.abs(point))
    expected = minimum(loss + 0.5 * cp.sum(cp.multiply(np.tile(ridge, (3, 1)), cp.square(point))))
    assert objective(layer, price, ridge, xp.numpy(solution.weights)) == pytest.approx(expected, rel=1e-8)
    assert solution.certificate.objective == pytest.approx(expected, rel=1e-8)
    error = layer.loss(xp.numpy(solution.weights)) / layer.energy  # of the layer alone, without the ridge
    assert solution.certificate.relative_error == pytest.approx(error, rel=1e-9)


@given(layer=layers(inputs=4), fraction=fractions, share=st.sampled_from([1e-6, 0.01, 1.0, 100.0]))
@settings(max_examples=40)
def test_exact_on_any_layer(xp, layer: Layer, fraction, share):
    """The enumerated LASSO of the longer data."""
    size = float(np.sum(layer.inputs**2))
    assume(layer.largest > 1e-9 * size * np.max(np.abs(layer.weight)))  # or prices are rounding
    price, ridge = fraction * layer.largest, share * size
    solution = lasso(layer.problem(xp), ElasticNet(price, ridge), tol=1e-9, max_steps=2000)
    point = xp.numpy(solution.weights)
    _, least = exact_lasso(*augmented(layer, np.array(ridge)), price)
    reached = objective(layer, price, np.array(ridge), point)
    slack = 1e-12 * (layer.magnitude(point) + reached)
    assert solution.status in (Status.CONVERGED, Status.DIRECT)
    assert solution.certificate.bound <= least + slack
    assert reached - least <= 1e-9 * reached + slack


def test_without_a_ridge_it_is_the_lasso(xp):
    layer = normal_layer(14, 30, 8, 3, drift=0.3)
    price = 0.1 * layer.largest
    plain, net = (lasso(layer.problem(xp), term) for term in (L1(price), ElasticNet(price, 0.0)))
    np.testing.assert_array_equal(xp.numpy(plain.weights), xp.numpy(net.weights))
    assert plain.steps == net.steps


def test_without_a_price_it_is_ridge_regression(xp):
    layer = normal_layer(15, 30, 8, 3, drift=0.3)
    solution = lasso(layer.problem(xp), ElasticNet(0.0, 2.0), tol=1e-10)
    inverse = np.linalg.inv(layer.inputs.T @ layer.inputs + 2.0 * np.eye(8))
    np.testing.assert_allclose(xp.numpy(solution.weights), layer.outputs.T @ layer.inputs @ inverse, atol=1e-10)
    assert solution.status is Status.CONVERGED


def test_weights_that_nothing_sees_are_zero_however_large(xp):
    """A dead channel, and the sum of duplicates: a ridge is the only thing that says what they are."""
    layer = normal_layer(16, 30, 8, 2, dead=1)
    dead = ~np.any(layer.inputs, axis=0)
    layer = layer.scaled(weight=np.where(dead, 1e12, 1.0))
    price = 0.01 * layer.largest
    solution = lasso(layer.problem(xp), ElasticNet(price, 0.1), tol=1e-9)
    assert solution.status is Status.CONVERGED and not np.any(xp.numpy(solution.weights)[:, dead])
    twins = Layer(np.hstack([layer.inputs[:, :3]] * 2), np.full((2, 6), 1.0) * [[1, 2, 3, 5, 6, 7]])
    found = xp.numpy(lasso(twins.problem(xp), ElasticNet(price, 0.1), tol=1e-12).weights)
    np.testing.assert_allclose(found[:, :3], found[:, 3:], atol=1e-8)


def test_rows_of_different_ridges_are_refused(xp):
    layer = normal_layer(17, 30, 4, 2)
    ridge = np.array([[1.0], [2.0]])
    with pytest.raises(ValueError, match="share one Gram if they share the ridge"):
        lasso(layer.problem(xp), ElasticNet(1.0, xp.asarray(ridge)))
    same = lasso(layer.problem(xp), ElasticNet(1.0, xp.asarray(np.ones((2, 1)))))
    number = lasso(layer.problem(xp), ElasticNet(1.0, 1.0))
    np.testing.assert_array_equal(xp.numpy(same.weights), xp.numpy(number.weights))


def test_float32(xp):
    layer = normal_layer(24, 60, 16, 4, condition=10.0, drift=0.1)
    price = 0.05 * layer.largest
    solution = lasso(layer.problem(xp, "float32"), ElasticNet(price, 1.0), tol=1e-5)
    assert solution.status is Status.CONVERGED and solution.weights.dtype == xp.dtype("float32")
    exact = lasso(layer.problem(xp), ElasticNet(price, 1.0), tol=1e-10)
    reached = objective(layer, price, np.array(1.0), xp.numpy(solution.weights).astype(float))
    assert reached == pytest.approx(exact.certificate.objective, rel=1e-5)
