"""What the tests of least squares under constraints share: answers by numpy's least squares, from X and W alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from gramian.proofs.strategies import Layer
from gramian.solvers import Solution, refit


def random_mask(seed: int, shape: tuple[int, int], density: float = 0.6) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < density


def unit_scale(layer: Layer) -> np.ndarray:
    norms = np.linalg.norm(layer.inputs, axis=0)
    return np.where(norms > 0, norms, 1.0)


def least_norm(design: np.ndarray, target: np.ndarray, size: float) -> tuple[np.ndarray, int]:
    """The x of least norm that minimises |D x - t| for D a part of something of that size, and the rank of D."""
    left, sizes, right = np.linalg.svd(design, full_matrices=False)
    rank = int(np.sum(sizes > 1e-7 * size))
    return right[:rank].T @ ((left[:, :rank].T @ target).T / sizes[:rank]).T, rank


def least_change(layer: Layer, mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Per row, of all least-squares weights on the support those nearest to the dense ones in v_j sqrt(G_jj), from X and
    W; and how many rows had others."""
    best, scale, deficient = np.where(mask, layer.weight, 0.0), unit_scale(layer), 0
    inputs = layer.inputs / scale
    for row, kept in enumerate(mask):
        missing = layer.outputs[:, row] - layer.inputs @ best[row]
        found, rank = least_norm(inputs[:, kept], missing, np.linalg.norm(inputs))
        best[row, kept] += found / scale[kept]
        deficient += rank < np.sum(kept)
    return best, int(deficient)


def close(point: np.ndarray, expected: np.ndarray, rtol: float = 1e-8) -> None:
    np.testing.assert_allclose(point, expected, rtol=rtol, atol=rtol * np.max(np.abs(expected), initial=1e-300))


def answer(xp: Any, layer: Layer, mask: np.ndarray, dtype: str = "float64") -> tuple[np.ndarray, Solution]:
    solution = refit(layer.problem(xp, dtype), xp.asarray(mask))
    point = xp.numpy(solution.weights)
    assert np.all(point[~mask] == 0) and solution.certificate.violation == 0
    return point, solution
