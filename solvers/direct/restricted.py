"""Least squares with weights restricted to a support, in batches of rows by their supports."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from gramian.solvers.backend._xp import (
    Array,
    as_floating,
    device,
    is_numpy_array,
    namespace,
    principal,
    principals,
    put,
    same_library,
    solve_positive,
    solves_stacks,
    to_numpy,
)
from gramian.solvers.backend.lapack import solve_cholesky
from gramian.solvers.backend.threads import crew
from gramian.solvers.core.certificate import certify
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Solution, Status
from gramian.solvers.core.terms import Support
from gramian.solvers.direct.gradients import (
    REGULAR,
    conjugate_gradients,
    gradients_pay,
    promising,
    regular_inverse,
    row_seconds,
)

__all__ = ["refit"]

BATCH_BYTES = 2**24  # of submatrices that are factorised together
TRUSTED = 1e-7  # relative residual above which a factorisation is taken for one of a singular matrix


def refit(problem: Quadratic, mask: Array, *, start: Array | None = None) -> Solution:
    """argmin_V f(V) subject to V_ij = 0 where mask_ij is False

    When X* = X this is v_K = w_K + G_KK^-1 G_KP w_P in every row, with K the kept and P the pruned channels. It is solved in
    float64. Rows that share a support share its factorisation; others are factorised in batches of similar size (k^3 / 3
    multiply-adds each), or, where that promises to take less time, solved together by conjugate gradients, preconditioned by
    G^-1; rows that stall are factorised.

    Where G_KK is singular the answer is the minimiser that changes the masked dense weights least, in coordinates
    v_j sqrt(G_jj), and the status says so; of a Gram in float32 rounding counts as curvature, and conjugate gradients, which
    go to the same minimiser, do not notice. A ridge on the change is `refit(problem.damped(ridge), mask)`.

    Parameters
    ----------
    problem : Quadratic
        f.
    mask : array (q, p) of bool
        True where weights are kept (K), False where they are pruned (P).
    start : array (q, p), optional
        Weights on the same support. A row keeps them unless its loss falls, so that the answer is never worse.

    Returns
    -------
    Solution
        DIRECT or SINGULAR. The certificate is the KKT residual. Its detail: `singular_rows`, in how many rows G_KK is singular.

    Raises
    ------
    ValueError
        For a mask of another shape, and for a start off the mask.

    References
    ----------
    Numerical Pruning, Theorem 3 and Eq. (11), is the case of one support for all rows; its damped form (Remark 5, with
    gamma) is `problem.damped(gamma / 2)`. FISTAPruner's Eq. (3) on a fixed support at lambda = 0, and each level of
    Greedy Output Approximation's Algorithm 2, are others.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import NM, Quadratic, refit, wanda
    >>> rng = np.random.default_rng(0)
    >>> problem = Quadratic.from_data(rng.normal(size=(64, 8)), rng.normal(size=(4, 8)))
    >>> pruned = wanda(problem, NM(2, 4))
    >>> polished = refit(problem, pruned.weights != 0)
    >>> polished.certificate.measure < 1e-12, polished.certificate.objective < pruned.certificate.objective
    (True, True)
    """
    if tuple(mask.shape) != problem.shape:
        raise ValueError(f"the mask is {tuple(mask.shape)} but the problem's weight is {problem.shape}")
    for name, array in (("the mask", mask), ("the start", start)):
        if array is not None:
            same_library(array, problem.anchor, (name, "the problem's weight"))
    support, exact = Support(mask), problem.double
    xp = namespace(exact.anchor, mask)
    masked = support.prox(exact.anchor, 1.0)
    if start is not None and (tuple(start.shape) != problem.shape or bool(xp.any((start != 0) & ~mask))):
        raise ValueError(f"the start must be {problem.shape} and zero wherever the mask is False")
    reduced = Reduced.of(exact, mask, masked)
    change, product, singular = restricted_change(reduced.gram, reduced.mask, reduced.gradient)
    weights = as_floating(masked + reduced.spread(change), like=problem.anchor)
    if weights.dtype != exact.anchor.dtype:  # rounding to the problem's dtype must not lose either
        change = reduced.inside(as_floating(weights, like=exact.anchor) - masked)
        product = change @ reduced.gram
    least, nothing = reduced.rise(change, product), -float(xp.finfo(exact.anchor.dtype).eps) * exact.at_zero[0]
    weights = xp.where((least >= nothing)[:, None], as_floating(masked, like=problem.anchor), weights)
    least = xp.where(least >= nothing, xp.zeros_like(least), least)
    if start is not None:
        change = reduced.inside(as_floating(start, like=exact.anchor) - masked)
        better = reduced.rise(change, change @ reduced.gram) + nothing <= least
        weights = xp.where(better[:, None], as_floating(start, like=problem.anchor), weights)
    status = Status.SINGULAR if singular else Status.DIRECT
    return Solution(weights, status, certify(problem, support, weights), detail={"singular_rows": float(singular)})


@dataclass(frozen=True, eq=False)
class Reduced:
    """f as a function of the change d of the masked weights, <gradient, d> + 1/2 d G d + constant, with d zero off the mask.

    It is in unit-diagonal coordinates, and in those of the kept channels alone where all rows keep the same, which is less
    work.
    """

    gram: Array
    mask: Array
    gradient: Array
    scale: Array
    order: Array | None = None  # the kept channels, then the others
    place: Array | None = None  # where every channel is in `order`

    @classmethod
    def of(cls, problem: Quadratic, mask: Array, masked: Array) -> Reduced:
        """Reduce a problem around its masked weights."""
        xp = namespace(mask, masked)
        rows, width = mask.shape
        first = to_numpy(mask[0, :])
        count = int(first.sum())
        if not 0 < count < width or not bool(xp.all(mask == mask[:1, :])):
            work, scale = problem.rescaled()
            return cls(work.gram, mask, Support(mask).prox(work.gradient(masked * scale), 1.0), scale)
        sequence = np.argsort(~first, kind="stable")
        order, place = (xp.asarray(each, device=device(mask)) for each in (sequence, np.argsort(sequence)))
        kept = order[:count]
        scale, across = xp.take(problem.unit_scale, kept), xp.take(problem.gram, kept, axis=0)
        gradient = (masked - problem.anchor) @ across.T
        if problem.slope is not None:
            gradient = gradient + xp.take(problem.slope, kept, axis=1)
        gram = xp.take(across, kept, axis=1) / scale / scale[:, None]
        everything = xp.ones((rows, count), dtype=mask.dtype, device=device(mask))
        return cls(gram, everything, gradient / scale, scale, order, place)

    def inside(self, change: Array) -> Array:
        """Return what counts of a change of the weights (q, p)."""
        if self.order is not None:
            change = namespace(change).take(change, self.order[: self.mask.shape[1]], axis=1)
        return change * self.scale

    def spread(self, change: Array) -> Array:
        """Return what counts as a change of the weights (q, p)."""
        change = change / self.scale
        if self.order is None or self.place is None:
            return change
        xp = namespace(change)
        nothing = xp.zeros((change.shape[0], self.order.shape[0] - change.shape[1]), dtype=change.dtype, device=device(change))
        return xp.take(xp.concat([change, nothing], axis=1), self.place, axis=1)

    def rise(self, change: Array, product: Array) -> Array:
        """Return by how much the loss of every row rises (q,), from the change and its product with `gram`.

        This is without the rounding of the difference of two losses.
        """
        return namespace(change).sum(change * (self.gradient + 0.5 * product), axis=1)


def restricted_change(gram: Array, mask: Array, gradient: Array) -> tuple[Array, Array, int]:
    """Return rows d with d_P = 0 and G_KK d_K = -gradient_K, their products d G, and in how many rows G_KK was singular.

    There d is of least norm.
    """
    xp = namespace(gram, mask, gradient)
    bundles = bundles_of(mask)
    factorising = row_seconds(gram, bundles)
    inverse = regular_inverse(gram) if gradients_pay(gram, factorising, inverse=True) else None
    plain = inverse is None and gradients_pay(gram, factorising, inverse=False)
    if not plain and (inverse is None or not promising(gram, mask, gradient, factorising, inverse)):
        return least_change(gram, mask, gradient, bundles)
    change, found = conjugate_gradients(gram, mask, gradient, factorising, inverse=inverse)
    if found.all():
        return change, change @ gram, 0
    left = np.flatnonzero(~found)
    index = xp.asarray(left, device=device(gram))
    masks = xp.take(mask, index, axis=0)
    finished, _, singular = least_change(gram, masks, xp.take(gradient, index, axis=0), bundles_of(masks))
    put(change, left, finished)
    return change, change @ gram, singular


def least_change(gram: Array, mask: Array, gradient: Array, bundles: list[tuple[np.ndarray, int]]) -> tuple[Array, Array, int]:
    """Return the same by factorisations alone."""
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
    """Return the same rows d by Cholesky alone, their products d G, and for which of them G_KK is regular.

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
    """Return the same of rows in the order of the mask, for numpy, with a support at a time on every thread.

    Memory for submatrices is asked for once: to get it from the system takes as long as to factorise a small one.
    """
    change = np.zeros_like(gradient)

    def solve(share: list[tuple[np.ndarray, int]]) -> None:
        memory = np.empty(max((size for _, size in share), default=0) ** 2, gram.dtype)
        for rows, size in share:
            if not size:
                continue
            kept, sharing = np.flatnonzero(mask[rows[0, 0]]), rows[0]
            matrix = principal(gram, kept, memory[: size**2].reshape(size, size))
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
