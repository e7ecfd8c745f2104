"""Least squares with weights restricted to a support, row by row or by conjugate gradients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gramian.solvers.backend._xp import (
    Array,
    as_floating,
    device,
    namespace,
    put,
    to_numpy,
)
from gramian.solvers.backend.computing import computation
from gramian.solvers.backend.given import given
from gramian.solvers.core.certificate import certify
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Solution, Status
from gramian.solvers.core.terms import Support
from gramian.solvers.direct.factorised import bundles_of, least_change
from gramian.solvers.direct.gradients import (
    conjugate_gradients,
    gradients_pay,
    promising,
    regular_inverse,
    row_seconds,
)

__all__ = ["refit"]


@computation
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
    mask = given("mask", mask, problem.anchor)
    if tuple(mask.shape) != problem.shape:
        raise ValueError(f"the mask is {tuple(mask.shape)} but the problem's weight is {problem.shape}")
    start = None if start is None else as_floating(given("start", start, problem.anchor))
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
