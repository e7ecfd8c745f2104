"""Rows of prescribed sums: the simplex, and rows of any sign."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rounding import rounding

from gramian.proofs.kit.strategies import Layer
from gramian.solvers import FISTA, Affine, RowSum, Simplex, Status, affine_least_squares, solve

ROWS, COLUMNS = 3, 5
RNG = np.random.default_rng(0)
X, W = RNG.normal(size=(30, COLUMNS)), RNG.normal(size=(ROWS, COLUMNS))
values = st.one_of(st.integers(-3, 3).map(float), st.floats(-4, 4, allow_subnormal=False))
matrices = arrays(float, (ROWS, COLUMNS), elements=values)
channels = arrays(float, COLUMNS, elements=st.sampled_from([0.5, 1.0, 2.0]))
units = st.sampled_from([1.0, 1e-6, 1e6])


@given(matrix=matrices, prices=channels, steps=channels, total=st.sampled_from([0.0, 0.5, 3.0]), unit=units)
def test_projection_on_a_simplex(xp, matrix, prices, steps, total, unit):
    """V = max(U - t d a, 0) for some t, and sums to r: the conditions of Karush, Kuhn and Tucker, in the metric 1 / d."""
    total, matrix = total * unit, matrix * unit
    found = xp.numpy(Simplex(total, xp.asarray(prices)).prox(xp.asarray(matrix), xp.asarray(steps)))
    size = float(np.max(np.abs(matrix))) + total
    slack = rounding(4 * COLUMNS + 16, 16 * size)  # prices and steps are within a factor of 4
    assert np.all(found >= 0)
    np.testing.assert_allclose(found @ prices, total, rtol=rounding(COLUMNS + 4, 1.0))
    multiplier = (matrix - found) / (prices * steps)
    for row in range(ROWS):
        kept = found[row] > 0
        level = np.max(multiplier[row][kept]) if kept.any() else np.max(multiplier[row])
        assert np.all(np.abs(multiplier[row][kept] - level) <= 4 * slack)
        assert np.all(multiplier[row] <= level + 4 * slack)


@given(matrix=matrices, prices=channels, steps=channels, total=st.sampled_from([0.0, -0.5, 3.0]), unit=units)
def test_projection_on_a_sum(xp, matrix, prices, steps, total, unit):
    total, matrix = total * unit, matrix * unit
    term = RowSum(total, xp.asarray(prices))
    found = xp.numpy(term.prox(xp.asarray(matrix), xp.asarray(steps)))
    assert term.violation(xp.asarray(found)) == 0
    multiplier = (matrix - found) / (prices * steps)
    slack = rounding(4 * COLUMNS + 16, 64 * (float(np.max(np.abs(matrix))) + abs(total)))
    assert np.all(np.ptp(multiplier, axis=1) <= slack)


def test_a_sum_far_from_the_weights(xp):
    """The sum is met to its own rounding and not to that of weights a million times as large."""
    for term in (Simplex(1.0), RowSum(1.0)):
        point = term.prox(xp.asarray(1e6 * W), 1.0)
        assert term.violation(point) == 0
        assert np.sum(xp.numpy(term.prox(xp.asarray(1e6 + 0 * W), 1.0)), axis=1) == pytest.approx(1.0, rel=1e-14)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_solved_in_any_metric(xp, scaled, dtype):
    """RowSum beside the direct solution; the simplex beside itself with a total for each row."""
    problem = Layer(X * np.logspace(0, -1, COLUMNS), W).problem(xp, dtype)
    totals, tol = np.array([1.0, 0.5, 2.0]), 1e-8 if dtype == "float64" else 2e-5
    found = solve(problem, RowSum(xp.asarray(totals)), FISTA(scaled=scaled), tol=tol)
    assert found.status is Status.CONVERGED
    direct = affine_least_squares(problem, xp.asarray(np.ones((1, COLUMNS)), dtype), xp.asarray(totals[:, None], dtype))
    assert found.certificate.objective == pytest.approx(direct.certificate.objective, rel=1e-6)
    found = solve(problem, Simplex(xp.asarray(totals)), FISTA(scaled=scaled), tol=1e-6)
    assert found.status is Status.CONVERGED and found.certificate.bound > 0


def test_a_sum_is_an_affine_set(xp):
    one, other = RowSum(2.0), Affine(xp.asarray(np.ones((1, COLUMNS))), xp.asarray(np.full((ROWS, 1), 2.0)))
    for name in ("prox", "tangent"):
        arguments = (xp.asarray(W), 1.0) if name == "prox" else (xp.asarray(W),)
        mine, theirs = (xp.numpy(getattr(term, name)(*arguments)) for term in (one, other))
        np.testing.assert_allclose(mine, theirs, atol=1e-13)


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_totals_of_a_simplex_are_not_negative(xp, bad):
    for total in (bad, xp.asarray(np.array([1.0, bad]))):
        with pytest.raises(ValueError, match="at least zero"):
            Simplex(total)


def test_shapes_and_prices_that_do_not_fit(xp):
    for kind in (Simplex, RowSum):
        with pytest.raises(ValueError, match="one for each row"):
            kind(xp.asarray(np.ones((2, 3))))
        for prices in (np.ones((1, 3)), np.array([1.0, 0.0]), np.array([1.0, np.nan])):
            with pytest.raises(ValueError, match="prices must be"):
                kind(1.0, xp.asarray(prices))
