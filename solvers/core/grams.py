"""Which matrices can be the Gram of data: what every pair of channels says, and what a Cholesky factor proves of all."""

from __future__ import annotations

from gramian.solvers.backend._xp import Array, cholesky, device, full, namespace

__all__ = ["DEFECT", "PAIR", "REACH", "channel_norms", "check_gram", "least_curvature", "unit_diagonal"]

PAIR = 1e-3  # of |x_i| |x_j|: what summing float32 products over very many tokens leaves
REACH = 1 + 1 / 16  # times |x_i| |x_j|: no entry is larger, in the coarsest of dtypes
DEFECT = 1e-5  # of a unit diagonal: a negative eigenvalue beyond it is none that rounding makes, of float32 products either


def channel_norms(gram: Array) -> Array:
    """Return sqrt(G_jj), (p,), the norms of the channels."""
    xp = namespace(gram)
    return xp.sqrt(xp.linalg.diagonal(gram))


def check_gram(gram: Array, name: str = "gram", tolerance: float = PAIR, absolute: float = 0.0) -> None:
    """Raise ValueError, with the entries, unless a matrix (p, p) is symmetric with |G_ij| <= |x_i| |x_j| and G_jj >= 0.

    Every pair of entries is judged by the norms of its own two channels, within `tolerance` of their product and what squares
    lose that underflow, so that a channel of large norm hides nothing. absolute: what entries may be off by besides.
    """
    xp = namespace(gram)
    diagonal = xp.linalg.diagonal(gram)
    if bool(xp.any(diagonal < 0)):
        at = int(xp.argmin(diagonal))
        raise ValueError(
            f"{name} is not positive semidefinite: its diagonal, sums of squares, has negative entries, "
            f"such as {float(diagonal[at]):.6g} at {at}"
        )
    info = xp.finfo(gram.dtype)
    size = xp.sqrt(diagonal + float(info.smallest_normal))
    limit = size[:, None] * size * max(tolerance, 8 * float(info.eps)) + absolute
    aside = xp.abs(gram - gram.T) - limit
    if bool(xp.any(aside > 0)):
        row, column = places(aside)
        here, there = float(gram[row, column]), float(gram[column, row])
        raise ValueError(
            f"{name} is not symmetric: entries [{row}, {column}] and [{column}, {row}] are {here:.6g} and {there:.6g}"
        )
    beyond = xp.abs(gram) - limit - size[:, None] * size
    if bool(xp.any(beyond > 0)):
        row, column = places(beyond)
        found, norms = float(gram[row, column]), (float(size[row]), float(size[column]))
        raise ValueError(
            f"{name} is not positive semidefinite: entry [{row}, {column}] is {found:.6g} but channels of norms "
            f"{norms[0]:.6g} and {norms[1]:.6g} have an inner product of at most {norms[0] * norms[1]:.6g}"
        )


def places(excess: Array) -> tuple[int, int]:
    """Return the row and the column of the largest entry."""
    xp = namespace(excess)
    row, column = divmod(int(xp.argmax(xp.reshape(excess, (-1,)))), excess.shape[1])
    return row, column


def unit_diagonal(gram: Array, shift: float = 0.0) -> Array:
    """Return S + shift I, S_ij = G_ij / (|x_i| |x_j|), where dead channels, those of norm zero, are apart from all others."""
    xp = namespace(gram)
    size = channel_norms(gram)
    alive = size > 0
    scale = xp.where(alive, size, xp.ones_like(size))
    unit = xp.where(alive[:, None] & alive, gram / scale / scale[:, None], full((1, 1), 0.0, gram))
    identity = xp.eye(gram.shape[0], dtype=gram.dtype, device=device(gram))
    return unit + identity * xp.where(alive, full((1,), shift, gram), full((1,), 1.0, gram))


def least_curvature(gram: Array) -> float:
    """Return a proven lower bound of the least eigenvalue of S, the unit-diagonal form of a float64 Gram; -inf below -1e-5.

    Where the Cholesky factorisation of S + d I runs to completion in float64, the least eigenvalue of S is at least
    -d - m (1 + d), m = p γ_(p+1) (Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, Theorem 10.7; S itself
    is rounded twice, which m includes). So d = -2 m shows a Gram to be definite, in exact arithmetic, with eigenvalues of at
    least about m; a Gram that is singular to rounding needs some d > 0, and one that needs more than 1e-5 is indefinite.
    """
    xp = namespace(gram)
    size = gram.shape[0] + 4
    margin: float = size**2 * 2.0**-53 / (1 - size * 2.0**-53)
    if cholesky(unit_diagonal(gram, -2 * margin))[1]:
        return margin
    shift: float = margin
    while shift <= max(DEFECT, margin):
        if cholesky(unit_diagonal(gram, shift))[1]:
            return -shift - margin * (1 + shift)
        shift *= 10
    return -float("inf") if bool(xp.all(xp.isfinite(gram))) else float("nan")
