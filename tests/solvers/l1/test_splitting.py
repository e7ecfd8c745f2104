"""ADMM for the LASSO: its step as defined, its fixed point, and what may change on the way without moving it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gramian.proofs.kit.strategies import Layer, normal_layer, planted_lasso
from gramian.solvers import Quadratic
from gramian.solvers.l1.costs import Costs
from gramian.solvers.l1.splitting import RELAXATION, Splitting, balanced, inverses, split


def begun(
    xp: Any, layer: Layer, weight: float, penalty: float, start: np.ndarray | None = None, positive: bool = False
) -> tuple[Quadratic, Splitting]:
    """The problem in unit-diagonal coordinates, where ADMM lives, and its state at `start`, default the dense weights."""
    problem, scale = layer.problem(xp).rescaled()
    point = problem.anchor if start is None else xp.asarray(start) * scale
    costs = Costs(weight / scale + xp.asarray(np.zeros(layer.weight.shape)), positive)
    return problem, split(problem, costs, point, problem.gradient(point), penalty, inverses(problem.gram))


@pytest.mark.parametrize("drift", [0.0, 0.4])
@pytest.mark.parametrize("penalty", [0.5, 0.0625])
@pytest.mark.parametrize("positive", [False, True])
def test_the_step_is_that_of_its_docstring(xp, drift, penalty, positive):
    """V from the normal equations of f + rho/2 |V - Z + U|^2 on the data, H, Z and U as printed."""
    layer, weight = normal_layer(1, 20, 6, 3, condition=5.0, drift=drift), 0.0 if positive else 0.7
    _, state = begun(xp, layer, weight, penalty, positive=positive)
    scale = np.linalg.norm(layer.inputs, axis=0)
    inputs, limit = layer.inputs / scale, weight / scale / penalty
    point, dual = xp.numpy(state.sparse).astype(float), xp.numpy(state.dual).astype(float)
    for _ in range(3):
        right = layer.outputs.T @ inputs + penalty * (point - dual)
        primal = np.linalg.solve(inputs.T @ inputs + penalty * np.eye(6), right.T).T
        ahead = RELAXATION * primal + (1 - RELAXATION) * point + dual
        point = np.maximum(ahead, 0) if positive else np.sign(ahead) * np.maximum(np.abs(ahead) - limit, 0)
        dual = ahead - point
    state = state.advanced(3)
    assert state.ahead.dtype == xp.dtype("float32")
    np.testing.assert_allclose(xp.numpy(state.sparse), point, atol=2e-5)
    np.testing.assert_allclose(xp.numpy(state.dual), dual, atol=2e-5)


@pytest.mark.parametrize("penalty", [1.0, 2.0**-3, 2.0**-8])
def test_the_optimum_is_its_fixed_point(xp, penalty):
    layer, optimum = planted_lasso(2, 10, 4, 0.5)
    _, state = begun(xp, layer, 0.5, penalty, start=optimum)
    scale = np.linalg.norm(layer.inputs, axis=0)
    np.testing.assert_allclose(xp.numpy(state.sparse), optimum * scale, atol=1e-4)
    later = state.advanced(50)
    np.testing.assert_allclose(xp.numpy(later.sparse), optimum * scale, atol=2e-4)
    np.testing.assert_array_equal(xp.numpy(later.sparse) == 0, optimum == 0)


def test_finds_the_signs_of_the_optimum(xp):
    layer, optimum = planted_lasso(3, 12, 5, 0.5)
    _, state = begun(xp, layer, 0.5, 0.25)
    assert np.any(np.sign(xp.numpy(state.sparse)) != np.sign(optimum))
    state = state.advanced(150)
    np.testing.assert_array_equal(np.sign(xp.numpy(state.sparse)), np.sign(optimum))


def test_another_penalty_keeps_the_point_and_its_multipliers(xp):
    problem, state = begun(xp, normal_layer(4, 20, 6, 3), 0.7, 0.5)
    state = state.advanced(4)
    assert np.any(xp.numpy(state.sparse) == 0) and np.any(xp.numpy(state.sparse) != 0)
    for penalty in (0.25, 4.0, 2.0**-12):
        other = state.penalised(penalty, inverses(problem.gram))
        assert other.penalty == penalty
        np.testing.assert_allclose(xp.numpy(other.sparse), xp.numpy(state.sparse), atol=1e-6 * max(1, 0.5 / penalty))
        np.testing.assert_allclose(xp.numpy(other.dual) * penalty, xp.numpy(state.dual) * 0.5, atol=1e-6)


def test_rows_go_their_own_way(xp):
    """A row runs the same iteration whichever rows run beside it."""
    _, state = begun(xp, normal_layer(5, 20, 6, 4, drift=0.3), 0.7, 0.5)
    chosen = xp.asarray(np.array([3, 1]))
    apart = state.rows(chosen).advanced(20)
    together = state.advanced(20).rows(chosen)
    np.testing.assert_allclose(xp.numpy(apart.ahead), xp.numpy(together.ahead), atol=1e-4)
    assert np.max(np.abs(xp.numpy(state.rows(chosen).ahead) - xp.numpy(apart.ahead))) > 1e-2


def test_balanced_penalties(xp):
    """h(V) / |V|^2 of the median row, to a power of two, in any units; never off the scale."""
    limit, weights = xp.asarray(np.full((3, 2), 0.3)), xp.asarray(np.array([[1.0, 1], [2, -2], [0, 0]]))

    def penalty(limit: Any, weights: Any, halvings: int = 0) -> float:
        return balanced(Costs(limit), weights, limit, halvings=halvings)

    assert penalty(limit, weights) == 0.25  # 0.6 / 2 and 1.2 / 8, in the middle 0.225; the row of zeros says nothing
    assert penalty(limit, weights, halvings=2) == 0.0625
    for unit in (1e-25, 1e25):
        assert penalty(limit * unit, weights * unit) == 0.25
    assert penalty(1e9 * limit, weights) == 1.0 and penalty(1e-9 * limit, weights) == 2.0**-14
    assert penalty(limit, 0 * weights) == penalty(0 * limit, weights) == 1.0


def test_penalties_of_what_costs_nothing(xp):
    """|rho U| / |V| where weights are not negative, whatever they cost: 5 / 40; and never much."""
    weights, multipliers = (xp.asarray(np.array([row])) for row in ([24.0, 32, 0, 0], [0, 0, -3.0, -4]))
    for price in (0.0, 9.0):
        assert balanced(Costs(xp.asarray(np.full((1, 4), price)), True), weights, multipliers) == 0.125
    assert balanced(Costs(0 * weights, True), weights, 100 * multipliers) == 0.25
    assert balanced(Costs(0 * weights, True), weights, 0 * multipliers) == 0.25


def test_inverses_are_shared(xp):
    layer = normal_layer(6, 4, 6, 2)  # a singular Gram
    problem, _ = layer.problem(xp).rescaled()
    inverse = inverses(problem.gram)
    found = inverse(0.125)
    assert inverse(0.125) is found and inverse(0.25) is not found
    damped = xp.numpy(problem.gram) + 0.125 * np.eye(6)
    expected = RELAXATION * 0.125 * np.eye(6) + (1 - RELAXATION) * damped
    np.testing.assert_allclose(xp.numpy(found) @ damped, expected, atol=1e-6)
