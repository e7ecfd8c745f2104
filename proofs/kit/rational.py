"""Linear algebra in rational arithmetic, for counterexamples that no rounding can be blamed for.

A vector (n,) is a list of Fractions, a matrix (n, m) a list of n such rows, and every function takes the output of any other.
Sizes are tiny, so the loops are plain. `exact` brings numbers in.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, overload

__all__ = [
    "Matrix",
    "Rational",
    "Rows",
    "Vector",
    "dot",
    "echelon",
    "exact",
    "identity",
    "matmul",
    "rank",
    "solve",
    "transpose",
]

Rational = Fraction | int  # what is taken: integers are welcome as they are
Rows = Sequence[Sequence[Rational]]
Vector = list[Fraction]  # what is returned
Matrix = list[list[Fraction]]


def exact(values: Any) -> Any:
    """Return the same nesting of lists with Fractions for entries.

    values: a number, a list, a tuple or an array, at any depth. Integers, Fractions and strings such as "9/10" are what they
    say; a float is the binary number that it is, so 0.1 is not 1/10.
    """
    if hasattr(values, "tolist"):
        values = values.tolist()
    if isinstance(values, list | tuple):
        return [exact(value) for value in values]
    return Fraction(values)


def identity(size: int) -> Matrix:
    return [[Fraction(int(row == column)) for column in range(size)] for row in range(size)]


def transpose(matrix: Rows) -> Matrix:
    """Turn (n, m) into (m, n). A matrix without rows has lost its width, so it remains []."""
    return [list(column) for column in zip(*matrix, strict=True)]


def dot(left: Sequence[Rational], right: Sequence[Rational]) -> Fraction:
    """<x, y> of two vectors (n,)."""
    return Fraction(sum(x * y for x, y in zip(left, right, strict=True)))


@overload
def matmul(left: Rows, right: Rows) -> Matrix: ...


@overload
def matmul(left: Rows, right: Sequence[Rational]) -> Vector: ...


def matmul(left: Rows, right: Any) -> Any:
    """Multiply left (n, m) by right (m, k), or by a vector (m,), which gives a vector (n,)."""
    if is_vector(right):
        return [dot(row, right) for row in left]
    columns = transpose(right)
    return [[dot(row, column) for column in columns] for row in left]


def echelon(matrix: Rows) -> tuple[Matrix, list[int]]:
    """Return the reduced row echelon form and its pivot columns, by Gauss-Jordan elimination."""
    rows = exact(matrix)
    pivots: list[int] = []
    for column in range(len(rows[0]) if rows else 0):
        top = len(pivots)
        found = next((row for row in range(top, len(rows)) if rows[row][column] != 0), None)
        if found is None:
            continue
        rows[top], rows[found] = rows[found], rows[top]
        rows[top] = [value / rows[top][column] for value in rows[top]]
        for row in range(len(rows)):
            if row != top and rows[row][column] != 0:
                factor = rows[row][column]
                rows[row] = [value - factor * pivot for value, pivot in zip(rows[row], rows[top], strict=True)]
        pivots.append(column)
    return rows, pivots


def rank(matrix: Rows) -> int:
    return len(echelon(matrix)[1])


@overload
def solve(matrix: Rows, right: Rows) -> Matrix: ...


@overload
def solve(matrix: Rows, right: Sequence[Rational]) -> Vector: ...


def solve(matrix: Rows, right: Any) -> Any:
    """Return the x with matrix x = right, for a square matrix (n, n) and right (n, k) or a vector (n,); x is shaped like
    right.

    Raises ValueError where the matrix is not square or is singular, and where right has another number of rows.
    """
    size = len(matrix)
    if any(len(row) != size for row in matrix) or len(right) != size:
        raise ValueError(f"a system of {size} rows of {[len(row) for row in matrix]} for {len(right)} right-hand rows")
    flat = is_vector(right)
    columns = [[value] for value in right] if flat else right
    rows, pivots = echelon([[*row, *column] for row, column in zip(matrix, columns, strict=True)])
    if pivots[:size] != list(range(size)):
        raise ValueError(f"the matrix is singular: {size} rows of rank {rank(matrix)}")
    answer = [row[size:] for row in rows]
    return [row[0] for row in answer] if flat else answer


def is_vector(right: Sequence[Any]) -> bool:
    return bool(right) and not isinstance(right[0], list | tuple)
