"""Gaps where a term says nothing of some weights: closed, and never better than what is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gramian.proofs.kit.references import cvxpy_lasso, exact_lasso, lasso_objective
from gramian.proofs.kit.strategies import Layer, layers, points
from gramian.solvers import FISTA, L1, Quadratic, Ridge, Status, certify, solve
from gramian.solvers.core.unpenalised import settled

RNG = np.random.default_rng(0)
X, W = RNG.normal(size=(40, 7)), RNG.normal(size=(4, 7))
FREE = np.array([0.0, 0, 1, 1, 1, 1, 1])


@pytest.mark.parametrize("unit", [1.0, 1e-6, 1e6])
@pytest.mark.parametrize("scaled", [False, True])
def test_the_gap_of_a_lasso_with_free_channels_closes(xp, unit, scaled):
    layer, price = Layer(X * unit, W), 15 * FREE * unit**2
    found = solve(layer.problem(xp), L1(xp.asarray(price)), FISTA(scaled=scaled), tol=1e-10)
    assert found.status is Status.CONVERGED
    assert found.certificate.objective == pytest.approx(cvxpy_lasso(X, layer.outputs / unit, 15 * FREE) * unit**2, rel=1e-8)


@pytest.mark.parametrize("case", ["duplicates", "dead", "few tokens", "correlated"])
def test_it_closes_on_singular_blocks(xp, case):
    """Free channels that repeat each other, that are dead, that are more than the tokens."""
    inputs = {
        "duplicates": np.hstack([X[:, :1], X[:, :1], X[:, 2:]]),
        "dead": np.hstack([X[:, :1], 0 * X[:, :1], X[:, 2:]]),
        "few tokens": X[:1],
        "correlated": np.hstack([X[:, :1], X[:, :1] + 1e-3 * X[:, 1:2], X[:, 2:]]),
    }[case]
    layer = Layer(inputs, W, inputs + 0.5 * RNG.normal(size=inputs.shape))
    price = 5 * FREE
    found = solve(
        layer.problem(xp), L1(xp.asarray(price)), FISTA(), start=0 * layer.problem(xp).anchor, tol=1e-8, max_steps=3000
    )
    least = cvxpy_lasso(layer.inputs, layer.outputs, price)
    assert found.certificate.bound <= least * (1 + 1e-8) + 1e-9 * layer.energy
    if case in ("duplicates", "dead"):
        assert found.status is Status.CONVERGED


@given(layer=layers(inputs=4, outputs=2), data=st.data())
def test_no_bound_is_above_the_optimum(xp, layer: Layer, data):
    """Of any point, for any lambda with zeros, on layers of any rank and scale."""
    point = data.draw(points(layer), label="V")
    price = layer.largest * np.array(
        data.draw(st.lists(st.sampled_from([0.0, 0.1, 0.5]), min_size=point.shape[1], max_size=point.shape[1]))
    )
    certificate = certify(layer.problem(xp), L1(xp.asarray(price)), xp.asarray(point))
    _, least = exact_lasso(layer.inputs, layer.outputs, price)
    assert certificate.bound <= least + 1e-10 * (
        layer.magnitude(point) + lasso_objective(layer.inputs, layer.outputs, price, point)
    )


def test_rows_have_their_own_free_weights(xp):
    price = np.where(RNG.random((4, 7)) < 0.4, 0.0, 12.0)
    layer = Layer(X, W)
    found = solve(layer.problem(xp), L1(xp.asarray(price)), FISTA(), tol=1e-10)
    assert found.status is Status.CONVERGED
    assert found.certificate.objective == pytest.approx(cvxpy_lasso(X, layer.outputs, price), rel=1e-8)


def test_settled_weights_are_least_squares(xp):
    free = np.broadcast_to(FREE == 0, W.shape)
    layer = Layer(X, W)
    point = settled(layer.problem(xp), xp.asarray(0 * W), xp.asarray(free.copy()))
    best = np.linalg.lstsq(X[:, :2], layer.outputs, rcond=None)[0].T
    np.testing.assert_allclose(xp.numpy(point)[:, :2], best, rtol=1e-12)
    assert np.all(xp.numpy(point)[:, 2:] == 0)


def test_a_slope_where_nothing_can_be_gained_leaves_the_bound_of_any_loss(xp):
    """A gradient along free channels on which G vanishes has no minimum: no data has it, and no bound but zero is claimed."""
    arrays = [np.diag([1.0, 0.0]), np.array([[1.0, -1.0]]), np.array([[0.0, 1.0]]), np.array([1.0])]
    problem = Quadratic(*map(xp.asarray, arrays), trusted=True)
    for term in (L1(xp.asarray(np.array([1.0, 0.0]))), Ridge(xp.asarray(np.array([1.0, 0.0])))):
        assert certify(problem, term, xp.asarray(np.array([[0.5, -1.0]]))).bound <= 0
