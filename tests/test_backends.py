"""What the array API standard lacks, on every backend: the same answers, and failure told in the same way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from gramian.solvers import _xp
from gramian.solvers.exchange import best_shifts, ranked


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kth_largest_with_ties(xp, dtype):
    array = np.random.default_rng(0).integers(0, 5, (3, 4, 7)).astype(dtype)
    for k in (1, 2, 6, 7):
        found = _xp.kth_largest(xp.asarray(array), k)
        assert found.dtype == xp.dtype(dtype)
        np.testing.assert_array_equal(xp.numpy(found), np.sort(array, axis=-1)[..., ::-1][..., k - 1 : k])


def test_cholesky_says_whether_there_is_a_factor(xp):
    root = np.random.default_rng(1).normal(size=(9, 5))
    positive = root.T @ root
    factor, exists = _xp.cholesky(xp.asarray(positive))
    assert exists is True
    np.testing.assert_allclose(xp.numpy(factor) @ xp.numpy(factor).T, positive, atol=1e-12)
    np.testing.assert_array_equal(np.triu(xp.numpy(factor), 1), 0.0)
    for broken in (positive - 20 * np.eye(5), np.zeros((5, 5)), np.diag([1.0, 1.0, -1e-9, 1.0, 1.0])):
        assert _xp.cholesky(xp.asarray(broken))[1] is False


@pytest.mark.parametrize("upper", [True, False])
def test_triangular_solves_look_at_one_half(xp, upper):
    rng = np.random.default_rng(2)
    full = rng.normal(size=(6, 6)) + 4 * np.eye(6)
    factor, right = (np.triu(full) if upper else np.tril(full)), rng.normal(size=(6, 3))
    found = _xp.solve_triangular(xp.asarray(factor), xp.asarray(right), upper=upper)
    np.testing.assert_allclose(xp.numpy(found), np.linalg.solve(factor, right), atol=1e-12)


def test_as_floating(xp):
    whole, single = xp.asarray(np.arange(3)), xp.asarray(np.arange(3), "float32")
    assert _xp.as_floating(whole).dtype == xp.dtype("float64")
    assert _xp.as_floating(single) is single
    assert _xp.as_floating(whole, like=single).dtype == _xp.as_floating(single, like=single).dtype == xp.dtype("float32")
    assert _xp.as_floating(single, like=xp.asarray(np.ones(1))).dtype == xp.dtype("float64")


def test_constants_and_copies(xp):
    constant = _xp.full((2, 3), 1.5, xp.asarray(np.ones(4), "float32"))
    assert constant.dtype == xp.dtype("float32")
    np.testing.assert_array_equal(_xp.to_numpy(constant), np.full((2, 3), 1.5))
    assert isinstance(_xp.to_numpy(constant), np.ndarray)


def test_backends_do_not_mix(xp):
    assert _xp.namespace(None, xp.asarray(np.ones(2)), None) is _xp.namespace(xp.asarray(np.zeros(1)))
    other = torch.ones(2) if xp.name == "numpy" else np.ones(2)
    with pytest.raises(TypeError):
        _xp.namespace(xp.asarray(np.ones(2)), other)


def test_solving_restores_the_threads_of_the_blas_libraries():
    matrices = np.stack([np.eye(3) * k for k in (1.0, 2.0)])
    _xp.solve_positive(matrices.copy(), np.ones((2, 3, 1)))  # from here on all libraries are loaded
    with threadpool_limits(2, user_api="blas"):
        before = {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}
        assert 2 in before.values()
        found, positive = _xp.solve_positive(matrices.copy(), np.ones((2, 3, 1)))
        assert {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()} == before
    np.testing.assert_allclose(found[:, :, 0], [[1.0] * 3, [0.5] * 3])
    assert positive.all()


def test_ranks_are_of_the_row(xp):
    score = np.array([[3.0, 1.0, 2.0, 1.0], [0.0, 5.0, -1.0, 9.0]])
    np.testing.assert_array_equal(xp.numpy(ranked(xp.asarray(score))), [[3, 0, 2, 1], [1, 2, 0, 3]])


def test_shifts_use_every_row_once():
    """Rows 0 and 1 give at a cost of 1 and 2, rows 2 and 3 take at a gain of 9 and 8: two shifts, of disjoint rows."""
    worth = np.array([[1.0, 0.1], [2.0, 0.1], [50.0, 9.0], [50.0, 8.0]])
    mask = np.array([[True, False]] * 4)
    assert best_shifts(worth, mask, np.zeros(4)) == [(0, 0, 2, 1), (1, 0, 3, 1)]
    assert best_shifts(worth, mask, np.full(4, 4.0)) == []
