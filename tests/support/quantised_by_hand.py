"""Quantisation in plain loops: GPTQ with explicit inverses, and the best of all codes."""

from __future__ import annotations

from itertools import product

import numpy as np

from gramian.solvers import Grid

__all__ = ["best_codes", "loss_of", "plain_sweep"]


def plain_sweep(gram: np.ndarray, weight: np.ndarray, mask: np.ndarray, scales: np.ndarray, grid: Grid) -> np.ndarray:
    """The dequantised weights after columns are rounded from the left, all columns that remain solved for again each time.

    The best of the columns right of j, given all up to j, is a solve with the Gram matrix of those columns alone: no inverse
    is updated and no factor taken, which is how `quantise` does it.
    """
    found = weight.copy()
    for j in range(weight.shape[1]):
        scale = scales[:, j // grid.group]
        code = np.clip(np.round(found[:, j] / scale), grid.lowest, grid.highest)
        found[:, j] = np.where(mask[:, j], code * scale, 0.0)
        right = slice(j + 1, None)
        done = found[:, : j + 1] - weight[:, : j + 1]
        if j + 1 < weight.shape[1]:
            found[:, right] = weight[:, right] - np.linalg.solve(gram[right, right], gram[right, : j + 1] @ done.T).T
    return found


def loss_of(gram: np.ndarray, weight: np.ndarray, found: np.ndarray) -> np.ndarray:
    """1/2 (v - w) G (v - w) for every row."""
    change = found - weight
    return 0.5 * np.sum((change @ gram) * change, axis=1)


def best_codes(gram: np.ndarray, weight: np.ndarray, mask: np.ndarray, scales: np.ndarray, grid: Grid) -> np.ndarray:
    """The least loss of every row over all codes of its kept weights, scales held."""
    least = np.empty(len(weight))
    for row in range(len(weight)):
        kept = np.flatnonzero(mask[row])
        every = np.array(list(product(range(grid.lowest, grid.highest + 1), repeat=len(kept))), float)
        points = np.zeros((len(every), weight.shape[1]))
        points[:, kept] = every * scales[row, kept // grid.group]
        least[row] = loss_of(gram, weight[row], points).min()
    return least
