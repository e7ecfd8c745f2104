"""Rows of a scipy.sparse matrix, centred, in products with dense matrices; they are never dense as a whole."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

__all__ = ["SparseRows", "is_sparse"]

SPAN = 256  # rows of a Gram matrix that are formed at a time


def is_sparse(array: Any) -> bool:
    """Return whether this is a matrix or an array of scipy.sparse, without importing it."""
    scipy = sys.modules.get("scipy.sparse")
    return scipy is not None and bool(scipy.issparse(array))


@dataclass(frozen=True, eq=False)
class SparseRows:
    """Z = S - 1 o^T, (n, p), for a sparse S and a row o that is subtracted.

    Of columns that are filled by more than half S is kept dense, where o is subtracted at once; from the others it is not, and
    every product subtracts what it contributes. That is sound: of a column s of which a part d is filled, by weight, the mean
    accounts for no more than d <= 1/2 of the sum of squares (Cauchy-Schwarz), so that no more than a bit is lost. And the
    dense columns take less than twice the memory of what they were made of.

    stored: S without its filled columns, of scipy.sparse, in rows. columns: which are filled. filled: those of Z, (n, k).
    offset: o where it is not subtracted yet, (p,), which is zero on the filled columns.
    """

    stored: Any
    columns: np.ndarray
    filled: np.ndarray
    offset: np.ndarray

    @classmethod
    def of(cls, matrix: Any, weights: np.ndarray | None) -> SparseRows:
        """Prepare a matrix of scipy.sparse, whose rows have weights (n,), or None for ones, in float64."""
        from scipy.sparse import csr_array, diags_array

        rows = csr_array(matrix, dtype=np.float64)
        rows.sum_duplicates()
        present = csr_array((np.ones_like(rows.data), rows.indices, rows.indptr), shape=rows.shape)
        share = np.ones(rows.shape[0]) if weights is None else weights
        full = present.T @ share > 0.5 * share.sum()
        columns = np.flatnonzero(full)
        filled = rows[:, columns].toarray()
        if columns.size:
            rows = csr_array(rows @ diags_array(np.where(full, 0.0, 1.0)))
            rows.eliminate_zeros()
        return cls(rows, columns, filled, np.zeros(rows.shape[1]))

    @property
    def shape(self) -> tuple[int, int]:
        """Return (n, p)."""
        return self.stored.shape[0], self.stored.shape[1]

    def finite(self) -> bool:
        """Return whether there is neither NaN nor Inf."""
        return bool(np.isfinite(self.stored.data).all() and np.isfinite(self.filled).all())

    def sums(self, weights: np.ndarray) -> np.ndarray:
        """Return `weights^T Z`, (p,)."""
        found: np.ndarray = self.stored.T @ weights - weights.sum() * self.offset
        found[self.columns] = weights @ self.filled
        return found

    def constants(self) -> tuple[np.ndarray, np.ndarray]:
        """Return for every column of Z whether it is known to hold one number only (p,), and its first entry (p,)."""
        same, first = np.zeros(self.shape[1], dtype=bool), np.zeros(self.shape[1])
        same[self.columns] = (self.filled == self.filled[:1]).all(axis=0)
        first[self.columns] = self.filled[0]
        return same, first

    def minus(self, row: np.ndarray) -> SparseRows:
        """Return Z - 1 row^T."""
        rest = row.copy()
        rest[self.columns] = 0
        return replace(self, filled=self.filled - row[self.columns], offset=self.offset + rest)

    def times(self, weights: np.ndarray) -> np.ndarray:
        """Return `Z V^T`, (n, q)."""
        found: np.ndarray = self.stored @ weights.T - weights @ self.offset
        found += self.filled @ weights[:, self.columns].T
        return found

    def under(self, left: np.ndarray) -> np.ndarray:
        """Return `R^T Z`, (q, p), for R (n, q)."""
        found: np.ndarray = (self.stored.T @ left).T - left.sum(axis=0)[:, None] * self.offset
        found[:, self.columns] = left.T @ self.filled
        return found

    def gram(self, weights: np.ndarray | None) -> np.ndarray:
        """Return `Z^T diag(weights) Z`, (p, p), exactly symmetric."""
        from scipy.sparse import csr_array, diags_array

        count = self.shape[0]
        weights = np.ones(count) if weights is None else weights
        across = csr_array(diags_array(weights) @ self.stored)
        down, width = self.stored.T.tocsr(), self.shape[1]
        found = np.empty((width, width))
        for first in range(0, width, SPAN):
            part = slice(first, first + SPAN)
            found[part] = (down[part] @ across).toarray()
        total, sums = weights.sum(), self.stored.T @ weights
        found -= np.outer(sums, self.offset)
        found -= np.outer(self.offset, sums - total * self.offset)
        aside = self.under(self.filled * weights[:, None])  # (k, p)
        found[self.columns, :] = aside
        found[:, self.columns] = aside.T
        return 0.5 * (found + found.T)
