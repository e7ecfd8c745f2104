"""Groups of channels, kept or removed together, and the polar of the sparse group norm."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gramian.proofs.kit.strategies import Layer, groups
from gramian.solvers import FISTA, L1, GroupL2, Nuclear, SparseGroup, solve

ROWS, COLUMNS = 3, 6
RNG = np.random.default_rng(0)
X, W = RNG.normal(size=(30, COLUMNS)), RNG.normal(size=(ROWS, COLUMNS))
values = st.one_of(st.integers(-3, 3).map(float), st.floats(-4, 4, allow_subnormal=False))
matrices = arrays(float, (ROWS, COLUMNS), elements=values)


def largest_root(size: np.ndarray, l1: float, weight: float) -> float:
    """nu with |max(u - nu lambda, 0)|_2 = nu mu, by bisection."""
    low, high = 0.0, 1e9
    for _ in range(200):
        middle = 0.5 * (low + high)
        if np.linalg.norm(np.maximum(size - middle * l1, 0)) > middle * weight:
            low = middle
        else:
            high = middle
    return high


@given(
    matrix=matrices,
    labels=groups(COLUMNS),
    l1=st.sampled_from([1.0, 0.0, 1e-6, 3.0]),
    weight=st.sampled_from([1.0, 1e-9, 0.25, 1e3]),
    unit=st.sampled_from([1.0, 1e-6, 1e6]),
)
def test_the_polar_of_a_sparse_group_norm_is_a_root(xp, matrix, labels, l1, weight, unit):
    """It is the root to rounding, and never below it: a gradient would be taken for one that is small enough."""
    found = xp.numpy(SparseGroup(labels, l1, weight).polar(xp.asarray(matrix * unit)))
    for row in range(ROWS):
        roots = [largest_root(np.abs(matrix[row, labels == g] * unit), l1, weight) for g in range(labels.max() + 1)]
        if max(roots) < 1e8:  # which is where bisection stops
            assert found[row] == pytest.approx(max(roots), rel=1e-12, abs=1e-50)
            assert found[row] >= max(roots) * (1 - 1e-15) - 1e-50


@pytest.mark.parametrize("width", [40, 300])
def test_the_polar_of_wide_groups(xp, width):
    """Sizes that fall geometrically, where Newton's method takes the most steps."""
    gradient = np.sort(0.8 ** np.arange(width))[None, :]
    for weight in (1.0, 1e-3, 1e-8):
        found = float(xp.numpy(SparseGroup(np.zeros(width, int), 1.0, weight).polar(xp.asarray(gradient)))[0])
        assert found == pytest.approx(largest_root(gradient[0], 1.0, weight), rel=1e-11)


def test_groups_of_one_are_an_l1_norm(xp):
    point, labels = xp.asarray(W), np.arange(COLUMNS)
    one = L1(1.5)
    for term in (GroupL2(labels, 1.5), SparseGroup(labels, 1.0, 0.5), SparseGroup(labels, 1.5, 0.0)):
        for name, arguments in (("value", ()), ("polar", ()), ("prox", (0.5,))):
            mine, theirs = (xp.numpy(getattr(each, name)(point, *arguments)) for each in (term, one))
            np.testing.assert_allclose(mine, theirs, rtol=1e-13, atol=1e-15)


def test_groups_vanish_together(xp):
    labels = [0, 0, 1, 1, 2, 2]
    found = solve(Layer(X, W).problem(xp), GroupL2(labels, 25.0), FISTA(), tol=1e-9)
    zeros = np.reshape(xp.numpy(found.weights) == 0, (ROWS, 3, 2))
    assert np.all(zeros[:, :, 0] == zeros[:, :, 1]) and zeros.any() and not zeros.all()


@pytest.mark.parametrize("term", [GroupL2([0, 1, 1], 1.0), SparseGroup([0, 1, 1], 1.0, 1.0), Nuclear(1.0)])
def test_a_step_per_channel_is_refused_before_any_work(xp, term):
    problem = Layer(X[:, :3], W[:, :3]).problem(xp)
    with pytest.raises(TypeError, match=rf"scaled=True\) takes a step per channel but {type(term).__name__}"):
        solve(problem, term, FISTA(scaled=True))
    with pytest.raises(ValueError, match="one step only"):
        term.prox(problem.anchor, problem.unit_scale)
    with pytest.raises(ValueError, match="other coordinates"):
        term.rescaled(problem.unit_scale)


def test_groups_that_are_none(xp):
    for labels in ([0, 2], [1, 2], [0.0, 1.0], [[0, 1]], []):
        with pytest.raises(ValueError, match="groups"):
            GroupL2(labels, 1.0)
    with pytest.raises(ValueError, match="there are 2 groups but 3 weights"):
        SparseGroup([0, 1], 1.0, xp.asarray(np.ones(3)))
    with pytest.raises(ValueError, match="the groups are of 2 channels but the weights have 6"):
        GroupL2([0, 1], 1.0).value(xp.asarray(W))
    with pytest.raises(ValueError, match="one number"):
        SparseGroup([0, 1], np.ones(2), 1.0)
