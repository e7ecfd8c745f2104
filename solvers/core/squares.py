"""Sums of A^T A over batches of rows, of which one half is computed."""

from __future__ import annotations

from gramian.solvers.backend._xp import Array, is_numpy_array, namespace

__all__ = ["SquareSum"]

BLOCK = 512  # columns that are multiplied at a time


class SquareSum:
    """sum A^T A in float64, exactly symmetric.

    numpy computes half of A^T A too, but copies the other half one number at a time: of 2048 channels that takes as long as
    the product of 1500 tokens. Here blocks of columns are multiplied with the columns from them on, and the other half is
    written when the sum is asked for.
    """

    def __init__(self, total: Array | None = None) -> None:
        self.total = total
        self.whole = True  # else only on and below the diagonal
        self.lent = total is not None  # what was given away must not change

    def add(self, rows: Array, product: Array | None = None) -> None:
        """Add A^T A of rows A (n, p), float64. product: A^T A, where it is at hand already."""
        if product is not None or not is_numpy_array(rows) or rows.shape[1] <= BLOCK:
            term = rows.T @ rows if product is None else product
            self.total = term if self.total is None else self.value + term
            self.lent = False
            return
        xp, width = namespace(rows), rows.shape[1]
        if self.total is None:
            self.total = xp.zeros((width, width), dtype=rows.dtype)
        elif self.lent:
            self.total = xp.asarray(self.total, copy=True)
        for first in range(0, width, BLOCK):
            part = slice(first, first + BLOCK)
            self.total[first:, part] += rows[:, first:].T @ rows[:, part]
        self.whole = self.lent = False

    @property
    def value(self) -> Array | None:
        """The sum (p, p), which no later batch changes; None before the first."""
        if not self.whole and self.total is not None:
            xp = namespace(self.total)
            for first in range(0, self.total.shape[0], BLOCK):
                part = slice(first, first + BLOCK)
                inside = xp.tril(self.total[part, part])
                self.total[part, part] = inside + xp.tril(inside, k=-1).T
                self.total[part, first + BLOCK :] = self.total[first + BLOCK :, part].T
            self.whole = True
        self.lent = True
        return self.total
