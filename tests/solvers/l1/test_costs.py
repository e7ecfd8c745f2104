"""What weights cost in `lasso`: gaps that are never wrong, and close at the optimum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from gramian.proofs.kit.references import exact_lasso
from gramian.proofs.kit.strategies import Layer, fractions, layers, normal_layer, points
from gramian.solvers.l1.costs import Costs, Lift


def optimum_of(layer: Layer, price: float, positive: bool) -> np.ndarray:
    """The least objective per row: enumerated, or of scipy where no weight is negative and none costs anything."""
    if not positive:
        point, _ = exact_lasso(layer.inputs, layer.outputs, price)
        return layer.row_losses(point) + price * np.abs(point).sum(axis=1)
    return np.array([0.5 * nnls(layer.inputs, target)[1] ** 2 for target in layer.outputs.T])


@given(case=layers(inputs=4).flatmap(lambda layer: st.tuples(st.just(layer), points(layer))), fraction=fractions)
@pytest.mark.parametrize("positive", [False, True])
@settings(max_examples=40)
def test_gaps_are_never_too_small(xp, positive, case, fraction):
    layer, point = case
    problem, scale = layer.problem(xp).rescaled()
    price = 0.0 if positive else (fraction * layer.largest or 1.0)
    limit = xp.asarray(np.full(layer.weight.shape, price)) / scale
    costs = Costs(limit, positive, Lift.of(problem) if positive else None)
    weights = costs.nearest(xp.asarray(point) * scale)
    losses, gradient = problem.value_and_gradient(weights)
    gaps = xp.numpy(costs.gaps(weights, losses, gradient, costs.value(weights)))
    reached = xp.numpy(losses + costs.value(weights))
    slack = 1e-12 * (layer.magnitude(xp.numpy(weights / scale)) + np.sum(reached))
    assert np.all(reached - gaps <= optimum_of(layer, price, positive) + slack)


def test_a_gap_closes_at_the_optimum(xp):
    layer = normal_layer(1, 40, 8, 3, condition=5.0)
    problem, scale = layer.problem(xp).rescaled()
    best = np.array([nnls(layer.inputs, target)[0] for target in layer.outputs.T])
    costs = Costs(xp.asarray(np.zeros((3, 8))), True, Lift.of(problem))
    for distance, most in ((0.0, 1e-12), (1e-3, 1e-1)):
        weights = xp.asarray(best + distance) * scale
        losses, gradient = problem.value_and_gradient(weights)
        gaps = xp.numpy(costs.gaps(weights, losses, gradient, costs.value(weights)))
        assert np.all(gaps <= most * xp.numpy(losses)) and (distance == 0 or np.all(gaps > 0))


def test_weights_that_must_not_be_negative_cost_infinity(xp):
    limit, weights = xp.asarray(np.array([[1.0, 0.0]] * 2)), xp.asarray(np.array([[2.0, -1e-300], [2.0, 0.0]]))
    assert xp.numpy(Costs(limit, True).value(weights)).tolist() == [np.inf, 2.0]
    assert xp.numpy(Costs(limit).value(weights)).tolist() == [2.0, 2.0]
    assert xp.numpy(Costs(limit, True).nearest(weights)).tolist() == [[2.0, 0.0], [2.0, 0.0]]
    assert xp.numpy(Costs(limit, True).excess(xp.asarray(np.array([[-3.0, 5.0]] * 2)))).tolist() == [[2.0, -5.0]] * 2
    assert xp.numpy(Costs(limit).excess(xp.asarray(np.array([[-3.0, 5.0]] * 2)))).tolist() == [[2.0, 5.0]] * 2


def test_a_lift_rises_everywhere_or_is_none(xp):
    layer = normal_layer(2, 30, 6, 1, condition=30.0, dead=1)
    problem, _ = layer.problem(xp).rescaled()
    found, live = Lift.of(problem), np.any(layer.inputs, axis=0)
    assert found is not None and found.curvature > 0
    assert np.all(xp.numpy(found.slope)[live] > 0.5) and np.all(xp.numpy(found.slope)[~live] == 0)
    opposite = Layer(np.array([[1.0, -2.0], [3.0, -6.0]]), np.ones((1, 2))).problem(xp).rescaled()[0]
    assert Lift.of(opposite) is None  # 2 x_1 + x_2 = 0
