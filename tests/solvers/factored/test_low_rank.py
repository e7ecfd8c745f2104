"""The best matrix of low rank: planted, against numpy by way of X alone, against every direction, and against descent."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gramian.proofs.kit.backends import NUMPY
from gramian.proofs.kit.strategies import Layer, layers, normal_layer
from gramian.solvers import FactoredSolution, Quadratic, Status, low_rank


def by_data(layer: Layer, rank: int) -> tuple[float, np.ndarray]:
    """The least loss of any matrix of a rank and the outputs it has, from X and W: outputs that X* can have are Q Q^T Y with
    Q of X* = Q R; of these the best of low rank are the first singular directions."""
    left, values, _ = np.linalg.svd(layer.inputs, full_matrices=False)
    span = left[:, values > 1e-9 * max(values[0], 1e-300)]
    inside = span @ (span.T @ layer.outputs)
    one, sizes, other = np.linalg.svd(inside, full_matrices=False)
    outputs = (one[:, :rank] * sizes[:rank]) @ other[:rank]
    return 0.5 * float(np.sum((layer.outputs - outputs) ** 2)), outputs


@pytest.mark.parametrize("drift", [0.0, 0.3])
@pytest.mark.parametrize("tokens, dead", [(40, 0), (40, 2), (6, 0), (1, 0)])
@pytest.mark.parametrize("rank", [1, 3, 5, 9])
def test_the_outputs_of_data(xp, drift, tokens, dead, rank):
    """The optimum is that of the outputs, whether channels are dead, tokens few, or inputs pruned."""
    layer = normal_layer(10, tokens, 9, 5, drift=drift, dead=dead)
    least, outputs = by_data(layer, rank)
    solution = low_rank(layer.problem(xp), rank)
    weights = xp.numpy(solution.weights)
    size = 0.5 * float(np.sum(layer.outputs**2))
    assert layer.loss(weights) == pytest.approx(least, rel=1e-9, abs=1e-11 * size)
    np.testing.assert_allclose(layer.inputs @ weights.T, outputs, atol=1e-7 * np.max(np.abs(outputs)))
    assert np.linalg.matrix_rank(weights, tol=1e-9 * np.linalg.norm(weights)) <= rank
    np.testing.assert_array_equal(weights, xp.numpy(solution.left @ solution.right))
    certificate = solution.certificate
    assert solution.status is Status.DIRECT and certificate.residual is None
    assert certificate.bound <= least * (1 + 1e-12) + 1e-300
    assert 0 <= certificate.gap <= 2 * certificate.slack and certificate.slack <= 1e-8 * size


def test_planted(xp):
    """Weights of rank two are their own best approximation of rank two, and lose nothing."""
    rng = np.random.default_rng(11)
    weight, inputs = rng.normal(size=(6, 2)) @ rng.normal(size=(2, 10)), rng.normal(size=(50, 10))
    solution = low_rank(Quadratic.from_data(xp.asarray(inputs), xp.asarray(weight)), 2)
    np.testing.assert_allclose(xp.numpy(solution.weights), weight, atol=1e-12)
    assert isinstance(solution, FactoredSolution) and solution.rank == 2 and solution.parameters == 2 * 16
    assert solution.detail == {"rank": 2.0, "parameters": 32.0}


def test_every_direction_of_two_outputs():
    """With q = 2 a matrix of rank one is u (u^T V*) for a direction u, best for V* in the norm of G: a grid finds no better."""
    layer = normal_layer(12, 30, 5, 2, drift=0.2)
    free = np.linalg.lstsq(layer.inputs, layer.outputs, rcond=None)[0].T
    grid = np.linspace(0, np.pi, 20001)
    losses = [layer.loss(np.outer(u, u @ free)) for u in np.stack([np.cos(grid), np.sin(grid)], axis=1)]
    found = low_rank(layer.problem(NUMPY), 1)
    assert found.certificate.objective <= min(losses) * (1 + 1e-12)
    assert found.certificate.objective == pytest.approx(min(losses), rel=1e-6)


@given(layer=layers(), rank=st.integers(1, 4))
@settings(max_examples=20)
def test_any_layer(xp, layer: Layer, rank):
    """Duplicate, dead and constant channels, and units of 1e-6 and 1e6: never below what outputs can be, nor above it by more
    than rounding; and the bound holds."""
    least, _ = by_data(layer, rank)
    solution = low_rank(layer.problem(xp), rank)
    size = layer.magnitude(xp.numpy(solution.weights)) + layer.magnitude(layer.weight)
    assert abs(layer.loss(xp.numpy(solution.weights)) - least) <= 1e-9 * size
    assert solution.certificate.bound <= least + 1e-13 * size


def test_the_answer_is_the_one_of_least_norm(xp):
    """Of a singular Gram: orthogonal to what no input shows, in coordinates of unit diagonal, and zero at a dead channel."""
    layer = normal_layer(13, 4, 8, 5, dead=1)
    weights = xp.numpy(low_rank(layer.problem(xp), 2).weights)
    scale = np.linalg.norm(layer.inputs, axis=0)
    dead = scale == 0
    assert dead.any() and not weights[:, dead].any()
    _, values, right = np.linalg.svd(layer.inputs[:, ~dead] / scale[~dead], full_matrices=True)
    unseen = right[int(np.sum(values > 1e-9)) :]
    np.testing.assert_allclose((weights[:, ~dead] * scale[~dead]) @ unseen.T, 0, atol=1e-12 * np.max(np.abs(weights * scale)))


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_units(xp, unit):
    """Inputs in other units, each channel in its own: V D^-1 for X D."""
    layer = normal_layer(14, 30, 8, 4)
    units = unit ** np.linspace(0, 1, 8)
    plain = xp.numpy(low_rank(Quadratic.from_data(xp.asarray(layer.inputs), xp.asarray(layer.weight)), 2).weights)
    other = Quadratic.from_data(xp.asarray(layer.inputs * units), xp.asarray(layer.weight / units))
    np.testing.assert_allclose(xp.numpy(low_rank(other, 2).weights) * units, plain, rtol=1e-8, atol=1e-10)


def test_float32(xp):
    """The problem in float32 is solved in float64 and rounded at the end."""
    layer = normal_layer(15, 30, 8, 4)
    problem = layer.problem(xp, "float32")
    solution = low_rank(problem, 2)
    assert solution.weights.dtype == problem.anchor.dtype
    assert solution.certificate.bound <= solution.certificate.objective


def test_nothing_flows_in(xp):
    """A Gram of zeros: V = 0 is as good as anything."""
    problem = Quadratic(xp.asarray(np.zeros((4, 4))), xp.asarray(np.ones((3, 4))))
    solution = low_rank(problem, 2)
    assert not xp.numpy(solution.weights).any() and solution.certificate.objective == 0


def test_no_data_has_it():
    """Of a slope off the range of the Gram nothing is known from below."""
    problem = Quadratic(np.diag([1.0, 0.0]), np.ones((1, 2)), np.array([[0.0, 1.0]]), np.array([1.0]))
    assert low_rank(problem, 1).certificate.bound == -np.inf


@pytest.mark.parametrize("rank", [0, -1, 1.5, True, "2"])
def test_ranks_that_are_none(rank):
    with pytest.raises(ValueError, match="rank must be a whole number of at least 1"):
        low_rank(Quadratic(np.eye(2), np.ones((1, 2))), rank)
