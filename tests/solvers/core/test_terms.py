"""The terms alone: values, proximal maps, polars."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rounding import rounding

from gramian.solvers import L1, Affine, Support

ROWS, COLUMNS = 3, 4
values = st.one_of(st.integers(-3, 3).map(float), st.floats(-4, 4, allow_subnormal=False))
matrices = arrays(float, (ROWS, COLUMNS), elements=values)
steps = st.sampled_from([0.125, 1.0, 3.0])
scales = arrays(float, COLUMNS, elements=st.sampled_from([0.5, 1.0, 4.0]))
constraints = st.integers(1, 3).flatmap(lambda count: arrays(float, (count, COLUMNS), elements=st.integers(-3, 3).map(float)))
shapes = st.sampled_from([(), (1, 1), (ROWS, 1), (1, COLUMNS), (ROWS, COLUMNS)])
weights = shapes.flatmap(lambda shape: arrays(float, shape, elements=st.sampled_from([0.0, 0.25, 1.0, 2.0])))


def l1(xp, weight: np.ndarray) -> L1:
    return L1(float(weight) if weight.ndim == 0 else xp.asarray(weight))


@given(matrix=matrices, weight=weights)
def test_l1_value(xp, matrix, weight):
    expected = np.sum(np.broadcast_to(weight, matrix.shape) * np.abs(matrix), axis=1)
    np.testing.assert_allclose(xp.numpy(l1(xp, weight).value(xp.asarray(matrix))), expected, rtol=rounding(COLUMNS, 1.0))


@given(matrix=matrices, weight=weights, step=steps)
def test_l1_prox_satisfies_its_optimality_condition(xp, matrix, weight, step):
    """v = prox(u) if and only if u - v = t lambda sign(v) where v != 0, |u - v| <= t lambda where v = 0."""
    point = xp.numpy(l1(xp, weight).prox(xp.asarray(matrix), step))
    threshold = step * np.broadcast_to(weight, matrix.shape)
    assert point.shape == matrix.shape
    np.testing.assert_allclose((matrix - point)[point != 0], (threshold * np.sign(point))[point != 0], atol=2e-15)
    assert np.all(np.abs(matrix)[point == 0] <= threshold[point == 0])
    assert np.all(point[np.abs(matrix) <= threshold] == 0)  # exact zeros, the boundary included


@pytest.mark.parametrize("value", [-2.0, -0.75, -0.5, 0.0, 0.1, 0.5, 3.0])
def test_l1_prox_beats_a_grid(xp, value):
    step, weight = 2.0, 0.25
    grid = np.linspace(-4, 4, 8001)
    best = grid[np.argmin(0.5 * (grid - value) ** 2 + step * weight * np.abs(grid))]
    assert float(xp.numpy(L1(weight).prox(xp.asarray([[value]]), step))[0, 0]) == pytest.approx(best, abs=1e-3)


@given(first=matrices, second=matrices, weight=weights, step=steps)
def test_l1_prox_is_odd_and_1_lipschitz(xp, first, second, weight, step):
    term = l1(xp, weight)
    one, two, mirrored = (xp.numpy(term.prox(xp.asarray(matrix), step)) for matrix in (first, second, -first))
    np.testing.assert_array_equal(mirrored, -one)
    assert np.all(np.abs(one - two) <= np.abs(first - second) + 1e-14)
    assert np.all(np.abs(one) <= np.abs(first))


@given(matrix=matrices, weight=weights)
def test_l1_polar_is_the_dual_norm(xp, matrix, weight):
    """h°(g) = max <g, v> over h(v) <= 1, attained at a coordinate vector; infinite if a free weight has a gradient."""
    polar = xp.numpy(l1(xp, weight).polar(xp.asarray(matrix)))
    full = np.broadcast_to(weight, matrix.shape)
    for row in range(ROWS):
        ratios = [0.0]
        for size, price in zip(np.abs(matrix[row]), full[row]):
            ratios.append(size / price if price > 0 else (np.inf if size > 0 else 0.0))
        assert polar[row] == pytest.approx(max(ratios), rel=1e-15)  # weights are powers of two


@given(matrix=matrices, point=matrices, weight=weights)
def test_l1_polar_inequality(xp, matrix, point, weight):
    """<g, v> <= h°(g) h(v)."""
    term = l1(xp, weight)
    polar, value = (xp.numpy(array) for array in (term.polar(xp.asarray(matrix)), term.value(xp.asarray(point))))
    finite = np.isfinite(polar)
    assert np.all(np.sum(matrix * point, axis=1)[finite] <= polar[finite] * value[finite] + 1e-12)


@given(matrix=matrices, weight=weights, scale=scales)
def test_l1_follows_its_problem_to_other_coordinates(xp, matrix, weight, scale):
    moved = l1(xp, weight).rescaled(xp.asarray(scale)).value(xp.asarray(matrix * scale))
    np.testing.assert_allclose(xp.numpy(moved), xp.numpy(l1(xp, weight).value(xp.asarray(matrix))), rtol=1e-14)


@pytest.mark.parametrize("bad", [-1.0, -1e-300, float("nan"), -1])
def test_l1_rejects_a_negative_or_missing_weight(xp, bad):
    with pytest.raises(ValueError, match="at least zero"):
        L1(bad)
    for shape in ((1, 1), (ROWS, 1), (1, COLUMNS), (ROWS, COLUMNS)):
        weight = np.ones(shape)
        weight[-1, -1] = bad
        with pytest.raises(ValueError, match="at least zero"):
            L1(xp.asarray(weight))
    L1(0)
    L1(xp.asarray(np.zeros((ROWS, 1))))


@given(matrix=matrices, mask=arrays(bool, (ROWS, COLUMNS)), step=steps)
def test_support_prox_is_the_projection(xp, matrix, mask, step):
    term = Support(xp.asarray(mask))
    point = xp.numpy(term.prox(xp.asarray(matrix), step))
    np.testing.assert_array_equal(point, np.where(mask, matrix, 0.0))
    np.testing.assert_array_equal(xp.numpy(term.prox(xp.asarray(point), step)), point)
    assert term.rescaled(xp.asarray(np.full(COLUMNS, 2.0))) is term


@given(matrix=matrices, along=constraints, inside=matrices, step=steps)
def test_affine_prox_is_the_projection(xp, matrix, along, inside, step):
    """P = prox(U) if and only if P A^T = D and U - P is in the row space of A, redundant rows or not."""
    values = inside @ along.T
    term = Affine(xp.asarray(along), xp.asarray(values))
    point = xp.numpy(term.prox(xp.asarray(matrix), step))
    np.testing.assert_allclose(point @ along.T, values, atol=1e-11)
    rows = np.linalg.pinv(along, rcond=1e-10) @ along
    np.testing.assert_allclose((matrix - point) @ rows, matrix - point, atol=1e-12)
    np.testing.assert_allclose(xp.numpy(term.prox(xp.asarray(point), step)), point, atol=1e-12)
    assert term.violation(xp.asarray(point)) <= 1e-11
    assert np.linalg.norm(matrix - point) <= np.linalg.norm(matrix - inside) + 1e-12


@given(matrix=matrices, along=constraints, inside=matrices)
def test_affine_tangent_is_the_part_along_the_set(xp, matrix, along, inside):
    """T A^T = 0 and U - T is in the row space of A: a step along T stays in the set, whatever D."""
    term = Affine(xp.asarray(along), xp.asarray(inside @ along.T))
    tangent = xp.numpy(term.tangent(xp.asarray(matrix)))
    np.testing.assert_allclose(tangent @ along.T, 0, atol=1e-11)
    np.testing.assert_allclose((matrix - tangent) @ np.linalg.pinv(along, rcond=1e-10) @ along, matrix - tangent, atol=1e-12)
    assert term.violation(xp.asarray(inside + tangent)) <= 1e-10


@given(matrix=matrices, along=constraints, inside=matrices, scale=scales)
def test_affine_violation_here_and_in_other_coordinates(xp, matrix, along, inside, scale):
    values = inside @ along.T
    term, expected = Affine(xp.asarray(along), xp.asarray(values)), np.max(np.abs(matrix @ along.T - values))
    slack = rounding(COLUMNS + 1, 2 * COLUMNS * 4 * 3)  # |V| <= 4 and |A| <= 3
    assert term.violation(xp.asarray(matrix)) == pytest.approx(expected, abs=slack)
    moved = term.rescaled(xp.asarray(scale))
    assert moved.violation(xp.asarray(matrix * scale)) == pytest.approx(expected, abs=slack)


def test_affine_without_constraints_is_everything(xp):
    term, matrix = Affine(xp.asarray(np.zeros((0, 4))), xp.asarray(np.zeros((3, 0)))), np.arange(12.0).reshape(3, 4)
    for point in (term.prox(xp.asarray(matrix), 1.0), term.tangent(xp.asarray(matrix))):
        np.testing.assert_array_equal(xp.numpy(point), matrix)
    assert term.violation(xp.asarray(matrix)) == 0


@pytest.mark.parametrize("along, values", [((2, 4), (3, 1)), ((4,), (3, 4)), ((2, 4), (2,))])
def test_affine_rejects_shapes_that_do_not_fit(xp, along, values):
    with pytest.raises(ValueError, match=r"needs A \(m, p\) and D \(q, m\) but A is"):
        Affine(xp.asarray(np.ones(along)), xp.asarray(np.ones(values)))


def test_float32_stays_float32(xp):
    matrix = xp.asarray(np.ones((ROWS, COLUMNS)), "float32")
    assert L1(0.5).prox(matrix, 0.5).dtype == xp.dtype("float32")
    assert Support(xp.asarray(np.eye(ROWS, COLUMNS) > 0)).prox(matrix, 1.0).dtype == xp.dtype("float32")
    term = Affine(xp.asarray(np.ones((1, COLUMNS))), xp.asarray(np.ones((ROWS, 1))))
    assert term.prox(matrix, 1.0).dtype == term.tangent(matrix).dtype == xp.dtype("float32")
