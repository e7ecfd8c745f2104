"""Rows of least squares on supports, each by a factorisation: of one support at a time, or of a stack of them."""

from __future__ import annotations

from functools import cache

import numpy as np

from gramian.solvers.backend._xp import (
    Array,
    device,
    is_numpy_array,
    namespace,
    principal,
    principals,
    put,
    solve_positive,
    solves_stacks,
    to_numpy,
)
from gramian.solvers.backend.lapack import solve_cholesky
from gramian.solvers.backend.threads import crew
from gramian.solvers.direct.gradients import REGULAR

__all__ = [
    "BATCH_BYTES", "TRUSTED", "bundles_of", "factorised_change", "least_change", "least_norm", "rounding", "solve_regular",
    "spread",
]  # fmt: skip

BATCH_BYTES = 2**24  # of submatrices that are factorised together
TRUSTED = 1e-7  # relative residual above which a factorisation is taken for one of a singular matrix


def least_change(gram: Array, mask: Array, gradient: Array, bundles: list[tuple[np.ndarray, int]]) -> tuple[Array, Array, int]:
    """Return rows d with d_P = 0 and G_KK d_K = -gradient_K, of least norm, their products d G, and in how many rows G_KK was
    singular. bundles: of the mask's rows (`bundles_of`).
    """
    xp = namespace(gram, mask, gradient)
    change, product, trusted = factorised_change(gram, mask, gradient, bundles)
    singular = 0
    for sharing in (rows for bundle, _ in bundles for rows in bundle if not np.all(trusted[rows])):
        index = xp.asarray(sharing, device=device(gram))
        masks = xp.take(mask, index, axis=0)
        kept = xp.asarray(np.flatnonzero(to_numpy(masks[0, :])), device=device(gram))
        right = xp.take(xp.take(gradient, index, axis=0), kept, axis=1)
        matrix = principals(gram, kept[None, :])[0, :, :]
        found, deficient = least_norm(matrix, -right.T, rounding(matrix))
        found = spread(found.T, masks)
        pulled = found @ gram
        put(change, sharing, found)
        put(product, sharing, pulled)
        singular += deficient * sharing.size
    return change, product, singular


def factorised_change(
    gram: Array, mask: Array, gradient: Array, bundles: list[tuple[np.ndarray, int]]
) -> tuple[Array, Array, np.ndarray]:
    """Return such rows d by Cholesky alone, their products d G, and for which of them G_KK is regular.

    The others may be NaN.
    """
    xp = namespace(gram, mask, gradient)
    if is_numpy_array(gram):
        change = solve_rows(gram, mask, gradient, bundles)
    else:
        parts = [solve_bundle(gram, mask, gradient, rows, size) for rows, size in bundles]
        order = np.argsort(np.concatenate([rows.reshape(-1) for rows, _ in bundles]))
        change = xp.take(xp.concat(parts), xp.asarray(order, device=device(gram)), axis=0)
    product = change @ gram
    residual = xp.max(xp.abs(xp.where(mask, gradient + product, xp.zeros_like(change))), axis=1)
    return change, product, to_numpy(residual <= TRUSTED * xp.max(xp.abs(gradient), axis=1))  # NaN is not


def bundles_of(mask: Array) -> list[tuple[np.ndarray, int]]:
    """Return rows that are best solved together on the backend of `mask`."""
    return bundled(to_numpy(mask), BATCH_BYTES if solves_stacks(mask) else 0)


def bundled(mask: np.ndarray, memory: int) -> list[tuple[np.ndarray, int]]:
    """Return rows that are solved together, (supports, rows of each), with the size of their largest support.

    Rows that share a support make one bundle; the others go by size, as many as fit in `memory` bytes of submatrices.
    """
    _, names = np.unique(np.packbits(mask, axis=1), axis=0, return_inverse=True)
    sizes, counts = mask.sum(axis=1), np.bincount(names.reshape(-1))
    shared = counts[names.reshape(-1)] > 1
    bundles = [np.flatnonzero(names.reshape(-1) == name)[None, :] for name in np.flatnonzero(counts > 1)]
    alone = np.flatnonzero(~shared)
    alone = alone[np.argsort(-sizes[alone], kind="stable")]
    first = 0
    while first < alone.size:
        together = max(1, memory // (8 * max(1, int(sizes[alone[first]])) ** 2))
        bundles.append(alone[first : first + together][:, None])
        first += together
    return [(rows, int(sizes[rows[:, 0]].max())) for rows in bundles]


def solve_bundle(gram: Array, mask: Array, gradient: Array, rows: np.ndarray, size: int) -> Array:
    """Return changes of the rows (b, m), of which the m in a line share a support, flattened to (b m, p); by Cholesky."""
    xp = namespace(gram, mask, gradient)
    supports, sharing = rows.shape
    index = xp.asarray(rows.reshape(-1), device=device(gram))
    masks = xp.take(mask, index, axis=0)
    right = xp.take(gradient, index, axis=0)
    if size == 0:
        return xp.zeros_like(right)
    firsts = masks[::sharing, :]
    kept = xp.argsort(xp.astype(~firsts, xp.int8), axis=1, stable=True)[:, :size]  # pruned ones fill up short supports
    matrices = principals(gram, kept)
    if supports > 1:  # of one alone `size` is its size
        filled = xp.take_along_axis(firsts, kept, axis=1)
        identity = xp.eye(size, dtype=gram.dtype, device=device(gram))
        matrices = xp.where(filled[:, :, None] & filled[:, None, :], matrices, identity[None, :, :])
    spots = xp.reshape(xp.broadcast_to(kept[:, None, :], (supports, sharing, size)), (supports * sharing, size))
    right = xp.reshape(xp.take_along_axis(right, spots, axis=1), (supports, sharing, size))
    solved, regular = solve_regular(matrices, -xp.matrix_transpose(right))
    solved = xp.where(regular[:, None, None], solved, xp.full_like(solved, float("nan")))  # to be noticed
    return spread(xp.reshape(xp.matrix_transpose(solved), (supports * sharing, size)), masks)


def solve_rows(gram: np.ndarray, mask: np.ndarray, gradient: np.ndarray, bundles: list[tuple[np.ndarray, int]]) -> np.ndarray:
    """Return the changes of all rows, in the order of the mask, for numpy, with a support at a time on every thread.

    Memory for submatrices is asked for once: to get it from the system takes as long as to factorise a small one.
    """
    change = np.zeros_like(gradient)

    def solve(share: list[tuple[np.ndarray, int]]) -> None:
        memory = np.empty(max((size for _, size in share), default=0) ** 2, gram.dtype)
        for rows, size in share:
            if not size:
                continue
            kept, sharing = np.flatnonzero(mask[rows[0, 0]]), rows[0]
            matrix = principal(gram, kept, memory[: size**2].reshape(size, size), half=True)
            lines = np.concatenate([-gradient[sharing[:, None], kept], probe(size)[None, :].astype(gram.dtype)])
            positive = solve_cholesky(matrix, lines)
            change[sharing[:, None], kept] = lines[:-1] if positive and np.abs(lines[-1]).max() < REGULAR else np.nan

    with crew(gram, sum(rows.size * size**3 for rows, size in bundles) / 3) as every:
        every(solve, [bundles[first :: every.size] for first in range(every.size)])
    return change


@cache
def probe(size: int) -> np.ndarray:
    """Return a right-hand side that is orthogonal to no null space, but by a rare chance."""
    return np.random.default_rng(0).normal(size=size)


def solve_regular(matrices: Array, right: Array) -> tuple[Array, Array]:
    """Return solutions of `A x = b` as `solve_positive` does, for A (b, k, k) of unit diagonal, and which A are regular (b,).

    A singular A may pass Cholesky, with a small residual, on a pivot that is rounding: x is then off by anything along
    the null space. For a right-hand side that is not orthogonal to it, x is of size 1 / rounding, which shows it.
    """
    xp = namespace(matrices, right)
    count, size = matrices.shape[:2]
    other = xp.asarray(probe(size)[None, :, None], dtype=right.dtype, device=device(right))
    solved, positive = solve_positive(matrices, xp.concat([right, xp.broadcast_to(other, (count, size, 1))], axis=2))
    return solved[:, :, :-1], positive & (xp.max(xp.abs(solved[:, :, -1]), axis=1) < REGULAR)


def spread(values: Array, masks: Array) -> Array:
    """Return values on supports (n, k), in the order of the channels, where they belong (n, p), with zero elsewhere."""
    xp = namespace(values, masks)
    place = xp.cumulative_sum(xp.astype(masks, xp.int64), axis=1) - 1
    found = xp.take_along_axis(values, xp.where(masks, place, xp.zeros_like(place)), axis=1)
    return xp.where(masks, found, xp.zeros((1, 1), dtype=values.dtype, device=device(values)))


def rounding(gram: Array) -> float:
    """Return the size up to which an eigenvalue of G may be rounding: (p + 8) eps |G|_F."""
    xp = namespace(gram)  # of a small matrix it is that of the products it was made of
    size: float = (gram.shape[0] + 8) * float(xp.finfo(gram.dtype).eps) * float(xp.sqrt(xp.sum(gram * gram)))
    return size


def least_norm(matrix: Array, right: Array, negligible: float) -> tuple[Array, bool]:
    """Return the x of least norm that minimises |A x - b| for a symmetric semidefinite A, and whether A is singular.

    Eigenvalues up to `negligible` count as zero.
    """
    xp = namespace(matrix, right)
    if matrix.shape[0] == 0:
        return right, False
    values, vectors = xp.linalg.eigh(matrix)
    positive = values > negligible
    inverse = xp.where(positive, 1 / xp.where(positive, values, xp.ones_like(values)), xp.zeros_like(values))
    return vectors @ (inverse[:, None] * (vectors.T @ right)), not bool(xp.all(positive))
