"""Certificates: never wrong, tight at the optimum, indifferent to units."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from rounding import rounding, rounding_of_loss

from gramian.proofs.kit.references import exact_lasso, lasso_objective
from gramian.proofs.kit.strategies import Layer, fractions, layers, normal_layer, planted_lasso, points
from gramian.solvers import L1, Quadratic, Support, certify


def slack_of(layer: Layer, point: np.ndarray, objective: float) -> float:
    """Of an objective and of a bound, which are a loss and a few terms no larger than the objective each."""
    return 2 * rounding_of_loss(layer, point) + rounding(point.size + 16, objective)


@given(layer=layers(inputs=4), data=st.data(), fraction=fractions)
def test_the_gap_bounds_the_distance_to_the_optimum(xp, layer: Layer, data, fraction):
    point = data.draw(points(layer), label="V")
    weight = fraction * layer.largest or 1.0
    certificate = certify(layer.problem(xp), L1(weight), xp.asarray(point))
    objective = lasso_objective(layer.inputs, layer.outputs, weight, point)
    _, optimum = exact_lasso(layer.inputs, layer.outputs, weight)
    slack = slack_of(layer, point, objective)
    assert abs(certificate.objective - objective) <= slack
    assert certificate.bound <= optimum + slack
    assert certificate.gap >= -slack
    assert certificate.residual is None and certificate.violation == 0
    assert certificate.measure == certificate.relative_gap


@given(layer=layers(inputs=4, scales=(1.0,)), fraction=fractions)
def test_the_gap_closes_at_the_optimum(xp, layer: Layer, fraction):
    assume(layer.largest > 0)
    weight = fraction * layer.largest
    optimum, least = exact_lasso(layer.inputs, layer.outputs, weight)
    certificate = certify(layer.problem(xp), L1(weight), xp.asarray(optimum))
    # A rounding error d of the gradient scales the dual point by 1 - d / lambda: the gap closes to that, not to zero.
    slack = 1e-11 * (1 + least) * max(1.0, layer.magnitude(layer.weight) / weight)
    assert abs(certificate.gap) <= slack
    assert certificate.bound == pytest.approx(least, abs=slack)


@given(layer=layers(scales=(1.0,)), data=st.data(), fraction=fractions)
def test_as_tight_as_the_textbook_gap(xp, layer: Layer, data, fraction):
    """gap = 1/2 |r|^2 + lambda |v|_1 - 1/2 |y|^2 + 1/2 |y - theta|^2 with theta = r min(1, lambda / |X^T r|_inf),
    from X and Y; one scale for the whole matrix or, tighter, one per row. The slack for rounding comes on top."""
    assume(layer.largest > 0)
    point, weight = data.draw(points(layer), label="V"), fraction * layer.largest
    certificate = certify(layer.problem(xp), L1(weight), xp.asarray(point))
    ours = certificate.gap - certificate.slack
    residual = layer.outputs - layer.inputs @ point.T
    slopes = np.max(np.abs(layer.inputs.T @ residual), axis=0)
    primal = 0.5 * np.sum(residual**2, axis=0) + weight * np.sum(np.abs(point), axis=1)
    for slope in (slopes, np.full_like(slopes, np.max(slopes))):
        theta = residual * np.minimum(1, weight / np.maximum(slope, 1e-300))
        dual = 0.5 * np.sum(layer.outputs**2, axis=0) - 0.5 * np.sum((layer.outputs - theta) ** 2, axis=0)
        assert ours <= np.sum(primal - dual) + slack_of(layer, point, float(np.sum(primal)))


@given(layer=layers(scales=(1.0,)), data=st.data(), fraction=fractions)
def test_no_other_scale_of_the_residual_is_a_better_dual_point(xp, layer: Layer, data, fraction):
    """D(s) = s <y, r> - s^2 / 2 |r|^2, feasible while |s| |X^T r|_inf <= lambda, on a grid."""
    assume(layer.largest > 0)
    point, weight = data.draw(points(layer), label="V")[:1], fraction * layer.largest
    layer = Layer(layer.inputs, layer.weight[:1], layer.dense)
    certificate = certify(layer.problem(xp), L1(weight), xp.asarray(point))
    ours = certificate.bound + certificate.slack
    residual = layer.outputs - layer.inputs @ point.T
    limit = min(weight / max(np.max(np.abs(layer.inputs.T @ residual)), 1e-300), 1e3)
    scales = np.linspace(-limit, limit, 2001)
    duals = scales * np.sum(layer.outputs * residual) - 0.5 * scales**2 * np.sum(residual**2)
    slack = slack_of(layer, point, float(np.sum(residual**2)) + weight * float(np.sum(np.abs(point))))
    assert ours >= np.max(duals) - slack


def test_rows_choose_their_own_dual_point(xp):
    """Two rows whose gradients differ by orders of magnitude: per row the gap is the sum of the rows' own gaps."""
    layer = normal_layer(8, 20, 5, 2)
    layer = Layer(layer.inputs, layer.weight * np.array([[1.0], [1e-3]]))
    point, weight = 0.5 * layer.weight, 1e-2
    both = certify(layer.problem(xp), L1(weight), xp.asarray(point))
    alone = [certify(Layer(layer.inputs, layer.weight[[i]]).problem(xp), L1(weight), xp.asarray(point[[i]])) for i in (0, 1)]
    slack = 2 * rounding_of_loss(layer, point) + rounding(5 + 8, weight * np.sum(np.abs(point)))  # primal and dual
    assert both.gap == pytest.approx(sum(one.gap for one in alone), abs=slack)
    assert slack < 1e-6 * min(one.gap for one in alone)


@given(
    layer=layers(scales=(1.0,)),
    data=st.data(),
    fraction=fractions,
    unit=st.sampled_from([1e-6, 2.0**-10, 3.0, 1e6]),
    what=st.sampled_from(["weight", "inputs"]),
)
def test_units_do_not_matter(xp, layer: Layer, data, fraction, unit, what):
    """The relative gap keeps under (W, V, lambda) -> (c W, c V, c lambda) and (X, lambda) -> (c X, c^2 lambda)."""
    assume(layer.largest > 0)
    point, weight = data.draw(points(layer), label="V"), fraction * layer.largest
    before = certify(layer.problem(xp), L1(weight), xp.asarray(point))
    assume(before.objective > 1e-6 * layer.magnitude(point))  # else both are rounding
    if what == "weight":
        after = certify(layer.scaled(weight=unit).problem(xp), L1(unit * weight), xp.asarray(unit * point))
    else:
        after = certify(layer.scaled(inputs=unit).problem(xp), L1(unit**2 * weight), xp.asarray(point))
    assert after.objective == pytest.approx(unit**2 * before.objective, rel=1e-8)
    assert after.relative_gap == pytest.approx(before.relative_gap, rel=1e-8, abs=1e-8)
    assert after.relative_error == pytest.approx(before.relative_error, rel=1e-6, abs=1e-8)


def test_the_best_dual_point_may_be_longer_than_the_gradient(xp):
    """f(v) = (v - 2)^2 / 2 and lambda = 1 at v = 1.5: |g| = 1/2, so s may go up to 2, which proves the optimum 3/2."""
    certificate = certify(Layer(np.ones((1, 1)), np.full((1, 1), 2.0)).problem(xp), L1(1.0), xp.asarray([[1.5]]))
    assert certificate.objective == 1.625 and certificate.bound + certificate.slack == 1.5  # dyadic numbers
    assert 1.5 - rounding(64, 10.0) <= certificate.bound <= 1.5


@pytest.mark.parametrize("loss", [1e-9, 0.125, 8.0])
def test_an_error_beside_no_outputs_is_infinite(xp, loss):
    """W = 0: whatever V does is an error, however small, and zero over zero is none."""
    problem = Layer(np.ones((2, 1)), np.zeros((1, 1))).problem(xp)
    for term in (L1(1.0), Support(xp.asarray([[True]]))):
        assert certify(problem, term, xp.asarray([[loss**0.5]])).relative_error == np.inf
        assert certify(problem, term, xp.asarray([[0.0]])).relative_error == 0
    assert problem.relative_error(xp.asarray([[loss**0.5]])) == np.inf


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (1, 6), (3, 6)])
def test_weights_of_every_shape(xp, shape):
    layer, optimum = planted_lasso(9, 6, 3, 0.5)
    certificate = certify(layer.problem(xp), L1(xp.asarray(np.full(shape, 0.5))), xp.asarray(optimum))
    assert abs(certificate.relative_gap) <= 1e-10
    skewed = np.full(shape, 0.5)
    skewed[-1, -1] = 0.1
    assert certify(layer.problem(xp), L1(xp.asarray(skewed)), xp.asarray(optimum)).relative_gap > 1e-6


def test_an_unpenalised_weight_with_a_gradient_proves_nothing(xp):
    layer = normal_layer(10, 12, 4, 2)
    certificate = certify(layer.problem(xp), L1(0.0), xp.asarray(np.zeros((2, 4))))
    assert certificate.bound == pytest.approx(0.0, abs=1e-10) and certificate.relative_gap == pytest.approx(1)
    assert certify(layer.problem(xp), L1(0.0), xp.asarray(layer.weight)).measure == 0


def test_judged_in_float64_whatever_the_problem(xp):
    layer, optimum = planted_lasso(11, 8, 2, 0.3)
    single, double = (layer.problem(xp, dtype) for dtype in ("float32", "float64"))
    point = optimum.astype(np.float32)
    rough = certify(single, L1(0.3), xp.asarray(point))
    exact = certify(single.double, L1(0.3), xp.asarray(point.astype(float)))
    assert rough == exact
    assert certify(double, L1(0.3), xp.asarray(point)).objective == pytest.approx(
        lasso_objective(layer.inputs, layer.outputs, 0.3, point.astype(float)), rel=1e-12
    )


@given(layer=layers(scales=(1.0,)), data=st.data())
def test_support_certificate(xp, layer: Layer, data):
    """At least squares on the support the residual is zero; elsewhere |grad f over the free weights| / |grad f(0)|."""
    rng = np.random.default_rng(data.draw(st.integers(0, 100), label="mask seed"))
    mask = rng.random(layer.weight.shape) < 0.6
    best = np.zeros_like(layer.weight)
    for row, free in enumerate(mask):
        if free.any():
            best[row, free] = np.linalg.lstsq(layer.inputs[:, free], layer.outputs[:, row], rcond=1e-10)[0]
    problem, term = layer.problem(xp), Support(xp.asarray(mask))
    start = np.linalg.norm(layer.outputs.T @ layer.inputs)
    assume(start > 1e-3)
    certificate = certify(problem, term, xp.asarray(best))
    assert certificate.residual <= 1e-11 * max(1.0, layer.magnitude(best) / start)
    assert certificate.violation == 0 and certificate.bound == -np.inf
    assert certificate.objective == pytest.approx(layer.loss(best), abs=1e-12 * layer.magnitude(best))
    elsewhere = np.where(mask, layer.weight + 1.0, 0.0)
    gradient = (layer.inputs @ elsewhere.T - layer.outputs).T @ layer.inputs
    expected = np.linalg.norm(np.where(mask, gradient, 0)) / start
    measured = certify(problem, term, xp.asarray(elsewhere))
    assert measured.measure == measured.residual == pytest.approx(expected, rel=1e-9, abs=1e-11)


def test_support_violation_is_the_largest_weight_outside(xp):
    layer = normal_layer(12, 12, 4, 2)
    mask = np.ones((2, 4), dtype=bool)
    mask[0, 1] = mask[1, 2] = False
    point = np.where(mask, layer.weight, 0.0)
    term = Support(xp.asarray(mask))
    assert certify(layer.problem(xp), term, xp.asarray(point)).violation == 0
    point[0, 1], point[1, 2] = -0.25, 0.125
    assert certify(layer.problem(xp), term, xp.asarray(point)).violation == 0.25


@given(layer=layers(), data=st.data())
def test_relative_error_is_the_ratio_on_the_data(xp, layer: Layer, data):
    point = data.draw(points(layer), label="V")
    assume(layer.energy > 1e-3 * layer.magnitude(0 * point))
    expected = layer.loss(point) / layer.energy
    slack = 1e-12 * layer.magnitude(point) / layer.energy
    for term in (L1(0.1), Support(xp.asarray(np.ones(point.shape, dtype=bool)))):
        certificate = certify(layer.problem(xp), term, xp.asarray(point))
        assert certificate.relative_error == pytest.approx(expected, rel=1e-9, abs=slack)


def test_a_residual_beside_no_gradient_at_zero(xp):
    every = Support(xp.asarray(np.ones((1, 3), dtype=bool)))
    nothing_came_in = Quadratic(xp.asarray(np.zeros((3, 3))), xp.asarray(np.ones((1, 3))))
    assert certify(nothing_came_in, every, xp.asarray(np.full((1, 3), 2.0))).residual == 0.0
    nothing_goes_out = Quadratic(xp.asarray(np.eye(3)), xp.asarray(np.zeros((1, 3))))
    assert certify(nothing_goes_out, every, xp.asarray(np.zeros((1, 3)))).residual == 0.0
    assert certify(nothing_goes_out, every, xp.asarray(np.ones((1, 3)))).residual == np.inf
