"""Exact LASSO solves on their own, without ADMM: never uphill, and patient ones always arrive."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from rounding import rounding, rounding_of_loss

from gramian.proofs.kit.references import exact_lasso, lasso_objective
from gramian.proofs.kit.strategies import Layer, fractions, layers, normal_layer
from gramian.solvers import Quadratic
from gramian.solvers.l1.costs import Costs
from gramian.solvers.l1.signs import evaluated, finished


def scaled(xp: Any, layer: Layer, weight: float) -> tuple[Quadratic, Costs, np.ndarray]:
    """Problem and costs in unit-diagonal coordinates, where exact solves live, and the scale of those."""
    problem, scale = layer.problem(xp).rescaled()
    weights = np.broadcast_to(weight / xp.numpy(scale), layer.weight.shape).copy()
    return problem, Costs(xp.asarray(weights)), xp.numpy(scale)


PARALLEL = Layer(np.array([[2.0, -2, -3, -1]]), np.array([[-1.0, 2, 0, -3], [-1, 1, 2, 2]]))
DEAD = Layer(np.array([[1.76e-6, 2.25e-8, 0]]), np.array([[-0.44, -1.08, 0.56], [0.79, 2.44, 0.41]]))


@given(layer=layers(inputs=4), fraction=fractions, seed=st.integers(0, 1000))
@example(layer=PARALLEL, fraction=1e-3, seed=0)
@example(layer=DEAD, fraction=0.9, seed=0)
@settings(max_examples=40)
def test_the_patient_way_ends_at_the_optimum(xp, layer: Layer, fraction, seed):
    """From anywhere, and never uphill."""
    assume(layer.largest > 1e-9 * np.sum(layer.inputs**2) * np.max(np.abs(layer.weight)))
    weight = fraction * layer.largest
    problem, costs, scale = scaled(xp, layer, weight)
    rng = np.random.default_rng(seed)
    start = rng.normal(size=layer.weight.shape) * (rng.random(layer.weight.shape) < 0.5)
    points = evaluated(problem, costs, xp.asarray(start * scale))
    heights = [points.objective.copy()]
    for rounds, patient in ((2, False), (60, True)):
        points, done, solves = finished(problem, costs, points, 1e-9, rounds, patient=patient)
        heights.append(points.objective.copy())
        assert solves <= rounds * done.size
    point = xp.numpy(points.weights) / scale
    slack = 1e-12 * (layer.magnitude(start) + layer.magnitude(point))
    assert np.all(done) and np.all(np.diff(heights, axis=0) <= slack)
    _, least = exact_lasso(layer.inputs, layer.outputs, weight)
    reached = lasso_objective(layer.inputs, layer.outputs, weight, point)
    assert reached - least <= 1e-9 * reached + slack


def few_tokens() -> Layer:
    rng = np.random.default_rng(48)
    return Layer(rng.normal(size=(10, 24)), rng.normal(size=(4, 24)))


def test_patience_is_needed(xp):
    """Where many signs are wrong an impatient row stops early, as it should while ADMM goes on; a patient one arrives."""
    layer = few_tokens()
    problem, costs, _ = scaled(xp, layer, 1e-3 * layer.largest)
    hasty, done, solves = finished(problem, costs, evaluated(problem, costs, problem.anchor * 1.0), 1e-9, 300)
    assert not np.any(done) and solves < 100
    _, done, _ = finished(problem, costs, hasty, 1e-9, 300, patient=True)
    assert np.all(done)


@pytest.mark.parametrize("patient", [False, True])
def test_no_solve_goes_uphill(xp, patient):
    """Solve by solve, from points on whose supports the next solution is often worse."""
    layer = few_tokens()
    weight, rejected = 0.05 * layer.largest, 0
    problem, costs, scale = scaled(xp, layer, weight)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        start = rng.normal(size=(4, 24)) * (rng.random((4, 24)) < 0.3) * scale
        points = evaluated(problem, costs, xp.asarray(start))
        for _ in range(4):
            before = points.rows(np.arange(4))
            points, _, _ = finished(problem, costs, points, 1e-12, 1, patient=patient)
            point = xp.numpy(points.weights) / scale
            slack = rounding_of_loss(layer, point) + rounding(24 + 8, weight * np.sum(np.abs(point)))
            assert np.all(points.objective <= before.objective + slack) and slack < 1e-9 * np.min(before.objective)
            same = np.all(xp.numpy(points.weights) == xp.numpy(before.weights), axis=1)
            rejected += int(np.sum(same))
            again = evaluated(problem, costs, points.weights)
            np.testing.assert_allclose(points.objective, again.objective, rtol=0, atol=slack)
            np.testing.assert_allclose(xp.numpy(points.gradient), xp.numpy(again.gradient), atol=1e-9)
    assert rejected > 0  # or the safeguard was never needed


def test_a_weight_without_a_penalty_has_no_sign(xp):
    """Least squares takes one solve a row, though every sign turns on the way."""
    layer = normal_layer(51, 30, 8, 3, drift=0.5)
    problem, costs, scale = scaled(xp, layer, 0.0)
    points, done, solves = finished(problem, costs, evaluated(problem, costs, -problem.anchor), 1e-9, 4)
    assert np.all(done) and solves == 3
    expected = np.linalg.lstsq(layer.inputs, layer.outputs, rcond=None)[0].T
    assert np.any(np.sign(expected) == np.sign(layer.weight))
    np.testing.assert_allclose(xp.numpy(points.weights) / scale, expected, atol=1e-10)


def test_what_is_settled_costs_nothing(xp):
    layer = normal_layer(52, 30, 8, 3)
    problem, costs, _ = scaled(xp, layer, 2 * layer.largest)
    points, done, solves = finished(problem, costs, evaluated(problem, costs, problem.anchor * 0.0), 1e-9, 4)
    assert np.all(done) and solves == 0 and points.measure == 0
