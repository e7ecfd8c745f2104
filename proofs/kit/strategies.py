"""Layers, terms and patterns to test on: hypothesis strategies, and planted problems of known optimum.

Every strategy shrinks towards few tokens, channels and outputs, X* = X, small whole numbers, nothing dead or duplicate and
scale one, so that a failure can be read. Nasty cases are common and not rare: ties, zeros, rank deficits, dead and duplicate
channels, fewer tokens than channels, axes of length one, inputs of size 1e-6 and 1e6.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gramian.solvers import (
    L1,
    NM,
    Affine,
    Box,
    ElasticNet,
    GroupL2,
    NonNegative,
    Nuclear,
    Pattern,
    Quadratic,
    Ridge,
    RowSum,
    Simplex,
    SparseGroup,
    Support,
    Term,
    TopK,
)

__all__ = [
    "PATTERNS",
    "TERMS",
    "Layer",
    "equalities",
    "fractions",
    "from_gram",
    "layers",
    "masks",
    "normal_layer",
    "patterns",
    "per_channel",
    "planted_lasso",
    "points",
    "scores",
    "small",
    "spectral_layers",
    "terms",
    "weights",
]


@dataclass(frozen=True)
class Layer:
    """inputs: X* (N, p). weight: W (q, p). dense: X (N, p), or None when X* = X."""

    inputs: np.ndarray
    weight: np.ndarray
    dense: np.ndarray | None = None

    @property
    def outputs(self) -> np.ndarray:
        """X W^T, which the compressed layer should deliver."""
        return np.asarray((self.inputs if self.dense is None else self.dense) @ self.weight.T)

    def row_losses(self, weights: np.ndarray) -> np.ndarray:
        """1/2 |X* v^T - X w^T|^2 per row, computed from the definition."""
        return np.asarray(0.5 * np.sum((self.inputs @ weights.T - self.outputs) ** 2, axis=0))

    def loss(self, weights: np.ndarray) -> float:
        return float(np.sum(self.row_losses(weights)))

    @property
    def energy(self) -> float:
        return 0.5 * float(np.sum(self.outputs**2))

    @property
    def largest(self) -> float:
        """Return lambda_max, the largest entry of the gradient at zero."""
        return float(np.max(np.abs(self.outputs.T @ self.inputs)))

    def magnitude(self, weights: np.ndarray) -> float:
        """Return the size of the terms that a loss is the sum of, which rounding errors are relative to."""
        changed = np.sum((self.inputs @ weights.T) ** 2) + np.sum((self.inputs @ self.weight.T) ** 2)
        return float(changed + 2 * self.energy)

    def scaled(self, inputs: float | np.ndarray = 1.0, weight: float | np.ndarray = 1.0) -> Layer:
        """Return the layer with channels multiplied. inputs, weight: factors, one number or one per channel (p,)."""
        dense = None if self.dense is None else self.dense * inputs
        return Layer(self.inputs * inputs, self.weight * weight, dense)

    def permuted(self, rows: Any = slice(None), columns: Any = slice(None)) -> Layer:
        """Return the layer with outputs and channels in another order."""
        dense = None if self.dense is None else self.dense[:, columns]
        return Layer(self.inputs[:, columns], self.weight[rows][:, columns], dense)

    def problem(self, xp: Any, dtype: str = "float64") -> Quadratic:
        dense = None if self.dense is None else xp.asarray(self.dense)
        problem = Quadratic.from_data(xp.asarray(self.inputs), xp.asarray(self.weight), dense)
        return problem.astype(xp.dtype(dtype))


# -- layers ------------------------------------------------------------------------------------------------------------

small = st.integers(-3, 3).map(float)  # few values: ties, zeros and rank deficits are then the rule
fractions = st.sampled_from([1e-3, 0.03, 0.2, 0.5, 0.9, 1.0, 1.5])  # of lambda_max
WHOLE = 256  # seeds below it, towards which a failure shrinks, stand for whole numbers


@st.composite
def full(draw: st.DrawFn, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    """Draw arrays of normal numbers from a seed, without ties or zeros; entries that are drawn one by one mostly repeat each
    other."""
    seed = draw(st.integers(0, 2**16))
    rng = np.random.default_rng(seed)
    if seed < WHOLE:
        return [rng.integers(-3, 4, size=shape).astype(float) for shape in shapes]
    return [rng.normal(size=shape) for shape in shapes]


@st.composite
def layers(
    draw: st.DrawFn,
    tokens: int = 7,
    inputs: int = 5,
    outputs: int = 3,
    shifted: bool | None = None,
    scales: tuple[float, ...] = (1.0, 1e-6, 1e6),
    multiple: int = 1,
) -> Layer:
    """Draw any layer that may come, of at most `tokens` x `inputs` x `outputs`, of whole numbers or normal ones.

    shifted: whether X* != X; None draws either. scales: of the inputs. multiple: what divides the number of inputs. Axes may
    be one long.
    """
    p = multiple * draw(st.integers(1, max(1, inputs // multiple)))
    moved = draw(st.booleans()) if shifted is None else shifted
    if draw(st.booleans()):
        n, q = draw(st.integers(1, tokens)), draw(st.integers(1, outputs))
        star, weight, drift = draw(full((n, p), (q, p), (n, p)))
        star *= np.logspace(0, -draw(st.integers(0, 2)), p)  # channels of unequal size: ill-conditioned Grams
        dense = star + 0.3 * drift
    else:
        weight, both = draw(rows(p, outputs)), draw(rows(2 * p if moved else p, tokens))
        star, dense = both[:, :p], both[:, -p:].copy()
    if draw(st.booleans()):
        star[:, draw(st.integers(0, p - 1))] = 0  # a dead channel
    if draw(st.booleans()):
        star[:, draw(st.integers(0, p - 1))] = star[:, draw(st.integers(0, p - 1))]  # a duplicate channel
    return Layer(star, weight, dense if moved else None).scaled(inputs=draw(st.sampled_from(scales)))


def rows(width: int, most: int) -> st.SearchStrategy[np.ndarray]:
    """Draw at most so many rows of a width, (rows, width), of whole numbers; they shrink by rows."""
    row = st.lists(small, min_size=width, max_size=width)
    return st.lists(row, min_size=1, max_size=most).map(np.array)


ANGLES = ((0.8, 0.6), (0.6, 0.8), (12 / 13, 5 / 13))  # cosine and sine


@st.composite
def spectral_layers(
    draw: st.DrawFn,
    inputs: int = 4,
    outputs: int = 2,
    *,
    rank: int | None = None,
    condition: float | None = None,
    shifted: bool = False,
) -> Layer:
    """Draw a layer of chosen rank and condition number: X* = diag(s) R, (rank, p), with singular values s from 1 down to 1 /
    condition and R a product of few rotations of two channels. G = X*^T X* has the condition number condition^2.

    rank: of X*, at most p; None draws it from 1 to p. condition: None draws it from 1 to 1000. Cases shrink to a diagonal
    Gram.
    """
    p, q = draw(st.integers(1, inputs)), draw(st.integers(1, outputs))
    held = draw(st.integers(1, p)) if rank is None else min(rank, p)
    worst = draw(st.sampled_from([1.0, 3.0, 30.0, 1000.0])) if condition is None else condition
    basis = np.eye(p)
    pair = st.tuples(st.integers(0, p - 1), st.integers(0, p - 1), st.sampled_from(ANGLES))
    for first, second, (cosine, sine) in draw(st.lists(pair, max_size=p)):
        if first != second:
            one, other = basis[:, first].copy(), basis[:, second].copy()
            basis[:, first], basis[:, second] = cosine * one - sine * other, sine * one + cosine * other
    star = np.geomspace(1, 1 / worst, held)[:, None] * basis[:held]
    moved = star + 0.25 * draw(arrays(float, star.shape, elements=small)) if shifted else None
    return Layer(star, draw(weights((q, p))), moved)


@st.composite
def weights(draw: st.DrawFn, shape: tuple[int, int]) -> np.ndarray:
    """Draw weights (q, p): small whole numbers, mostly tied, or normal ones without ties."""
    if draw(st.booleans()):
        return np.asarray(draw(full(shape))[0])
    return np.asarray(draw(arrays(float, shape, elements=small)))


@st.composite
def points(draw: st.DrawFn, layer: Layer) -> np.ndarray:
    """Draw weights V to evaluate on `layer`: zero, dense, or anywhere, and some of them sparse."""
    kind = draw(st.sampled_from(["zero", "dense", "near", "any"]))
    if kind == "zero":
        return np.zeros_like(layer.weight)
    if kind == "dense":
        return layer.weight.copy()
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    noise = rng.normal(size=layer.weight.shape)
    point = layer.weight + 0.1 * noise if kind == "near" else noise
    return np.asarray(point * (rng.random(point.shape) < draw(st.sampled_from([1.0, 0.5]))))


def scores(rows: int = 4, columns: int = 12, multiple: int = 1) -> st.SearchStrategy[np.ndarray]:
    """Draw scores (q, p) with heavy ties, where p is a multiple of `multiple`."""
    sizes = st.tuples(st.integers(1, rows), st.integers(1, max(1, columns // multiple)).map(lambda k: k * multiple))
    return sizes.flatmap(lambda shape: arrays(float, shape, elements=small))


def masks(shape: tuple[int, int]) -> st.SearchStrategy[np.ndarray]:
    """Draw boolean (q, p), every entry for itself, with full and empty rows among them."""
    return arrays(bool, shape, elements=st.booleans(), fill=st.nothing())


def per_channel(layer: Layer, values: tuple[float, ...]) -> st.SearchStrategy[np.ndarray]:
    """Draw one of these values for every channel, (p,)."""
    width = layer.weight.shape[1]
    return st.lists(st.sampled_from(values), min_size=width, max_size=width).map(np.array)


# -- terms and patterns ------------------------------------------------------------------------------------------------


def prices(shape: tuple[int, int], *values: float) -> st.SearchStrategy[Any]:
    """Draw one of these values, or an array of them, with one per row, per channel or per entry."""
    sizes = st.sampled_from([(), (1, 1), (shape[0], 1), (1, shape[1]), shape])
    one = st.sampled_from(values)
    return sizes.flatmap(lambda size: arrays(float, size, elements=one) if size else one)


def penalties(shape: tuple[int, int]) -> st.SearchStrategy[Any]:
    """Draw lambda, with zeros among them."""
    return prices(shape, 0.25, 1.0, 2.0, 0.0)


@st.composite
def equalities(draw: st.DrawFn, shape: tuple[int, int]) -> Affine:
    """Draw V A^T = D that some V satisfies; constraints may repeat or say nothing."""
    matrix = draw(arrays(float, (draw(st.integers(1, 3)), shape[1]), elements=small, fill=st.nothing()))
    return Affine(matrix, draw(weights(shape)) @ matrix.T)


def boxes(shape: tuple[int, int]) -> st.SearchStrategy[Box]:
    """Draw bounds of both signs, some of them equal; numbers and arrays."""
    pair = st.tuples(prices(shape, -1.0, 0.0, 0.25), prices(shape, 0.0, 0.5, 2.0))
    return pair.map(lambda bounds: Box(bounds[0], bounds[0] + bounds[1]))


def groups(width: int) -> st.SearchStrategy[np.ndarray]:
    """Draw the group of every channel, numbered from 0 without a gap."""
    labels = st.lists(st.integers(0, 2), min_size=width, max_size=width)
    return labels.map(lambda found: np.unique(found, return_inverse=True)[1])


@st.composite
def grouped(draw: st.DrawFn, kind: Callable[..., Any], shape: tuple[int, int], *first: st.SearchStrategy[float]) -> Any:
    """Draw a term of groups, whose last argument is a weight or one for each group."""
    labels, values = draw(groups(shape[1])), st.sampled_from([1.0, 0.25, 2.0, 0.0])
    weight = draw(st.one_of(values, arrays(float, int(labels.max()) + 1, elements=values)))
    return kind(labels, *map(draw, first), weight)


@st.composite
def sums(draw: st.DrawFn, kind: Callable[..., Any], shape: tuple[int, int], *totals: float) -> Any:
    """Draw a term with a prescribed sum of rows, of prices or not."""
    one = st.sampled_from(totals)
    values = st.sampled_from([1.0, 0.5, 2.0])
    total = draw(st.one_of(one, arrays(float, shape[0], elements=one)))
    return kind(total, draw(st.one_of(st.none(), arrays(float, shape[1], elements=values))))


Row = TypeVar("Row")

# How to draw one of each kind; a kind of term or pattern that is added to the toolkit needs a row here.
TERMS: dict[type, Callable[[tuple[int, int]], st.SearchStrategy[Term]]] = {
    L1: lambda shape: penalties(shape).map(L1),
    Ridge: lambda shape: penalties(shape).map(Ridge),
    ElasticNet: lambda shape: st.builds(ElasticNet, penalties(shape), penalties(shape)),
    GroupL2: lambda shape: grouped(GroupL2, shape),
    SparseGroup: lambda shape: grouped(SparseGroup, shape, st.sampled_from([0.5, 0.0, 1.0])),
    Nuclear: lambda shape: st.sampled_from([1.0, 0.25, 0.0]).map(Nuclear),
    NonNegative: lambda shape: st.builds(NonNegative, penalties(shape), penalties(shape)),
    Box: boxes,
    Simplex: lambda shape: sums(Simplex, shape, 1.0, 0.0, 2.5),
    RowSum: lambda shape: sums(RowSum, shape, 0.0, 1.0, -2.5),
    Support: lambda shape: masks(shape).map(Support),
    Affine: equalities,
}
PATTERNS: dict[type, Callable[[int], st.SearchStrategy[Pattern]]] = {
    TopK: lambda inputs: st.builds(TopK, st.sampled_from([0.5, 0.0, 0.01, 0.25, 1 / 3, 0.7, 0.99]), st.booleans()),
    NM: lambda inputs: st.sampled_from([(n, m) for m in range(1, 9) if inputs % m == 0 for n in range(1, m + 1)]).map(
        lambda pair: NM(*pair)
    ),
}


def terms(kind: type, shape: tuple[int, int]) -> st.SearchStrategy[Term]:
    """Draw terms of a class for weights of a shape (q, p). Raises LookupError for a class without a row in TERMS."""
    return row_of(TERMS, kind, "TERMS")(shape)


def patterns(kind: type, inputs: int) -> st.SearchStrategy[Pattern]:
    """Draw patterns of a class for weights of so many inputs. Raises LookupError for a class without a row in PATTERNS."""
    return row_of(PATTERNS, kind, "PATTERNS")(inputs)


def row_of(table: Mapping[type, Row], kind: type, name: str) -> Row:
    if kind not in table:
        raise LookupError(f"nothing says how to draw a {kind.__name__}: add a row to gramian.proofs.kit.strategies.{name}")
    return table[kind]


# -- layers that are made, not drawn -----------------------------------------------------------------------------------


def from_gram(gram: Any, weight: Any) -> Layer:
    """Return the layer with this Gram matrix, X = G^(1/2)."""
    values, vectors = np.linalg.eigh(np.array(gram, dtype=float))
    return Layer((vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T, np.atleast_2d(np.array(weight, dtype=float)))


def normal_layer(
    seed: int, tokens: int, inputs: int, outputs: int, *, condition: float = 10.0, drift: float = 0.0, dead: int = 0
) -> Layer:
    """Return a layer of Gaussian weights, with singular values of X* spread over 1..1/condition and X* - X of relative size
    `drift`."""
    rng = np.random.default_rng(seed)
    rank = min(tokens, inputs)
    left, _ = np.linalg.qr(rng.normal(size=(tokens, rank)))
    right, _ = np.linalg.qr(rng.normal(size=(inputs, rank)))
    star = (left * np.logspace(0, -np.log10(condition), rank)) @ right.T * np.sqrt(tokens)
    star[:, rng.permutation(inputs)[:dead]] = 0
    dense = star + drift * np.std(star) * rng.normal(size=star.shape) if drift else None
    return Layer(star, rng.normal(size=(outputs, inputs)), dense)


def planted_lasso(seed: int, inputs: int, outputs: int, weight: float) -> tuple[Layer, np.ndarray]:
    """Return a layer and the unique optimum V of its LASSO: W = V + lambda Z G^-1 with Z a subgradient of |V|_1, |Z| < 1 off
    the support, makes (V - W) G = -lambda Z."""
    layer = normal_layer(seed, 2 * inputs, inputs, outputs)
    rng = np.random.default_rng(seed + 1)
    optimum = rng.normal(size=(outputs, inputs)) * (rng.random((outputs, inputs)) < 0.4)
    slack = rng.uniform(-0.9, 0.9, size=optimum.shape)
    subgradient = np.where(optimum != 0, np.sign(optimum), slack)
    dense = optimum + weight * np.linalg.solve(layer.inputs.T @ layer.inputs, subgradient.T).T
    return replace(layer, weight=dense), optimum
