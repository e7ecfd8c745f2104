"""What `lasso` does before it searches: rows that are nearly solved are finished exactly, others are left."""

from __future__ import annotations

import numpy as np
import pytest

from gramian.proofs.kit.strategies import normal_layer
from gramian.solvers import L1, ElasticNet, NonNegative, lasso


@pytest.mark.parametrize("kind", [L1, NonNegative, lambda price: ElasticNet(price, 0.1 * price)])
def test_from_a_point_nearby_no_step_of_admm_is_needed(xp, kind):
    """And no inverse: what comes out is what comes out from afar."""
    layer = normal_layer(1, 60, 12, 3, condition=5.0)
    problem, price = layer.problem(xp), 0.1 * layer.largest
    before = lasso(problem, kind(price), tol=1e-10)
    near = lasso(problem, kind(0.99 * price), start=before.weights, tol=1e-10)
    far = lasso(problem, kind(0.99 * price), tol=1e-10)
    assert near.steps == 0 < far.steps and near.detail["solves"] >= 1
    np.testing.assert_allclose(xp.numpy(near.weights), xp.numpy(far.weights), atol=1e-9)
    assert near.certificate.relative_gap <= 1e-10


def test_rows_that_are_far_off_are_searched(xp):
    """One row starts at its optimum, one next to it, one at zero, where all channels want to enter."""
    layer = normal_layer(2, 80, 40, 3, condition=5.0)
    problem, price = layer.problem(xp), 1e-3 * layer.largest
    optimum = xp.numpy(lasso(problem, L1(price), tol=1e-12).weights)
    start = optimum * np.array([[1.0], [1.001], [0.0]])
    solution = lasso(problem, L1(price), start=xp.asarray(start), tol=1e-10)
    assert solution.steps > 0
    np.testing.assert_array_equal(xp.numpy(solution.weights)[0], optimum[0])
    np.testing.assert_allclose(xp.numpy(solution.weights), optimum, atol=1e-8)
