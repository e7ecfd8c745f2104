"""Weights that a term says nothing of: a dual point needs their gradient to vanish."""

from __future__ import annotations

import numpy as np

from gramian.solvers.backend._xp import Array, device, full, namespace, put, to_numpy
from gramian.solvers.core.problem import Quadratic

__all__ = ["gradient_rounding", "settled"]


def gradient_rounding(problem: Quadratic, weights: Array) -> Array:
    """Return a bound (q, p) of what rounding does to the gradient `slope + (V - W) G`, from |G_ij|^2 <= G_ii G_jj."""
    xp = namespace(weights)
    scale, unit = xp.sqrt(problem.diagonal), float(xp.finfo(weights.dtype).eps)
    size = xp.sum(xp.abs(weights - problem.anchor) * scale, axis=1, keepdims=True) * scale
    room = (weights.shape[1] + 8) * unit * size
    return room if problem.slope is None else room + 4 * unit * xp.abs(problem.slope)


def settled(problem: Quadratic, weights: Array, free: Array) -> tuple[Array, Array]:
    """argmin_U f(U) over the free weights of every row, the others held, and how far it is missed: e (q,)

    The exact minimiser is U + d, where d is zero on weights that are not free, and e bounds sqrt(d G d), rounding of the
    gradient included. So with U + d instead of U the gradient of channel j changes by at most e sqrt(G_jj), and f by e^2 / 2.
    Directions of free channels in which G vanishes, to rounding of its entries, are left alone: what is left of the gradient
    along them must be rounding too, or e is infinite. free: a mask (q, p); rows with the same one are solved together.
    """
    xp = namespace(weights)
    masks, kinds = np.unique(to_numpy(free), axis=0, return_inverse=True)
    kinds = np.reshape(kinds, -1)
    missed, moved = full((weights.shape[0], 1), 0.0, weights), xp.asarray(weights, copy=True)
    for kind, mask in enumerate(masks):
        if not mask.any():
            continue
        rows, (columns,) = np.nonzero(kinds == kind)[0], np.nonzero(mask)
        place = xp.asarray(columns, device=device(weights))
        part = problem.rows(xp.asarray(rows, device=device(weights)))
        found, left = settle(part, xp.take(weights, xp.asarray(rows, device=device(weights)), axis=0), place)
        put(moved, rows, found)
        put(missed, rows, left[:, None])
    return moved, missed[:, 0]


def settle(problem: Quadratic, weights: Array, place: Array) -> tuple[Array, Array]:
    """Return the same for rows that all have their free weights in the columns `place`."""
    xp = namespace(weights)
    count, unit = place.shape[0], float(xp.finfo(weights.dtype).eps)
    scale = xp.take(problem.unit_scale, place)
    gram = xp.take(xp.take(problem.gram, place, axis=0), place, axis=1) / scale / scale[:, None]
    values, vectors = xp.linalg.eigh(gram)
    cut = 8 * count * unit * xp.max(xp.abs(values))
    kept = values > cut
    inverse = xp.where(kept, 1 / xp.where(kept, values, xp.ones_like(values)), xp.zeros_like(values))
    picked = (
        xp.astype(xp.arange(weights.shape[1], device=device(weights))[None, :] == place[:, None], weights.dtype)
        / scale[:, None]
    )
    for _ in range(3):  # the first solves, the others mend its rounding
        slopes = (problem.gradient(weights) @ picked.T) @ vectors
        weights = weights - ((slopes * inverse) @ vectors.T) @ picked
    slopes = xp.abs((problem.gradient(weights) @ picked.T) @ vectors)
    room = xp.sqrt(xp.sum((gradient_rounding(problem, weights) @ picked.T) ** 2, axis=1, keepdims=True))
    missed = xp.sqrt(xp.sum((slopes + room) ** 2 * inverse, axis=1))
    reach = xp.sqrt(xp.sum((xp.abs(weights - problem.anchor) * problem.unit_scale) ** 2, axis=1, keepdims=True))
    stray = xp.any(~kept & (slopes > 4 * room + cut * reach), axis=1)
    return weights, xp.where(stray, xp.full_like(missed, float("inf")), missed)
