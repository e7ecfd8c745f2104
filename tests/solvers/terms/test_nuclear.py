"""The nuclear norm: one certificate of all rows, and closed forms where the Gram is the identity."""

from __future__ import annotations

import numpy as np
import pytest

from gramian.proofs.kit.strategies import Layer
from gramian.solvers import FISTA, Nuclear, Status, certify, solve

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(4, 7), (7, 4), (1, 5), (5, 1)])
def test_the_closed_form_on_an_identity(xp, shape):
    weight = RNG.normal(size=shape)
    left, values, right = np.linalg.svd(weight, full_matrices=False)
    level = float(np.median(values))
    best = (left * np.maximum(values - level, 0)) @ right
    problem = Layer(np.eye(shape[1]), weight).problem(xp)
    certificate = certify(problem, Nuclear(level), xp.asarray(best))
    least = 0.5 * np.sum((best - weight) ** 2) + level * np.sum(np.maximum(values - level, 0))
    assert certificate.objective == pytest.approx(least, rel=1e-12)
    assert abs(certificate.gap) <= 1e-11 * least
    found = solve(problem, Nuclear(level), FISTA(), tol=1e-9)
    assert found.status is Status.CONVERGED and found.certificate.objective == pytest.approx(least, rel=2e-9)


def test_rows_add_up(xp):
    point = RNG.normal(size=(4, 3))
    found = xp.numpy(Nuclear(2.0).value(xp.asarray(point)))
    assert found.shape == (4,) and np.all(found >= 0)
    assert np.sum(found) == pytest.approx(2 * np.sum(np.linalg.svd(point)[1]), rel=1e-13)


def test_above_the_largest_singular_value_nothing_is_left(xp):
    """Zero is the optimum exactly from lambda = sigma_1(grad f(0)) on."""
    layer = Layer(RNG.normal(size=(20, 5)), RNG.normal(size=(3, 5)))
    largest = np.linalg.norm(layer.outputs.T @ layer.inputs, 2)
    zero = xp.asarray(np.zeros((3, 5)))
    assert certify(layer.problem(xp), Nuclear(largest * (1 + 1e-9)), zero).relative_gap <= 1e-12
    assert certify(layer.problem(xp), Nuclear(largest * 0.99), zero).relative_gap > 1e-6


def test_nan_is_broken_and_not_an_error(xp):
    point = np.full((2, 3), np.nan)
    assert np.all(np.isnan(xp.numpy(Nuclear(1.0).prox(xp.asarray(point), 1.0))))


@pytest.mark.parametrize("bad", [-1.0, float("nan"), np.ones(2)])
def test_one_weight_that_is_not_negative(bad):
    with pytest.raises(ValueError, match="nuclear norm must be"):
        Nuclear(bad)
