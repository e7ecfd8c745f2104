"""Non-negative weights and boxes beside scipy, and when a gap of non-negative least squares can close."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import lsq_linear, nnls

from gramian.proofs.kit.strategies import Layer, layers, points
from gramian.solvers import FISTA, Box, NonNegative, Quadratic, Status, certify, solve

RNG = np.random.default_rng(0)
X, W = RNG.normal(size=(40, 6)), RNG.normal(size=(4, 6))


def least_nonnegative(layer: Layer) -> float:
    return sum(0.5 * nnls(layer.inputs, target, maxiter=1000)[1] ** 2 for target in layer.outputs.T)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("unit", [1.0, 1e-6, 1e6])
def test_non_negative_least_squares(xp, unit, scaled):
    layer = Layer(X * unit * np.logspace(0, -1, 6), W)
    found = solve(layer.problem(xp), NonNegative(), FISTA(scaled=scaled), tol=1e-7, max_steps=50_000)
    assert found.status is Status.CONVERGED and float(np.min(xp.numpy(found.weights))) >= 0
    assert layer.loss(xp.numpy(found.weights)) == pytest.approx(least_nonnegative(layer), rel=2e-7)


@given(layer=layers(inputs=4, outputs=2), data=st.data())
def test_the_bound_is_one(xp, layer: Layer, data):
    """Of any point, on layers of any rank."""
    point = np.maximum(data.draw(points(layer), label="V"), 0)
    certificate = certify(layer.problem(xp), NonNegative(), xp.asarray(point))
    slack = 1e-10 * layer.magnitude(point)
    assert certificate.bound <= least_nonnegative(layer) + slack
    assert abs(certificate.objective - layer.loss(point)) <= slack and certificate.violation == 0


@pytest.mark.parametrize(
    "inputs",
    [
        np.hstack([X, X[:, :2]]),  # duplicates
        np.hstack([X, 0 * X[:, :1]]),  # a dead channel
        np.abs(RNG.normal(size=(4, 9))),  # fewer tokens than channels
        np.hstack([np.abs(X), 1e-3 * np.abs(X[:, :3])]),
    ],
    ids=["duplicates", "dead", "few tokens", "small"],
)
def test_the_gap_closes_on_singular_grams(xp, inputs):
    """There is a point of positive products with all channels, so that a gradient can be made non-negative."""
    targets = RNG.normal(size=(len(inputs), 3)) - 1.0
    dense = RNG.normal(size=(3, inputs.shape[1]))
    drift = targets @ np.linalg.pinv(dense.T)  # X with X W^T = Y: an optimum that is not zero
    layer = Layer(inputs, dense, drift)
    found = solve(layer.problem(xp), NonNegative(), FISTA(scaled=True), tol=1e-6, max_steps=50_000)
    assert found.status is Status.CONVERGED
    assert layer.loss(xp.numpy(found.weights)) == pytest.approx(least_nonnegative(layer), rel=2e-6)


def test_without_a_dual_point_the_bound_is_that_without_constraint(xp):
    """x_2 = -x_1: gradients are of opposite signs, and no point but the optimum itself has none that is negative."""
    inputs = np.hstack([X[:, :1], -X[:, :1]])
    dense = Layer(inputs, np.array([[1.0, 0.0]]), inputs + X[:, 1:3])
    certificate = certify(dense.problem(xp), NonNegative(), xp.asarray(np.array([[0.5, 0.0]])))
    least = 0.5 * sum(np.linalg.lstsq(inputs[:, :1], dense.outputs, rcond=None)[1])
    assert least * (1 - 1e-4) <= certificate.bound <= least * (1 + 1e-12) and certificate.gap > 0


def test_a_negative_weight_is_a_violation(xp):
    problem = Quadratic.from_data(xp.asarray(X), xp.asarray(W))
    assert certify(problem, NonNegative(), xp.asarray(W)).violation == pytest.approx(-W.min())


@pytest.mark.parametrize("lower, upper", [(-0.3, 0.3), (0.0, 1.0), (W - 1.5, W - 0.5), (0.2, 0.2)])
def test_a_box(xp, lower, upper):
    layer = Layer(X * np.logspace(0, -1, 6), W)
    term = Box(*(bound if isinstance(bound, float) else xp.asarray(bound) for bound in (lower, upper)))
    found = solve(layer.problem(xp), term, FISTA(scaled=True), tol=1e-8, max_steps=20_000)
    assert found.status is Status.CONVERGED and found.certificate.violation == 0
    least = 0.0
    for target, low, high in zip(layer.outputs.T, *(np.broadcast_to(b, W.shape) for b in (lower, upper))):
        wide = np.maximum(high, low + 1e-12)  # which scipy needs
        least += lsq_linear(layer.inputs, target, (low, wide), method="bvls", tol=1e-14).cost
    assert layer.loss(xp.numpy(found.weights)) == pytest.approx(least, rel=1e-7)


def test_a_box_that_is_met_in_float32_is_not_violated(xp):
    """0.1 is no number of float32; the weights cut to it are as near as they can be."""
    problem = Layer(X, W).problem(xp, "float32")
    found = solve(problem, Box(-0.1, 0.1), FISTA(), tol=1e-5)
    assert found.status is Status.CONVERGED and found.weights.dtype == xp.dtype("float32")


@pytest.mark.parametrize("bounds", [(0.0, float("inf")), (float("nan"), 1.0), (-float("inf"), 0.0)])
def test_bounds_are_finite(bounds):
    with pytest.raises(ValueError, match="must be finite"):
        Box(*bounds)


def test_bounds_do_not_cross(xp):
    with pytest.raises(ValueError, match="above its upper one"):
        Box(1.0, 0.0)
    with pytest.raises(ValueError, match="above its upper one"):
        Box(xp.asarray(np.array([[0.0, 2.0]])), 1.0)
