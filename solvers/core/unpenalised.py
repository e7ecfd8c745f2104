"""Weights that a term says nothing of: a dual point needs their gradient to vanish."""

from __future__ import annotations

import numpy as np

from gramian.solvers.backend._xp import Array, device, namespace, put, to_numpy
from gramian.solvers.core.problem import Quadratic

__all__ = ["settled"]

REFINEMENTS = 3  # the first solves, the others mend its rounding


def settled(problem: Quadratic, weights: Array, free: Array | None) -> Array:
    """argmin_U f(U) over the free weights of every row, the others held

    Directions of free channels in which G vanishes, to rounding of its entries, are left alone. free: a mask (q, p); rows with
    the same one are solved together, by an eigendecomposition of their part of G. None is no weight.
    """
    if free is None:
        return weights
    xp, moved = namespace(weights), namespace(weights).asarray(weights, copy=True)
    masks, kinds = np.unique(to_numpy(free), axis=0, return_inverse=True)
    for kind, mask in enumerate(masks):
        if mask.any():
            rows, place = np.nonzero(np.reshape(kinds, -1) == kind)[0], np.nonzero(mask)[0]
            chosen = xp.asarray(rows, device=device(weights))
            part = xp.take(weights, chosen, axis=0)
            put(moved, rows, settle(problem.rows(chosen), part, xp.asarray(place, device=device(weights))))
    return moved


def settle(problem: Quadratic, weights: Array, place: Array) -> Array:
    """Return the same for rows that all have their free weights in the columns `place`."""
    xp = namespace(weights)
    scale = xp.take(problem.unit_scale, place)
    gram = xp.take(xp.take(problem.gram, place, axis=0), place, axis=1) / scale / scale[:, None]
    values, vectors = xp.linalg.eigh(gram)
    kept = values > 8 * place.shape[0] * xp.finfo(weights.dtype).eps * xp.max(xp.abs(values))
    inverse = xp.where(kept, 1 / xp.where(kept, values, xp.ones_like(values)), xp.zeros_like(values))
    columns = xp.arange(weights.shape[1], device=device(weights))
    picked = xp.astype(columns[None, :] == place[:, None], weights.dtype) / scale[:, None]  # free channels, in unit coordinates
    for _ in range(REFINEMENTS):
        slopes = (problem.gradient(weights) @ picked.T) @ vectors
        weights = weights - ((slopes * inverse) @ vectors.T) @ picked
    return weights
