"""One orthonormal basis for several streams of vectors of one width, and what must be lost of them outside of it.

Vectors X_l (N_l, p), such as what every norm of a transformer reads, are told by their Gram matrices G_l = X_l^T X_l. A basis
Q (p, k) with Q^T Q = I keeps X_l Q Q^T of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gramian.solvers.backend._xp import Array, as_floating, device, namespace
from gramian.solvers.backend.computing import computation
from gramian.solvers.backend.given import given
from gramian.solvers.backend.options import whole
from gramian.solvers.backend.printed import digits
from gramian.solvers.core.certificate import Certificate
from gramian.solvers.core.grams import check_gram

__all__ = ["StreamBasis", "channel_basis", "least_lost", "principal_basis", "share_outside"]


@dataclass(frozen=True, eq=False)
class StreamBasis:
    """Hold a basis Q (p, k), in the dtype of the Gram matrices, the direction that holds most first.

    lost: sum_l |X_l - X_l Q Q^T|^2, one number for every Gram matrix. shares: the same over tr G_l, 0 of a stream of zeros.
    certificate: of their sum, whose bound is Ky Fan's, the least that any subspace of k dimensions loses.
    """

    basis: Array
    lost: tuple[float, ...]
    shares: tuple[float, ...]
    certificate: Certificate

    def __repr__(self) -> str:
        """One line: the widths, what is lost, and how far it is from the least."""
        width, kept = self.basis.shape
        return f"StreamBasis({width} -> {kept}, {digits(self.certificate.relative_error)} lost of {len(self.lost)} streams)"


@computation
def principal_basis(grams: Sequence[Array], kept: int) -> StreamBasis:
    """argmin of sum_l tr G_l - tr(Q^T G_l Q) = sum_l |X_l - X_l Q Q^T|^2 over Q (p, k) with Q^T Q = I

    The k principal directions of G = sum_l G_l. By Ky Fan no basis loses less than the sum of the p - k least eigenvalues of G;
    that sum, lowered by what rounding may have done to it, is the certificate's bound. What is lost is computed in float64 from
    the basis as it is returned: of a basis that is orthonormal only to rounding, |X - X Q Q^T|^2 is no less than that sum
    either (Eckart and Young). Streams count by their traces, so that Gram matrices of vectors of unit length count alike.

    Parameters
    ----------
    grams : sequence of array (p, p)
        G_l, at least one, all of one width and library.
    kept : int
        k, from 1 to p. With k = p nothing is lost, and Q is a rotation.

    Returns
    -------
    StreamBasis
        Q, and what is lost of every stream.

    Raises
    ------
    ValueError
        For no Gram matrix, for one that is not square, finite and that of data, for several widths, and for k out of range.

    References
    ----------
    Ky Fan 1949. SliceGPT (Ashkboos et al. 2024) takes such a basis for every stream apart.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers.units.stream_basis import principal_basis
    >>> vectors = np.random.default_rng(0).normal(size=(50, 4)) * np.array([3.0, 0.0, 1.0, 2.0])
    >>> found = principal_basis([vectors.T @ vectors], 3)
    >>> found.certificate.relative_error < 1e-12, bool(abs(found.basis[1]).max() < 1e-12)
    (True, True)
    """
    given_grams, exact, kept = opened(grams, kept)
    together, width = sum(exact[1:], start=exact[0]), exact[0].shape[0]
    xp = namespace(together)
    values, vectors = xp.linalg.eigh(together)
    basis = as_floating(xp.flip(vectors[:, width - kept :], axis=1), like=given_grams[0])
    tail, top = float(xp.sum(values[: width - kept])), float(xp.max(xp.abs(values)))
    # Eigenvalues move by no more than what a perturbation of G measures, here p eps |G|, and what is lost is summed likewise.
    slack = (width - kept + len(exact)) * width * float(xp.finfo(xp.float64).eps) * top
    return measured(basis, exact, tail, slack)


@computation
def channel_basis(grams: Sequence[Array], kept: int) -> StreamBasis:
    """argmin of sum_l |X_l - X_l Q Q^T|^2 over Q (p, k) of k columns of the identity: the k channels of most energy

    What is lost is the sum of the other channels' (sum_l G_l)_jj, which is least where the largest stay; of equal ones the
    first do. So the bound is what is lost itself, less rounding. It is never less than what `principal_basis` loses.

    Parameters
    ----------
    grams : sequence of array (p, p)
        As of `principal_basis`.
    kept : int
        k, from 1 to p.

    Returns
    -------
    StreamBasis
        Q, whose columns are in the order of the channels, and what is lost of every stream.

    Raises
    ------
    ValueError
        As of `principal_basis`.

    References
    ----------
    LLM-Pruner (Ma et al. 2023) prunes the stream by channels as they are ("channel-wise"), by a score with derivatives.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers.units.stream_basis import channel_basis
    >>> channel_basis([np.diag([4.0, 1.0, 9.0])], 2).basis.tolist()
    [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]
    """
    given_grams, exact, kept = opened(grams, kept)
    together, width = sum(exact[1:], start=exact[0]), exact[0].shape[0]
    xp = namespace(together)
    energy = xp.linalg.diagonal(together)
    order = xp.argsort(-energy, stable=True)
    chosen = xp.sort(order[:kept])
    basis = as_floating(xp.take(xp.eye(width, dtype=energy.dtype, device=device(energy)), chosen, axis=1), like=given_grams[0])
    left = float(xp.sum(xp.take(energy, order[kept:])))
    slack = (width + len(exact)) * float(xp.finfo(xp.float64).eps) * float(xp.sum(energy))
    return measured(basis, exact, left, slack)


def opened(grams: Sequence[Array], kept: int) -> tuple[list[Array], list[Array], int]:
    """Return the Gram matrices as they are given and in float64, and k. ValueError for what is out of range."""
    kept, given_grams = whole("kept", kept), checked(grams)
    width = given_grams[0].shape[0]
    if kept > width:
        raise ValueError(f"kept must be at most the width of the streams, {width}, but is {kept}")
    return given_grams, [doubled(gram) for gram in given_grams], kept


def measured(basis: Array, grams: Sequence[Array], least: float, slack: float) -> StreamBasis:
    """Return a basis with what it loses of every stream. least: of all together that any basis does, but for `slack`."""
    lost = tuple(outside(gram, basis) for gram in grams)
    traces = [float(namespace(gram).linalg.trace(gram)) for gram in grams]
    total, energy = sum(lost), sum(traces)
    certificate = Certificate(total, min(least, total) - slack, share(total, energy), slack=slack)
    return StreamBasis(basis, lost, tuple(map(share, lost, traces)), certificate)


@computation
def least_lost(gram: Array, kept: int) -> float:
    """min of |X - X Q Q^T|^2 / |X|^2 over Q (p, k) with Q^T Q = I: the p - k least eigenvalues of G over all of them.

    ValueError, for k out of range and what is no Gram matrix, as of `principal_basis`, which attains it of one stream alone.
    """
    kept, exact = whole("kept", kept), doubled(checked([gram])[0])
    if kept > exact.shape[0]:
        raise ValueError(f"kept must be at most the width of the stream, {exact.shape[0]}, but is {kept}")
    xp = namespace(exact)
    values = xp.linalg.eigvalsh(exact)
    return share(max(0.0, float(xp.sum(values[: exact.shape[0] - kept]))), float(xp.linalg.trace(exact)))


@computation
def share_outside(gram: Array, basis: Array) -> float:
    """|X - X Q Q^T|^2 / |X|^2, in float64, for the Gram matrix G = X^T X (p, p) of any vectors and a basis Q (p, k)."""
    exact = doubled(checked([gram])[0])
    basis = given("basis", basis, exact, "gram")
    if basis.ndim != 2 or basis.shape[0] != exact.shape[0]:
        raise ValueError(f"basis is {tuple(basis.shape)} but gram has {exact.shape[0]} channels")
    return share(outside(exact, basis), float(namespace(exact).linalg.trace(exact)))


def checked(grams: Sequence[Array]) -> list[Array]:
    """Return Gram matrices of one width, in their floating dtype; ValueError, naming what is wrong, for anything else."""
    if not len(grams):
        raise ValueError("no Gram matrix is given, so that no basis is better than another: give at least one")
    first = as_floating(given("grams[0]", grams[0]))
    found = [as_floating(given(f"grams[{place}]", gram, first, "grams[0]")) for place, gram in enumerate(grams)]
    xp = namespace(first)
    for place, gram in enumerate(found):
        if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or not gram.shape[0]:
            raise ValueError(f"grams[{place}] is {tuple(gram.shape)}, not a square matrix")
        if gram.shape != first.shape:
            raise ValueError(f"grams[{place}] is {tuple(gram.shape)} but grams[0] is {tuple(first.shape)}: one width for all")
        if not bool(xp.all(xp.isfinite(gram))):
            raise ValueError(f"grams[{place}] has entries that are NaN or Inf")
        check_gram(gram, f"grams[{place}]")
    return found


def doubled(gram: Array) -> Array:
    """Return a Gram matrix in float64, exactly symmetric."""
    exact = namespace(gram).astype(gram, namespace(gram).float64)
    return (exact + exact.T) / 2


def outside(gram: Array, basis: Array) -> float:
    """tr(M G M) with M = I - Q Q^T, which is no difference of large numbers; 0 where rounding makes it negative."""
    xp = namespace(gram)
    exact = xp.astype(basis, xp.float64)
    away = xp.eye(gram.shape[0], dtype=xp.float64, device=device(gram)) - exact @ exact.T
    return max(0.0, float(xp.sum(away * (gram @ away))))


def share(part: float, whole_of_it: float) -> float:
    """A part of a sum of squares, 0 of a sum that is 0."""
    return part / whole_of_it if whole_of_it > 0 else 0.0
