"""What iterations do beside their product, against its formulas written out number by number."""

from __future__ import annotations

import numpy as np
import pytest
from rounding import rounding

from gramian.proofs.kit.strategies import normal_layer
from gramian.solvers import FISTA, L1, Quadratic, Support
from gramian.solvers.l1.costs import Costs
from gramian.solvers.l1.fused import proximal_step, reflected, relaxed
from gramian.solvers.l1.splitting import RELAXATION, inverses, split


def by_hand(ahead, gradient, before, momentum, step, weight, restart):
    """x, y and t of every row and channel, one at a time, in float64."""
    rows, width = ahead.shape
    step, weight = np.broadcast_to(step, (width,)), np.broadcast_to(weight, (rows, width))
    point, beyond, following = np.zeros((rows, width)), np.zeros((rows, width)), np.zeros((rows, 1))
    for i in range(rows):
        for j in range(width):
            moved = ahead[i, j] - step[j] * gradient[i, j]
            point[i, j] = np.sign(moved) * max(abs(moved) - step[j] * weight[i, j], 0.0)
        uphill = sum((ahead[i, j] - point[i, j]) / step[j] * (point[i, j] - before[i, j]) for j in range(width)) > 0
        grown = (1 + np.sqrt(1 + 4 * momentum[i, 0] ** 2)) / 2
        anew = restart and uphill
        following[i, 0] = 1.0 if anew else grown
        inertia = 0.0 if anew else (momentum[i, 0] - 1) / grown
        beyond[i] = point[i] + inertia * (point[i] - before[i])
    return point, beyond, following


def slack(dtype: str) -> float:
    """Of `numbers`, |x| <= 2 + 2 * 2 and |x - before| <= 8; y and t are fewer than 8 roundings of sums no larger than 14."""
    return rounding(8, 14.0, dtype)


def numbers(rows: int, width: int, dtype: str) -> tuple[np.ndarray, ...]:
    """ahead, gradient, before, momentum, step per channel and weight per entry: quarters, so that sums are exact, with ties
    at the threshold among them."""
    rng = np.random.default_rng(rows * width)
    ahead, gradient, before = (rng.integers(-8, 9, (rows, width)) / 4 for _ in range(3))
    momentum = 1 + rng.integers(0, 9, (rows, 1)) / 4
    step, weight = 2.0 ** rng.integers(-2, 2, width), rng.integers(0, 5, (rows, width)) / 4
    return tuple(array.astype(dtype) for array in (ahead, gradient, before, momentum, step, weight))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (6, 1), (5, 37), (3, 600)])
@pytest.mark.parametrize("restart", [True, False])
def test_a_proximal_step_is_its_formulas(xp, shape, dtype, restart):
    ahead, gradient, before, momentum, steps, weights = numbers(*shape, dtype)
    given = [xp.asarray(array) for array in (ahead, gradient, before, momentum)]
    restarts = set()
    for step in (0.5, steps):
        for weight in (0.5, weights[:, :1], weights[:1, :], weights, np.zeros((1, 1), dtype)):
            term = L1(weight if isinstance(weight, float) else xp.asarray(weight))
            expected = by_hand(*(array.astype(float) for array in (ahead, gradient, before, momentum)), step, weight, restart)
            found = proximal_step(term, *given, step if isinstance(step, float) else xp.asarray(step), restart=restart)
            assert all(array.dtype == xp.dtype(dtype) for array in found)
            np.testing.assert_array_equal(xp.numpy(found[0]), expected[0])
            for one, other in zip(found[1:], expected[1:]):
                np.testing.assert_allclose(xp.numpy(one), other, rtol=0, atol=slack(dtype))
            restarts |= set(xp.numpy(found[2])[:, 0] == 1)
    if restart and shape[0] > 1:
        assert restarts == {True, False}
    for array, original in zip(given, (ahead, gradient, before, momentum)):  # nothing of what comes in is written to
        np.testing.assert_array_equal(xp.numpy(array), original)


def test_a_tie_at_the_threshold_is_zero_and_nan_is_seen(xp):
    one = np.ones((1, 4))
    ahead = xp.asarray(np.array([[0.5, -0.5, 0.5000001, np.nan]]))
    point, _, _ = proximal_step(
        L1(1.0), ahead, xp.asarray(0 * one), xp.asarray(0 * one), xp.asarray(one[:, :1]), 0.5, restart=True
    )
    np.testing.assert_array_equal(xp.numpy(point)[0, :2], 0.0)
    assert xp.numpy(point)[0, 2] > 0 and np.isnan(xp.numpy(point)[0, 3])


def test_arrays_in_another_order_of_memory(xp):
    ahead, gradient, before, momentum, steps, weights = numbers(4, 9, "float64")
    expected = by_hand(ahead, gradient, before, momentum, steps, weights, True)
    turned = [xp.asarray(np.ascontiguousarray(array.T)).T for array in (ahead, gradient, before)]
    term = L1(xp.asarray(np.ascontiguousarray(weights.T)).T)
    found = proximal_step(term, *turned, xp.asarray(momentum), xp.asarray(np.repeat(steps, 2))[::2], restart=True)
    for one, other in zip(found, expected):
        np.testing.assert_allclose(xp.numpy(one), other, rtol=0, atol=slack("float64"))


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("restart", [False, True])
def test_fista_is_these_steps(xp, scaled, restart):
    """60 steps beside the recursion in numpy; a term without a kernel takes the same momentum."""
    layer, weight = normal_layer(6, 30, 8, 3, condition=20.0), 0.4
    problem, solver = layer.problem(xp), FISTA(restart=restart, scaled=scaled)
    reference = Quadratic.from_data(layer.inputs, layer.weight)
    step = 1 / (reference.unit_lipschitz if scaled else reference.lipschitz)
    steps = step / reference.unit_scale**2 if scaled else np.full(8, step)
    state = solver.init(problem, L1(weight), problem.anchor)
    point, ahead, momentum = layer.weight, layer.weight, np.ones((3, 1))
    for _ in range(60):
        state = solver.step(problem, L1(weight), state)
        point, ahead, momentum = by_hand(ahead, reference.gradient(ahead), point, momentum, steps, weight, restart)
    np.testing.assert_allclose(xp.numpy(state.point), point, rtol=1e-8, atol=1e-10)
    everywhere = Support(xp.asarray(np.ones((3, 8), dtype=bool)))
    with_support = solver.step(problem, everywhere, solver.init(problem, everywhere, problem.anchor))
    free = solver.step(problem, L1(0.0), solver.init(problem, L1(0.0), problem.anchor))
    np.testing.assert_allclose(xp.numpy(with_support.ahead), xp.numpy(free.ahead), atol=1e-12)


def test_halves_of_a_splitting_step(xp):
    ahead = np.array([[-3.0, -0.5, 0.0, 0.5, 2.0]], "float32")
    limit = np.full_like(ahead, 0.5)
    dual, difference = reflected(*map(xp.asarray, (ahead, -limit, limit)))
    np.testing.assert_array_equal(xp.numpy(dual), [[-0.5, -0.5, 0, 0.5, 0.5]])
    np.testing.assert_array_equal(xp.numpy(difference), [[-2, 0.5, 0, -0.5, 1]])
    found = relaxed(difference, dual, xp.asarray(ahead), 0.25)
    assert found.dtype == xp.dtype("float32")
    np.testing.assert_array_equal(xp.numpy(found), [[-5.125, -0.125, 0, 0.125, 3.125]])


def test_splitting_is_these_halves(xp):
    """H <- (Z - U) M + (2 - a) U + pull, and the state that it starts from is left as it was."""
    problem, scale = normal_layer(7, 20, 6, 3, drift=0.3).problem(xp).rescaled()
    costs = Costs(0.7 / scale + 0 * problem.anchor)
    state = split(problem, costs, problem.anchor, problem.gradient(problem.anchor), 0.5, inverses(problem.gram))
    begun = xp.numpy(state.ahead).copy()
    limit, ahead = xp.numpy(state.costs.limit) / state.penalty, begun.astype(float)
    matrix, pull = (xp.numpy(array).astype(float) for array in (state.inverse, state.pull))
    for _ in range(10):
        dual = np.clip(ahead, -limit, limit)
        ahead = (ahead - 2 * dual) @ matrix + (2 - RELAXATION) * dual + pull
    np.testing.assert_allclose(xp.numpy(state.advanced(10).ahead), ahead, atol=1e-5)
    np.testing.assert_array_equal(xp.numpy(state.ahead), begun)
