"""Layers, starts and plain checks that the tests of methods share."""

from __future__ import annotations

import numpy as np

from gramian.proofs.kit.strategies import Layer, normal_layer
from gramian.solvers import NM, Pattern, Quadratic, TopK, sparsegpt
from gramian.solvers.support.baselines import magnitude, wanda

PATTERNS = [TopK(0.5), TopK(0.5, per_row=True), NM(2, 4), NM(1, 4), TopK(0.8)]
STARTS = {"magnitude": magnitude, "wanda": wanda, "sparsegpt": sparsegpt}
PLAIN = normal_layer(0, 60, 24, 10, condition=30)
SHIFTED = normal_layer(1, 60, 24, 10, condition=30, drift=0.3)


def problem_of(layer: Layer) -> Quadratic:
    return Quadratic.from_data(layer.inputs, layer.weight, layer.dense)


def planted(seed: int, pattern: Pattern) -> tuple[Layer, np.ndarray]:
    """A layer with X W^T = X* P^T, and the sparse weights P, which are nothing like W: there is no loss at P alone."""
    layer, rng = normal_layer(seed, 200, 24, 5, condition=5.0), np.random.default_rng(seed)
    support = pattern.select(rng.random((5, 24)))
    sparse = np.where(support, np.sign(layer.weight) * (0.5 + rng.random((5, 24))), 0.0)
    return Layer(layer.inputs, layer.weight, layer.inputs @ sparse.T @ np.linalg.pinv(layer.weight.T)), sparse


def relative_error(layer: Layer, weights: np.ndarray) -> float:
    return layer.loss(weights) / layer.energy


def kept_counts(weights: np.ndarray, pattern: Pattern) -> np.ndarray:
    alive = weights != 0
    if isinstance(pattern, NM):
        return alive.reshape(-1, pattern.group).sum(axis=1)
    return alive.sum(axis=1) if pattern.per_row else alive.sum()


def allowed(weights: np.ndarray, pattern: Pattern) -> int:
    if isinstance(pattern, NM):
        return pattern.kept
    size = weights.shape[1] if pattern.per_row else weights.size
    return size - round(pattern.sparsity * size)


def hard(score: np.ndarray, pattern: Pattern) -> np.ndarray:
    """Mask of the largest scores, by sorting."""
    groups = {True: score, False: score.reshape(1, -1)}[getattr(pattern, "per_row", False)]
    if isinstance(pattern, NM):
        groups = score.reshape(-1, pattern.group)
    kept = allowed(score, pattern)
    rank = np.argsort(np.argsort(-groups, axis=1, kind="stable"), axis=1)
    return (rank < kept).reshape(score.shape)
