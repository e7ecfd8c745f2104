"""Rows of inputs and targets as users give them, checked, and in float64 some at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gramian.solvers.backend._xp import Array, detached, device, namespace, same_library, to_numpy
from gramian.solvers.backend.sparse import SparseRows, is_sparse

__all__ = ["Block", "DenseRows", "TargetData"]

BLOCK = 2**22  # numbers of a block of rows, which is copied to be centred


@dataclass(frozen=True, eq=False)
class DenseRows:
    """Z, (n, p), in float64; with the methods of `SparseRows`."""

    values: Array

    @property
    def shape(self) -> tuple[int, int]:
        """Return (n, p)."""
        return self.values.shape[0], self.values.shape[1]

    def finite(self) -> bool:
        """Return whether there is neither NaN nor Inf."""
        xp = namespace(self.values)
        return bool(xp.all(xp.isfinite(self.values)))

    def sums(self, weights: Array) -> Array:
        """Return `weights^T Z`, (p,)."""
        return weights @ self.values

    def constants(self) -> tuple[Array, Array]:
        """Return for every column whether it holds one number only (p,), and its first entry (p,)."""
        return namespace(self.values).all(self.values == self.values[:1, :], axis=0), self.values[0, :]

    def minus(self, row: Array) -> DenseRows:
        """Return Z - 1 row^T."""
        return DenseRows(self.values - row)

    def times(self, weights: Array) -> Array:
        """Return `Z V^T`, (n, q)."""
        return self.values @ weights.T

    def under(self, left: Array) -> Array:
        """Return `R^T Z`, (q, p), for R (n, q)."""
        return left.T @ self.values


Block = tuple[DenseRows | SparseRows, Array, Array | None]  # inputs, targets (n, q), weights (n,)


@dataclass(frozen=True, eq=False)
class TargetData:
    """Hold rows of inputs and targets that were checked.

    inputs: X (N, p), an array or scipy.sparse's csr_array. targets: Y (N, q), float64. weights: c (N,), float64 and positive,
    or None for ones.
    """

    inputs: Array
    targets: Array
    weights: Array | None

    @classmethod
    def of(cls, inputs: Array, targets: Array, weights: Array | None = None) -> TargetData:
        """Check data; rows of weight zero are left out."""
        inputs, targets, weights = (each if each is None else held(each) for each in (inputs, targets, weights))
        xp = namespace(targets)
        targets = targets[:, None] if targets.ndim == 1 else targets
        if inputs.ndim != 2 or targets.ndim != 2 or inputs.shape[0] != targets.shape[0]:
            shapes = f"{tuple(inputs.shape)} but the targets are {tuple(targets.shape)}"
            raise ValueError(f"inputs must be (N, p) and targets (N,) or (N, q) with the same N, but the inputs are {shapes}")
        if not is_sparse(inputs):
            same_library(inputs, targets, ("inputs", "the targets"))
            if not xp.isdtype(inputs.dtype, ("real floating", "integral", "bool")):
                raise ValueError(f"the inputs must be real numbers but are {inputs.dtype}")
        if not xp.isdtype(targets.dtype, ("real floating", "integral", "bool")):
            raise ValueError(f"the targets must be real numbers but are {targets.dtype}")
        targets = xp.astype(targets, xp.float64)
        if is_sparse(inputs):
            inputs = inputs.tocsr()
        if weights is not None:
            same_library(weights, targets, ("weights", "the targets"))
            if tuple(weights.shape) != (targets.shape[0],):
                raise ValueError(
                    f"there must be one weight for each of {targets.shape[0]} rows but they are {tuple(weights.shape)}"
                )
            weights = xp.astype(weights, xp.float64)
            if not bool(xp.all((weights >= 0) & xp.isfinite(weights))):
                raise ValueError("weights of rows must be finite and at least zero")
            if bool(xp.any(weights == 0)):
                (kept,) = xp.nonzero(weights > 0)
                targets, weights = xp.take(targets, kept, axis=0), xp.take(weights, kept, axis=0)
                inputs = inputs[to_numpy(kept)] if is_sparse(inputs) else xp.take(inputs, kept, axis=0)
        data = cls(inputs, targets, weights)
        if not bool(xp.all(xp.isfinite(targets))):
            raise ValueError("the targets hold NaN or Inf")
        if not all(rows.finite() for rows, _, _ in data.blocks()):
            raise ValueError("the inputs hold NaN or Inf")
        return data

    @property
    def shape(self) -> tuple[int, int]:
        """Return (q, p), that of the weights."""
        return self.targets.shape[1], self.inputs.shape[1]

    def rows(self, chosen: np.ndarray) -> TargetData:
        """Return some of the rows, by their indices."""
        xp = namespace(self.targets)
        index = xp.asarray(chosen, device=device(self.targets))
        inputs = self.inputs[chosen] if is_sparse(self.inputs) else xp.take(self.inputs, index, axis=0)
        weights = None if self.weights is None else xp.take(self.weights, index, axis=0)
        return TargetData(inputs, xp.take(self.targets, index, axis=0), weights)

    def targets_of(self, chosen: np.ndarray) -> TargetData:
        """Return some of the targets, by their indices."""
        xp = namespace(self.targets)
        return TargetData(
            self.inputs, xp.take(self.targets, xp.asarray(chosen, device=device(self.targets)), axis=1), self.weights
        )

    def blocks(self) -> Iterator[Block]:
        """Iterate over all rows in float64: dense ones some at a time, since they are copied."""
        if is_sparse(self.inputs):
            if self.inputs.shape[0]:
                yield SparseRows.of(self.inputs, self.weights), self.targets, self.weights
            return
        xp, count, height = namespace(self.targets), self.inputs.shape[0], max(256, BLOCK // max(1, self.inputs.shape[1]))
        for first in range(0, count, height):
            part = slice(first, min(first + height, count))
            rows = DenseRows(xp.astype(self.inputs[part, :], xp.float64, copy=False))
            yield rows, self.targets[part, :], None if self.weights is None else self.weights[part]


def held(array: Array) -> Array:
    """Return an array of any library, or of scipy.sparse, apart from any graph; lists and data frames become numpy's."""
    return array if is_sparse(array) else detached(array) if hasattr(array, "__dlpack__") else np.asarray(array)
