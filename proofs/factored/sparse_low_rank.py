"""Weights of low rank in the norm of a Gram (claim R1), and sparse ones beside them in turn (claim R2)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from gramian.proofs.kit.backends import NUMPY
from gramian.proofs.kit.claims import Claim, Property, Verdict
from gramian.proofs.kit.strategies import Layer, layers
from gramian.solvers import TopK, low_rank, magnitude, sparse_low_rank

__all__ = ["R1", "R2"]

Solve = Callable[[Layer, int], np.ndarray]


class Ranked(NamedTuple):
    """layer: any. rank: at least 1."""

    layer: Layer
    rank: int


def ranked() -> st.SearchStrategy[Ranked]:
    """Draw layers, singular ones included, with a rank."""
    return st.builds(Ranked, layers(scales=(1.0,)), st.integers(1, 2))


def whitened(layer: Layer, rank: int) -> np.ndarray:
    """The toolkit's answer."""
    return np.asarray(low_rank(layer.problem(NUMPY), rank).weights)


def cut(weights: np.ndarray, rank: int) -> np.ndarray:
    """The r largest singular values and their directions."""
    left, values, right = np.linalg.svd(weights, full_matrices=False)
    return np.asarray((left[:, :rank] * values[:rank]) @ right[:rank])


def unwhitened(layer: Layer, rank: int) -> np.ndarray:
    """The best matrix of low rank in the norm of the weights themselves."""
    return cut(layer.weight, rank)


def by_channel_norms(layer: Layer, rank: int) -> np.ndarray:
    """The same with channels weighted by their norms alone, as if they were orthogonal (OATS)."""
    norms = np.linalg.norm(layer.inputs, axis=0)
    scale = np.where(norms > 0, norms, 1.0)
    return cut(layer.weight * scale, rank) / scale


def is_the_tail(case: Ranked, solve: Solve) -> None:
    """The loss is that of outputs of a rank: what singular values leave of the outputs that X* can have, from X and W."""
    layer, rank = case
    left, values, _ = np.linalg.svd(layer.inputs, full_matrices=False)
    span = left[:, values > 1e-9 * max(float(values[0]), 1e-300)]
    sizes = np.linalg.svd(span.T @ layer.outputs, compute_uv=False)
    outside = float(np.sum(layer.outputs**2)) - float(np.sum(sizes**2))
    least = 0.5 * (max(outside, 0.0) + float(np.sum(sizes[rank:] ** 2)))
    weights = solve(layer, rank)
    assert abs(layer.loss(weights) - least) <= 1e-9 * (layer.magnitude(weights) + 1e-300)
    assert np.linalg.matrix_rank(weights, tol=1e-7 * max(float(np.linalg.norm(weights)), 1e-300)) <= rank


R1 = Claim(
    "R1",
    "gramian, solvers/factored/whitened.py",
    "of all V of rank r, [V* R]_r R^+ with G = R R^T and V* = W - slope G^+ has the least loss, "
    "f(V*) + 1/2 (sigma_(r+1)^2 + ...) with the singular values of V* R, whether G is singular or not",
    Verdict.HOLDS,
    properties=(
        Property(
            "f([V* R]_r R^+) = f(V*) + 1/2 sum of the later singular values squared",
            ranked(),
            is_the_tail,
            whitened,
            {
                "singular values of the weights": unwhitened,
                "channels weighted by their norms": by_channel_norms,
                "one rank less": lambda layer, rank: np.asarray(
                    whitened(layer, rank - 1) if rank > 1 else np.zeros_like(layer.weight)
                ),
                "the slope left out": lambda layer, rank: whitened(Layer(layer.inputs, layer.weight), rank),
            },
        ),
    ),
)


Alternate = Callable[[Layer, int], list[float]]


def guarded(layer: Layer, rank: int) -> list[float]:
    """The losses of the toolkit's alternation, S by magnitude, which knows nothing of the loss."""
    solution = sparse_low_rank(layer.problem(NUMPY), TopK(0.5), rank, choose=magnitude, rounds=3, polish=1)
    return [loss for _, loss in solution.history]


def alternated(layer: Layer, rank: int, approximate: Solve) -> list[float]:
    """The losses of the same in numpy without a guard: S is the half of W - L that is largest, L approximates W - S."""
    pattern, low, found = TopK(0.5), np.zeros_like(layer.weight), []
    for _ in range(4):
        rest = layer.weight - low
        sparse = np.where(pattern.select(np.abs(rest)), rest, 0.0)
        found.append(layer.loss(sparse + low))
        low = approximate(Layer(layer.inputs, layer.weight - sparse), rank)
    return found


def never_rises(case: Ranked, alternate: Alternate) -> None:
    """No loss is above the one before it by more than rounding."""
    layer, rank = case
    allowed = 1e-9 * layer.magnitude(layer.weight)
    assert all(after <= before + allowed for before, after in pairwise(alternate(layer, rank)))


R2 = Claim(
    "R2",
    "gramian, solvers/factored/alternated.py",
    "S chosen by any method beside L, and taken only where f(S + L) falls, else refitted on its support, and L the best of its "
    "rank beside S, in turn: f(S + L) never rises",
    Verdict.HOLDS,
    properties=(
        Property(
            "f(S + L) after every step is at most what it was before",
            ranked(),
            never_rises,
            guarded,
            {
                "S taken whatever it costs": lambda layer, rank: alternated(layer, rank, whitened),
                "L by singular values of the weights": lambda layer, rank: alternated(layer, rank, unwhitened),
            },
        ),
    ),
)
