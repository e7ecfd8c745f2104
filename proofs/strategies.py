"""Layers to test on: hypothesis strategies that shrink to small integers, and planted problems of known optimum."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gramian.solvers import Quadratic

__all__ = ["Layer", "fractions", "from_gram", "layers", "normal_layer", "planted_lasso", "points", "scores"]


@dataclass(frozen=True)
class Layer:
    """inputs: X* (N, p). weight: W (q, p). dense: X (N, p), or None when X* = X."""

    inputs: np.ndarray
    weight: np.ndarray
    dense: np.ndarray | None = None

    @property
    def outputs(self) -> np.ndarray:
        """X W^T, what the compressed layer should deliver."""
        return (self.inputs if self.dense is None else self.dense) @ self.weight.T

    def row_losses(self, weights: np.ndarray) -> np.ndarray:
        """1/2 |X* v^T - X w^T|^2 per row, straight from the definition."""
        return 0.5 * np.sum((self.inputs @ weights.T - self.outputs) ** 2, axis=0)

    def loss(self, weights: np.ndarray) -> float:
        return float(np.sum(self.row_losses(weights)))

    @property
    def energy(self) -> float:
        return 0.5 * float(np.sum(self.outputs**2))

    @property
    def largest(self) -> float:
        """lambda_max: the largest entry of the gradient at zero."""
        return float(np.max(np.abs(self.outputs.T @ self.inputs)))

    def magnitude(self, weights: np.ndarray) -> float:
        """Size of the terms that a loss is the sum of: what rounding errors are relative to."""
        changed = np.sum((self.inputs @ weights.T) ** 2) + np.sum((self.inputs @ self.weight.T) ** 2)
        return float(changed + 2 * self.energy)

    def scaled(self, inputs: float = 1.0, weight: float = 1.0) -> Layer:
        dense = None if self.dense is None else self.dense * inputs
        return Layer(self.inputs * inputs, self.weight * weight, dense)

    def problem(self, xp: Any, dtype: str = "float64") -> Quadratic:
        dense = None if self.dense is None else xp.asarray(self.dense)
        problem = Quadratic.from_data(xp.asarray(self.inputs), xp.asarray(self.weight), dense)
        return problem.astype(xp.dtype(dtype))


small = st.integers(-3, 3).map(float)  # few values: ties, zeros and rank deficits are then the rule


@st.composite
def layers(
    draw: Any,
    tokens: int = 7,
    inputs: int = 5,
    outputs: int = 3,
    shifted: bool | None = None,
    scales: tuple[float, ...] = (1.0, 1e-6, 1e6),
) -> Layer:
    """A layer of at most `tokens` x `inputs` x `outputs`; shifted: X* != X, None for either. Axes may be one long."""
    n, p, q = draw(st.integers(1, tokens)), draw(st.integers(1, inputs)), draw(st.integers(1, outputs))
    if draw(st.booleans()):
        star, weight = (draw(arrays(float, shape, elements=small)) for shape in ((n, p), (q, p)))
        dense = draw(arrays(float, (n, p), elements=small))
    else:
        rng = np.random.default_rng(draw(st.integers(0, 2**16)))
        star, weight = rng.normal(size=(n, p)), rng.normal(size=(q, p))
        star *= np.logspace(0, -draw(st.integers(0, 2)), p)  # channels of unequal size: ill-conditioned Grams
        dense = star + 0.3 * rng.normal(size=(n, p))
    if draw(st.booleans()):
        star[:, draw(st.integers(0, p - 1))] = 0  # a dead channel
    if draw(st.booleans()):
        star[:, draw(st.integers(0, p - 1))] = star[:, draw(st.integers(0, p - 1))]  # a duplicate channel
    if shifted is None:
        shifted = draw(st.booleans())
    scale = draw(st.sampled_from(scales))
    return Layer(star, weight, dense if shifted else None).scaled(inputs=scale)


@st.composite
def points(draw: Any, layer: Layer) -> np.ndarray:
    """Weights V to judge on `layer`: zero, dense, or anywhere, some of them sparse."""
    kind = draw(st.sampled_from(["zero", "dense", "near", "any"]))
    if kind == "zero":
        return np.zeros_like(layer.weight)
    if kind == "dense":
        return layer.weight.copy()
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    noise = rng.normal(size=layer.weight.shape)
    weights = layer.weight + 0.1 * noise if kind == "near" else noise
    return weights * (rng.random(weights.shape) < draw(st.sampled_from([1.0, 0.5])))


fractions = st.sampled_from([1e-3, 0.03, 0.2, 0.5, 0.9, 1.0, 1.5])  # of lambda_max


def scores(rows: int = 4, columns: int = 12, multiple: int = 1) -> st.SearchStrategy[np.ndarray]:
    """Scores (q, p) with heavy ties, p a multiple of `multiple`."""
    sizes = st.tuples(st.integers(1, rows), st.integers(1, max(1, columns // multiple)).map(lambda k: k * multiple))
    return sizes.flatmap(lambda shape: arrays(float, shape, elements=small))


def from_gram(gram: Any, weight: Any) -> Layer:
    """The layer with this Gram matrix: X = G^(1/2)."""
    values, vectors = np.linalg.eigh(np.array(gram, dtype=float))
    return Layer((vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T, np.atleast_2d(np.array(weight, dtype=float)))


def normal_layer(
    seed: int, tokens: int, inputs: int, outputs: int, *, condition: float = 10.0, drift: float = 0.0, dead: int = 0
) -> Layer:
    """Gaussian weights; singular values of X* spread over 1..1/condition; X* - X of relative size `drift`."""
    rng = np.random.default_rng(seed)
    rank = min(tokens, inputs)
    left, _ = np.linalg.qr(rng.normal(size=(tokens, rank)))
    right, _ = np.linalg.qr(rng.normal(size=(inputs, rank)))
    star = (left * np.logspace(0, -np.log10(condition), rank)) @ right.T * np.sqrt(tokens)
    star[:, rng.permutation(inputs)[:dead]] = 0
    dense = star + drift * np.std(star) * rng.normal(size=star.shape) if drift else None
    return Layer(star, rng.normal(size=(outputs, inputs)), dense)


def planted_lasso(seed: int, inputs: int, outputs: int, weight: float) -> tuple[Layer, np.ndarray]:
    """A layer and the unique optimum V of its LASSO: W = V + lambda Z G^-1 with Z a subgradient of |V|_1, |Z| < 1 off
    the support, makes (V - W) G = -lambda Z."""
    layer = normal_layer(seed, 2 * inputs, inputs, outputs)
    rng = np.random.default_rng(seed + 1)
    optimum = rng.normal(size=(outputs, inputs)) * (rng.random((outputs, inputs)) < 0.4)
    slack = rng.uniform(-0.9, 0.9, size=optimum.shape)
    subgradient = np.where(optimum != 0, np.sign(optimum), slack)
    dense = optimum + weight * np.linalg.solve(layer.inputs.T @ layer.inputs, subgradient.T).T
    return replace(layer, weight=dense), optimum
