"""CFSP: blocks that turn the stream far keep more of their units (Wang et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gramian.solvers.backend._xp import Array, namespace

__all__ = ["STEEPNESS", "angles", "proportional_scores", "turning_sparsities", "turning_weights"]

STEEPNESS = 13.1  # a: what sums over 128 windows of 1024 tokens, in units of 10^4, are for a mean


def angles(entering: Array, leaving: Array) -> Array:
    """theta_t = arccos(x_t . y_t / (|x_t| |y_t|)) / pi, (n,), from 0 (one direction) to 1 (opposite ones)

    It is computed as 2 atan2(|u - v|, |u + v|) / pi of the unit vectors u and v, which is right to 1e-16 for small angles too:
    an arccos in float64 knows none below 1e-8 (Kahan). A row of zeros is a right angle away from everything.

    entering, leaving: x and y, (n, d), floating and finite.
    """
    xp = namespace(entering, leaving)
    one, other = (unit_rows(xp, each) for each in (entering, leaving))
    return 2 / np.pi * xp.atan2(xp.linalg.vector_norm(one - other, axis=-1), xp.linalg.vector_norm(one + other, axis=-1))


def unit_rows(xp: Array, rows: Array) -> Array:
    """Every row over its norm, rows of zeros as they are. Entries are scaled first, so that no square leaves the range."""
    largest = xp.max(xp.abs(rows), axis=-1, keepdims=True)
    scaled = rows / xp.where(largest > 0, largest, 1.0)
    norm = xp.linalg.vector_norm(scaled, axis=-1, keepdims=True)
    return scaled / xp.where(norm > 0, norm, 1.0)


def turning_weights(turns: Sequence[float]) -> list[float]:
    """w_b = 1 / (1 + exp(-a (I_b - mean I))), a = 13.1: what parts of them blocks keep is in proportion to w.

    The released code of CFSP (Wang et al. 2024) sums I over all tokens, so that its weights depend on how many there are; here
    I is a mean, and a is what its 128 windows of 1024 tokens amount to.

    turns: I, the mean of `angles` over tokens, by block, of those of which something is to go.
    """
    given = np.asarray(turns, dtype=np.float64)
    return [float(each) for each in 1 / (1 + np.exp(-STEEPNESS * (given - given.mean())))]


def turning_sparsities(weights: Sequence[float], sizes: Sequence[int], sparsities: Sequence[float]) -> list[float]:
    """S_k = 1 - min(1, c w_k (1 - S0_k)) with c such that sum_k n_k S_k = sum_k n_k S0_k

    Operators keep parts, of what they would keep without it, in proportion to w.

    weights: w > 0, the `turning_weights` of the operators' blocks. sizes: n, how many weights they have. sparsities: S0.
    """
    weight, size, plain = (np.asarray(each, dtype=np.float64) for each in (weights, sizes, sparsities))
    kept = weight * (1 - plain)
    wanted, low, high = float(size @ (1 - plain)), 0.0, 1.0
    if kept.any():
        high = 1.0 / float(kept[kept > 0].min())  # there everything that keeps some keeps all
    for _ in range(200):  # the total rises with the factor, so that bisection meets it to rounding
        factor = 0.5 * (low + high)
        found = np.minimum(factor * kept, 1.0)
        low, high = (factor, high) if float(size @ found) < wanted else (low, factor)
    return [float(each) for each in 1 - found]


def proportional_scores(scores: np.ndarray, weight: float) -> np.ndarray:
    """s_u = w n / (1 + r_u), r_u the number of the n units with larger scores: the units above t are w / t of all, or all.

    One threshold for the units of many modules therefore keeps min(1, w_m / t) of each, to within a unit, and the best. Of
    equal scores the first counts as larger.

    scores: (n,), of a module. weight: w > 0.
    """
    place = np.empty(len(scores))
    place[np.argsort(-np.asarray(scores), kind="stable")] = np.arange(1, len(scores) + 1)
    return np.asarray(weight * len(scores) / place)
