"""Products with block-diagonal matrices that are kept as stacks of their blocks."""

from __future__ import annotations

from gramian.solvers.backend._xp import Array, copied, device, full, namespace

__all__ = [
    "column_blocks",
    "identities",
    "join_columns",
    "join_rows",
    "pseudo_inverses",
    "row_blocks",
    "times_left",
    "times_right",
]

# A block-diagonal matrix of n rows with blocks of k is (ceil(n / k), k, k). Where k does not divide n the last block reaches
# past the end; there it has the identity, which multiplies zeros.


def identities(length: int, size: int, like: Array) -> Array:
    """Return the identity of so many rows as a stack of blocks, (ceil(length / size), size, size)."""
    xp = namespace(like)
    count = -(-length // size)
    eye = xp.eye(size, dtype=like.dtype, device=device(like))
    return copied(xp.broadcast_to(eye[None, :, :], (count, size, size)))


def row_blocks(matrix: Array, size: int) -> Array:
    """Return a matrix (q, p) as blocks of rows, (n, size, p), zeros after the last row."""
    xp = namespace(matrix)
    rows, width = matrix.shape
    missing = -rows % size
    if missing:
        matrix = xp.concat([matrix, full((missing, width), 0.0, matrix)], axis=0)
    return xp.reshape(matrix, (-1, size, width))


def column_blocks(matrix: Array, size: int) -> Array:
    """Return a matrix (q, p) as blocks of columns, (n, q, size), zeros after the last column."""
    xp = namespace(matrix)
    rows, width = matrix.shape
    missing = -width % size
    if missing:
        matrix = xp.concat([matrix, full((rows, missing), 0.0, matrix)], axis=1)
    return xp.permute_dims(xp.reshape(matrix, (rows, -1, size)), (1, 0, 2))


def join_rows(blocks: Array, rows: int) -> Array:
    """Return the matrix (rows, p) of blocks of rows (n, size, p)."""
    return namespace(blocks).reshape(blocks, (-1, blocks.shape[2]))[:rows, :]


def join_columns(blocks: Array, width: int) -> Array:
    """Return the matrix (q, width) of blocks of columns (n, q, size)."""
    xp = namespace(blocks)
    return xp.reshape(xp.permute_dims(blocks, (1, 0, 2)), (blocks.shape[1], -1))[:, :width]


def times_left(blocks: Array, matrix: Array) -> Array:
    """Return A M for a block-diagonal A of so many rows as M (q, p)."""
    return join_rows(blocks @ row_blocks(matrix, blocks.shape[1]), matrix.shape[0])


def times_right(matrix: Array, blocks: Array) -> Array:
    """Return M B for a block-diagonal B of so many columns as M (q, p)."""
    return join_columns(column_blocks(matrix, blocks.shape[1]) @ blocks, matrix.shape[1])


def pseudo_inverses(stack: Array) -> Array:
    """Return H^+ of symmetric positive semidefinite matrices (n, k, k), in coordinates in which they have a unit diagonal.

    Eigenvalues below 100 k eps of the largest count as zero: of the minimisers of a quadratic that is flat somewhere, the one
    that changes least in these coordinates is meant. Without the coordinates a scale would decide what is flat.
    """
    xp = namespace(stack)
    diagonal = xp.linalg.diagonal(stack)
    scale = xp.sqrt(xp.where(diagonal > 0, diagonal, xp.ones_like(diagonal)))
    values, vectors = xp.linalg.eigh(stack / scale[:, :, None] / scale[:, None, :])
    floor = 100 * stack.shape[1] * float(xp.finfo(stack.dtype).eps) * xp.max(values, axis=1, keepdims=True)
    flat = values <= floor
    inverse = xp.where(flat, xp.zeros_like(values), 1 / xp.where(flat, xp.ones_like(values), values))
    found = (vectors * inverse[:, None, :]) @ xp.matrix_transpose(vectors)
    return found / scale[:, :, None] / scale[:, None, :]
