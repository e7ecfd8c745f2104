"""Single rows of a layer in rational arithmetic, with their exact LASSO path, and the strategy that draws them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from hypothesis import strategies as st

from gramian.proofs.kit.homotopy import LassoPath, lasso_homotopy
from gramian.proofs.kit.rational import Rational, Rows, dot, exact, identity, matmul, transpose
from gramian.proofs.kit.strategies import Layer

__all__ = ["Row", "interior", "rows", "shares", "squared_error"]


@dataclass(frozen=True)
class Row:
    """One row of a layer in Fractions. star: X* (N, p). dense: X (N, p). weight: w (p,)."""

    star: list[list[Fraction]]
    dense: list[list[Fraction]]
    weight: list[Fraction]

    @cached_property
    def target(self) -> list[Fraction]:
        """y = X w, (N,)."""
        return matmul(self.dense, self.weight)

    @cached_property
    def gram(self) -> list[list[Fraction]]:
        return matmul(transpose(self.star), self.star)

    @cached_property
    def cross(self) -> list[Fraction]:
        """q = y X*, (p,)."""
        return matmul(transpose(self.star), self.target)

    @cached_property
    def path(self) -> LassoPath:
        return lasso_homotopy(self.gram, self.cross)

    @property
    def strict(self) -> bool:
        """Return whether |c_j| < lambda for every zero between knots, c = q - v G. Otherwise rounding may turn zeros into
        nonzeros."""
        for weight in interior(self.path, Fraction(1, 2)):
            point = self.path.weights(weight)
            slopes = [target - fitted for target, fitted in zip(self.cross, matmul(self.gram, list(point)))]
            if any(value == 0 and abs(slope) == weight for value, slope in zip(point, slopes)):
                return False
        return True

    def error(self, point: Any) -> Fraction:
        """|X* v - y|^2, which is twice the loss."""
        return sum(((a - b) ** 2 for a, b in zip(matmul(self.star, list(point)), self.target)), Fraction(0))

    @property
    def layer(self) -> Layer:
        star, dense, weight = (np.array(values, dtype=float) for values in (self.star, self.dense, [self.weight]))
        return Layer(star, weight, None if np.array_equal(star, dense) else dense)


@st.composite
def rows(draw: st.DrawFn, width: int = 4, largest: int = 3, definite: bool = False, drifted: bool | None = None) -> Row:
    """Draw integer rows, with ties, dead and duplicate channels, and fewer tokens than channels.

    definite: G > 0, because X* has I below it. drifted: whether X* != X; None draws either.
    """
    channels, tokens = draw(st.integers(1, width)), draw(st.integers(1, width + 1))
    different = draw(st.booleans()) if drifted is None else drifted
    lines = 1 + tokens * (1 + different)
    entry, count = st.integers(-largest, largest), lines * channels
    entries = exact(draw(st.lists(entry, min_size=count, max_size=count)))  # one flat list: nested ones are slow to draw
    weight, *table = [entries[channels * line : channels * (line + 1)] for line in range(lines)]
    star, dense = table[:tokens], table[-tokens:]
    below = identity(channels) if definite else []
    return Row(star + below, dense + below, weight)


def interior(path: LassoPath, share: Fraction) -> list[Fraction]:
    """Return one lambda strictly between every pair of knots."""
    return [segment.lower + share * (segment.upper - segment.lower) for segment in path.segments]


shares = st.fractions(Fraction(1, 10), Fraction(9, 10), max_denominator=10)


def squared_error(gram: Rows, change: Iterable[Rational]) -> Fraction:
    """|(W - V) X|^2 = (W - V) G (W - V)^T, where X* = X."""
    change = list(change)
    return dot(change, matmul(gram, change))
