"""What the array API standard lacks, on every backend: the same answers, and failure told in the same way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from gramian.solvers import FISTA, L1, Quadratic, TopK, l0_admm, lasso, solve
from gramian.solvers.backend import _cuda, _xp
from gramian.solvers.backend.precision import full_precision
from gramian.solvers.support.exchange import best_shifts, ranked


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


@pytest.mark.parametrize("way", ["together", "one by one", "public functions alone"])
def test_stacks_of_positive_matrices(xp, way, monkeypatch):
    """Every matrix for itself: one that is not positive definite spoils no other. Also a stack of one, and each of the ways
    that cupy has, which must not touch other backends."""
    if way == "one by one":
        monkeypatch.setattr(_cuda, "TOGETHER", 0)
    if way == "public functions alone":
        monkeypatch.setattr(_cuda, "factors", _cuda.factors_in_turn)
    rng = np.random.default_rng(4)
    roots, right = rng.normal(size=(5, 9, 6)), rng.normal(size=(5, 6, 2))
    matrices = np.swapaxes(roots, 1, 2) @ roots
    expected = np.linalg.solve(matrices, right)
    matrices[1] -= 30 * np.eye(6)
    matrices[3, 2, 2] = -1e-9
    for chosen in ([0, 1, 2, 3, 4], [2], [3]):
        found, positive = _xp.solve_positive(xp.asarray(matrices[chosen]), xp.asarray(right[chosen]))
        flags = xp.numpy(positive)
        np.testing.assert_array_equal(flags, [index in (0, 2, 4) for index in chosen])
        np.testing.assert_allclose(xp.numpy(found)[flags], expected[chosen][flags], atol=1e-10)


def test_clipping(xp):
    array = np.array([[-2.0, 0.5, 7.0], [1.0, -1.0, 0.0]])
    lower, upper = np.array([[-1.0], [0.25]]), np.array([[0.5, 0.5, 6.0]])
    np.testing.assert_array_equal(
        xp.numpy(_xp.clip(*map(xp.asarray, (array, lower + 0 * array, upper + 0 * array)))),
        [[-1, 0.5, 6], [0.5, 0.25, 0.25]],
    )
    np.testing.assert_array_equal(xp.numpy(_xp.clip(xp.asarray(array), 0.0, None)), np.maximum(array, 0))


def test_rows_are_put_in_their_places(xp):
    array, values = xp.asarray(np.zeros((4, 2))), xp.asarray(np.array([[1.0, 2.0], [3.0, 4.0]]))
    _xp.put(array, np.array([3, 0]), values)
    np.testing.assert_array_equal(xp.numpy(array), [[3, 4], [0, 0], [0, 0], [1, 2]])
    _xp.put(array, np.array([], dtype=np.int64), values[:0, :])
    np.testing.assert_array_equal(xp.numpy(array)[0], [3, 4])


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


@pytest.fixture
def torch_settings():
    """torch's precision of float32 products, which is global, is put back."""
    parts = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    common, each = torch.get_float32_matmul_precision(), [part.fp32_precision for part in parts]
    yield lambda: [part.fp32_precision for part in parts]
    torch.set_float32_matmul_precision(common)
    for part, precision in zip(parts, each):
        part.fp32_precision = precision


@pytest.mark.parametrize("setting", ["highest", "high", "medium", "tf32"])
def test_solvers_compute_float32_products_in_float32(torch_settings, setting, monkeypatch):
    """Whatever the program around them has set, by either of torch's two ways; and it finds its settings as they were."""
    if setting == "tf32":
        torch.backends.cuda.matmul.fp32_precision = setting
    else:
        torch.set_float32_matmul_precision(setting)
    before, seen = torch_settings(), []
    gradient, rows = Quadratic.gradient, Quadratic.rows

    def watched(method):
        def call(*arguments):
            seen.append(set(torch_settings()))
            return method(*arguments)

        return call

    monkeypatch.setattr(Quadratic, "gradient", watched(gradient))
    monkeypatch.setattr(Quadratic, "rows", watched(rows))
    rng = np.random.default_rng(5)
    problem = Quadratic.from_data(torch.from_numpy(rng.normal(size=(20, 6))), torch.from_numpy(rng.normal(size=(3, 6))))
    for run in (
        lambda: solve(problem, L1(0.5), FISTA(), max_steps=3),
        lambda: lasso(problem, L1(0.5)),
        lambda: l0_admm(problem, TopK(0.5), steps=4),
    ):
        seen.clear()
        run()
        assert seen and all(flags == {"ieee"} for flags in seen)
        assert torch_settings() == before
    with pytest.raises(ValueError, match="tol"):
        solve(problem, L1(0.5), FISTA(), tol=-1)
    assert torch_settings() == before
    if setting != "tf32":
        assert torch.get_float32_matmul_precision() == setting


def test_precision_is_restored_by_the_last_of_several(torch_settings):
    torch.set_float32_matmul_precision("high")
    one, other = full_precision(), full_precision()
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert torch.get_float32_matmul_precision() == "highest"
    other.__exit__(None, None, None)
    assert torch.get_float32_matmul_precision() == "high"


def test_ranks_are_of_the_row(xp):
    score = np.array([[3.0, 1.0, 2.0, 1.0], [0.0, 5.0, -1.0, 9.0]])
    np.testing.assert_array_equal(xp.numpy(ranked(xp.asarray(score))), [[3, 0, 2, 1], [1, 2, 0, 3]])


def test_shifts_use_every_row_once():
    """Rows 0 and 1 give at a cost of 1 and 2, rows 2 and 3 take at a gain of 9 and 8: two shifts, of disjoint rows."""
    worth = np.array([[1.0, 0.1], [2.0, 0.1], [50.0, 9.0], [50.0, 8.0]])
    mask = np.array([[True, False]] * 4)
    assert best_shifts(worth, mask, np.zeros(4)) == [(0, 0, 2, 1), (1, 0, 3, 1)]
    assert best_shifts(worth, mask, np.full(4, 4.0)) == []
