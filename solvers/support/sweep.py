"""One sweep over the columns of a layer, each projected in turn, its error moved into those on its right."""

from __future__ import annotations

from typing import Protocol

from gramian.solvers.backend._xp import Array, copied, namespace

__all__ = ["NEARBY", "Projection", "swept"]

NEARBY = 16  # columns of a block that are updated one by one


class Projection(Protocol):
    """What a column becomes, in every row by itself."""

    def __call__(self, part: Array, first: int, j: int, /) -> Array:
        """Return what column first + j becomes, (q,).

        part: (b, q), the columns of a block from `first` on as they are now. Those left of j are final. Where j begins columns
        that are updated one by one, all of the block is what is best given what has been decided.
        """
        ...


def swept(columns: Array, factor: Array, project: Projection, *, block: int, nearby: int = NEARBY) -> Array:
    """Return V^T after V_{j:} -= (v_j - projected v_j) / U_jj * U_{j,j:} for j = 1..p, where A^-1 = U^T U

    If V minimises 1/2 <(V - T) A, V - T> given its first j - 1 columns, it does so given its first j afterwards.

    columns: V^T (p, q), so that a column of V is contiguous; it is overwritten. factor: U (p, p), upper triangular. block:
    columns whose errors wait for one product. nearby: columns of a block that are updated one by one; those further right in
    the block wait for a product of so many errors.
    """
    xp = namespace(columns)
    pivots = xp.linalg.diagonal(factor)
    width = columns.shape[0]
    for first in range(0, width, block):
        last = min(first + block, width)
        part = copied(columns[first:last, :])
        errors = xp.zeros_like(part)
        for near in range(0, last - first, nearby):
            far = min(near + nearby, last - first)
            for j in range(near, far):
                row = project(part, first, j)
                error = (part[j, :] - row) / pivots[first + j]
                part[j:far, :] -= factor[first + j, first + j : first + far][:, None] * error[None, :]
                part[j, :] = row
                errors[j, :] = error
            if first + far < last:
                part[far:, :] -= factor[first + near : first + far, first + far : last].T @ errors[near:far, :]
        columns[first:last, :] = part
        if last < width:
            columns[last:, :] -= factor[first:last, last:].T @ errors
    return columns
