"""The basis that loses least of several streams: planted, against scipy, against a semidefinite program, and by its laws."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from gramian.solvers.units.stream_basis import channel_basis, least_lost, principal_basis, share_outside

EPS = 2.0**-52


def streams(seed: int, width: int, tokens: tuple[int, ...], rank: int | None = None) -> list[np.ndarray]:
    """Vectors (N_l, p), in a common subspace of a rank if one is given."""
    rng = np.random.default_rng(seed)
    inside = np.eye(width) if rank is None else np.linalg.qr(rng.normal(size=(width, width)))[0][:, :rank]
    return [rng.normal(size=(count, inside.shape[1])) * rng.uniform(0.1, 3, inside.shape[1]) @ inside.T for count in tokens]


def lost_of(vectors: np.ndarray, basis: np.ndarray) -> float:
    """|X - X Q Q^T|^2, by its definition."""
    return float(np.sum((vectors - vectors @ basis @ basis.T) ** 2))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("tokens", [(40, 30), (3,), (1, 1, 50)])
def test_what_is_lost_is_what_the_vectors_lose_and_the_least_by_scipy(xp, tokens, scale):
    vectors = [scale * each for each in streams(1, 7, tokens)]
    grams = [each.T @ each for each in vectors]
    for kept in (1, 4, 7):
        found = principal_basis([xp.asarray(gram) for gram in grams], kept)
        basis = xp.numpy(found.basis)
        assert basis.shape == (7, kept)
        np.testing.assert_allclose(basis.T @ basis, np.eye(kept), atol=1e-12)
        total = sum(float(np.sum(each**2)) for each in vectors)
        np.testing.assert_allclose(found.lost, [lost_of(each, basis) for each in vectors], atol=1e-12 * total)
        np.testing.assert_allclose(
            found.shares, [lost_of(each, basis) / np.sum(each**2) for each in vectors], atol=1e-10, rtol=1e-9
        )
        least = float(scipy.linalg.eigh(sum(grams), eigvals_only=True, driver="ev")[: 7 - kept].sum())
        certificate = found.certificate
        assert certificate.objective == pytest.approx(least, rel=1e-10, abs=1e-13 * total)
        assert certificate.bound <= least + 1e-13 * total and certificate.gap <= 2 * certificate.slack + 1e-13 * total
        assert certificate.slack <= 1e-11 * total


def test_a_stream_in_a_subspace_loses_nothing(xp):
    vectors = streams(2, 9, (60, 5), rank=3)
    found = principal_basis([xp.asarray(each.T @ each) for each in vectors], 3)
    assert found.certificate.relative_error < 1e-14 and max(found.shares) < 1e-13
    basis = xp.numpy(found.basis)
    np.testing.assert_allclose(vectors[0] @ basis @ basis.T, vectors[0], atol=1e-12)
    assert principal_basis([xp.asarray(vectors[0].T @ vectors[0])], 2).certificate.relative_error > 1e-3  # two are too few


def test_no_basis_found_by_a_semidefinite_program_loses_less():
    """The convex hull of projections of rank k is {0 <= F <= I, tr F = k}, the Fantope."""
    cvxpy = pytest.importorskip("cvxpy")
    for seed, width, kept in ((3, 4, 2), (4, 5, 1), (5, 3, 2)):
        gram = (vectors := streams(seed, width, (12,))[0]).T @ vectors
        projection = cvxpy.Variable((width, width), PSD=True)
        program = cvxpy.Problem(
            cvxpy.Maximize(cvxpy.trace(gram @ projection)),
            [np.eye(width) - projection >> 0, cvxpy.trace(projection) == kept],
        )
        most = program.solve(solver="CLARABEL")
        found = principal_basis([gram], kept)
        assert found.certificate.objective == pytest.approx(np.trace(gram) - most, rel=1e-5, abs=1e-6 * np.trace(gram))


def test_no_random_basis_loses_less():
    rng = np.random.default_rng(6)
    grams = [each.T @ each for each in streams(6, 5, (20, 9))]
    found = principal_basis(grams, 2)
    for _ in range(300):
        basis = np.linalg.qr(rng.normal(size=(5, 2)))[0]
        assert sum(np.trace(gram) - np.trace(basis.T @ gram @ basis) for gram in grams) >= found.certificate.bound
    near = np.linalg.qr(found.basis + 1e-3 * rng.normal(size=(5, 2)))[0]  # close by, it is no less either
    assert sum(np.trace(gram) - np.trace(near.T @ gram @ near) for gram in grams) > found.certificate.objective


@st.composite
def grams_with_nasty_spectra(draw) -> tuple[list[np.ndarray], int]:
    """Gram matrices with ties, zeros and eigenvalues far apart, dead and duplicate channels."""
    width = draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    found = []
    for _ in range(draw(st.integers(1, 3))):
        values = np.array(draw(st.lists(st.sampled_from([0.0, 1e-8, 1.0, 1.0, 3.0, 1e6]), min_size=width, max_size=width)))
        turned = np.linalg.qr(rng.normal(size=(width, width)))[0] if draw(st.booleans()) else np.eye(width)
        root = values**0.5 * turned
        if width > 1 and draw(st.booleans()):
            root[-1] = root[0]  # a duplicate channel
        found.append(root @ root.T)
    return found, draw(st.integers(1, width))


@given(grams_with_nasty_spectra(), st.sampled_from(["float32", "float64"]))
def test_laws(instance, dtype):
    """The basis is orthonormal; what is lost is between the bound and the bound but for rounding, and never less where less is
    kept; a basis of its own loses no more of any stream; every share is in [0, 1]."""
    grams, kept = instance
    rounded = [np.asarray(gram, dtype) for gram in grams]
    found = principal_basis(rounded, kept)
    width, unit = grams[0].shape[0], float(np.finfo(dtype).eps)
    energy = float(sum(np.trace(gram) for gram in rounded))
    exact = found.basis.astype(np.float64)
    assert found.basis.dtype == rounded[0].dtype
    np.testing.assert_allclose(exact.T @ exact, np.eye(kept), atol=16 * unit)
    certificate = found.certificate
    assert certificate.bound <= certificate.objective
    # a basis rounded by e loses e^2 |G| more
    assert certificate.gap <= 2 * certificate.slack + (64 * unit**2 + 64 * EPS) * width * energy
    assert all(-1e-12 <= share <= 1 + 16 * unit for share in found.shares)
    for gram, share, lost in zip(rounded, found.shares, found.lost):
        assert least_lost(gram, kept) <= share + 64 * width * EPS + 64 * width * unit**2 * (np.trace(gram) > 0)
        assert share_outside(gram, found.basis) == pytest.approx(share, abs=1e-13)
        assert lost == pytest.approx(share * np.trace(gram.astype(np.float64)), rel=1e-9, abs=1e-13 * energy)
    if kept < width:
        assert principal_basis(rounded, kept + 1).certificate.bound <= certificate.objective


def test_streams_of_unit_vectors_count_alike(xp):
    """One stream of two directions against two streams of another: the sum decides."""
    one, other = np.diag([1.0, 0.0, 0.0]), np.diag([0.0, 1.0, 0.0])
    found = principal_basis([xp.asarray(each) for each in (one, other, other)], 1)
    np.testing.assert_allclose(np.abs(xp.numpy(found.basis))[:, 0], [0, 1, 0], atol=1e-12)
    assert found.shares == pytest.approx((1, 0, 0)) and found.certificate.relative_error == pytest.approx(1 / 3)
    assert repr(found) == "StreamBasis(3 -> 1, 0.33 lost of 3 streams)"


def test_one_column_and_streams_of_zeros(xp):
    found = principal_basis([xp.asarray([[4.0]])], 1)
    assert abs(float(found.basis[0, 0])) == 1 and found.lost == (0.0,)
    nothing = principal_basis([xp.asarray(np.zeros((3, 3)))], 2)
    assert nothing.shares == (0.0,) and nothing.certificate.relative_error == 0
    assert least_lost(xp.asarray(np.zeros((3, 3))), 1) == 0


@pytest.mark.parametrize(
    "grams, kept, message",
    [
        ([], 1, "no Gram matrix is given"),
        ([np.eye(3), np.eye(2)], 1, r"grams\[1\] is \(2, 2\) but grams\[0\] is \(3, 3\)"),
        ([np.ones((2, 3))], 1, r"grams\[0\] is \(2, 3\), not a square matrix"),
        ([np.full((2, 2), np.nan)], 1, "NaN or Inf"),
        ([np.array([[1.0, 2.0], [2.0, 1.0]])], 1, r"grams\[0\] is not positive semidefinite"),
        ([np.array([[1.0, 0.5], [0.0, 1.0]])], 1, r"grams\[0\] is not symmetric"),
        ([np.eye(3)], 4, "kept must be at most the width of the streams, 3, but is 4"),
        ([np.eye(3)], 0, "kept must be a whole number of at least 1 but is 0"),
        ([np.eye(3)], 1.5, "kept must be a whole number of at least 1 but is 1.5"),
    ],
)
def test_what_is_no_gram_matrix_or_out_of_range_is_refused(grams, kept, message):
    with pytest.raises(ValueError, match=message):
        principal_basis(grams, kept)
    if len(grams) == 1:
        with pytest.raises(ValueError):
            least_lost(grams[0], kept)


def test_a_basis_of_another_width_is_refused():
    with pytest.raises(ValueError, match=r"basis is \(2, 1\) but gram has 3 channels"):
        share_outside(np.eye(3), np.ones((2, 1)))


@given(grams_with_nasty_spectra(), st.sampled_from(["float32", "float64"]))
def test_no_other_channels_lose_less(instance, dtype):
    """Every choice of k channels is tried."""
    grams, kept = instance
    rounded = [np.asarray(gram, dtype) for gram in grams]
    width, energy = grams[0].shape[0], float(sum(np.trace(gram) for gram in rounded))
    found = channel_basis(rounded, kept)
    assert found.basis.dtype == rounded[0].dtype and found.basis.shape == (width, kept)
    np.testing.assert_array_equal(found.basis.T @ found.basis, np.eye(kept))
    assert set(np.unique(found.basis)) <= {0.0, 1.0}
    left = [
        sum(float(gram[j, j]) for gram in rounded for j in range(width) if j not in chosen)
        for chosen in combinations(range(width), kept)
    ]
    certificate = found.certificate
    assert certificate.objective == pytest.approx(min(left), abs=1e-13 * energy)
    assert certificate.bound <= certificate.objective and certificate.gap <= 2 * certificate.slack + 1e-13 * energy
    assert certificate.objective >= principal_basis(rounded, kept).certificate.bound


def test_channels_of_a_stream_that_is_in_some_of_them(xp):
    rng = np.random.default_rng(8)
    vectors = np.zeros((20, 6))
    vectors[:, [1, 4, 5]] = rng.normal(size=(20, 3))
    found = channel_basis([xp.asarray(vectors.T @ vectors)], 3)
    np.testing.assert_array_equal(xp.numpy(found.basis), np.eye(6)[:, [1, 4, 5]])
    assert found.certificate.objective == 0.0
    with pytest.raises(ValueError, match="kept must be at most the width of the streams, 6, but is 7"):
        channel_basis([xp.asarray(vectors.T @ vectors)], 7)
