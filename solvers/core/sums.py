"""Sums of A^T B over batches of rows, tile by tile on every thread; of A^T A one half is computed."""

from __future__ import annotations

from typing import Any

import numpy as np

from gramian.solvers.backend._xp import Array, is_numpy_array, namespace
from gramian.solvers.backend.threads import Crew

__all__ = ["ProductSum", "TokenRows"]


class ProductSum:
    """sum A^T B in the precision of A, of two matrices or, with `square`, of one with itself, exactly symmetric.

    numpy arrays are multiplied tile by tile, each on one thread, so that the bytes do not depend on how many threads there are;
    and where threads of BLAS wait for more work in a loop, whatever else runs between two products takes twice as long.
    """

    def __init__(self, square: bool = False, total: Array | None = None) -> None:
        self.square, self.total = square, total
        self.whole = True  # else, of a square, only on and below the diagonal
        self.lent = total is not None  # what was given away must not change

    def add(self, left: Array, right: Array, every: Crew, product: Array | None = None) -> None:
        """Add A^T B of rows A and B (n, p); of a square both are the same. product: where it is at hand already."""
        if product is not None or not is_numpy_array(left):
            term = left.T @ right if product is None else product
            self.total = term if self.total is None else self.value + term
            self.lent = False
            return
        width = left.shape[1]
        if self.total is None:
            self.total = np.zeros((width, width), left.dtype)
        elif self.lent:
            self.total = self.total.copy()
        total, parts = self.total, spans(width)

        def tile(place: tuple[slice, slice]) -> None:
            total[place] += left[:, place[0]].T @ right[:, place[1]]

        every(tile, [(down, across) for down in parts for across in parts if not self.square or across.start <= down.start])
        self.whole, self.lent = not self.square, False

    @property
    def value(self) -> Array | None:
        """The sum (p, p), which no later batch changes; None before the first."""
        if not self.whole and self.total is not None:
            xp = namespace(self.total)
            for part in spans(self.total.shape[0]):
                inside = xp.tril(self.total[part, part])
                self.total[part, part] = inside + xp.tril(inside, k=-1).T
                self.total[part, part.stop :] = self.total[part.stop :, part].T
            self.whole = True
        self.lent = True
        return self.total


def spans(width: int) -> list[slice]:
    """Channels that are multiplied at a time: tiles are many enough for threads, and large enough for products."""
    size = 256 if width <= 1024 else 512
    return [slice(first, min(first + size, width)) for first in range(0, width, size)]


class TokenRows:
    """Batches of tokens as they are multiplied. numpy's are in memory that is asked of the system once, which takes as long as
    to fill it."""

    HEIGHT = 256  # rows that a thread fills at a time

    def __init__(self) -> None:
        self.held: np.ndarray | None = None

    def release(self) -> None:
        """Give the memory back, as long as no batch comes."""
        self.held = None

    def __call__(self, tokens: Array, minus: Array | None, root: Array | None, dtype: Any, every: Crew) -> Array:
        """Return tokens (n, p), or in float64 their difference from others, times the roots of their weights, in a dtype.

        The next batch will be where this one is."""
        xp = namespace(tokens, minus)
        if root is not None or not is_numpy_array(tokens) or dtype != xp.float64:
            found = tokens if minus is None else xp.astype(tokens, xp.float64) - xp.astype(minus, xp.float64)
            found = xp.astype(found, dtype, copy=False)
            if root is None:
                return found
            found = xp.where(root > 0, found, xp.zeros_like(found))  # padding may be NaN, which no weight makes zero
            return xp.astype(found * root, dtype, copy=False)
        if minus is None and tokens.dtype == xp.float64:
            return tokens
        count, width = tokens.shape
        if self.held is None or self.held.shape[0] < count:
            self.held = np.empty((count, width))
        rows = self.held[:count]

        def fill(part: slice) -> None:
            if minus is None:
                np.copyto(rows[part], tokens[part])
            else:
                np.subtract(tokens[part], minus[part], out=rows[part], dtype=np.float64)

        every(fill, [slice(first, first + self.HEIGHT) for first in range(0, count, self.HEIGHT)])
        return rows
