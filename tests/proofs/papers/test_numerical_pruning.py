"""The claims of Numerical Pruning, and the rational arithmetic that its counterexamples are evaluated in."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gramian.proofs.kit.claims import Verdict
from gramian.proofs.kit.rational import dot, echelon, exact, identity, matmul, rank, solve, transpose
from gramian.proofs.numerical_pruning import CLAIMS


def test_every_statement_is_there() -> None:
    """In the paper's order, each once; N19b and N15b are the parts of a statement that fail where the rest holds."""
    numbers = [1, *range(3, 16), "15b", *range(16, 20), "19b", 20]
    assert [claim.id for claim in CLAIMS] == [f"N{number}" for number in numbers]
    assert all(claim.counterexamples for claim in CLAIMS if claim.verdict is Verdict.REFUTED)
    assert all(example.exact for claim in CLAIMS for example in claim.counterexamples)


square = st.integers(1, 4).flatmap(
    lambda size: st.tuples(*(arrays(int, shape, elements=st.integers(-3, 3)) for shape in ((size, size), (size, 2))))
)


@settings(deadline=None, derandomize=True, database=None)
@given(square)
def test_rational_algebra(case: tuple[np.ndarray, np.ndarray]) -> None:
    matrix, right = exact(case[0]), exact(case[1])
    size = len(matrix)
    assert rank(matrix) == np.linalg.matrix_rank(case[0]) == rank(transpose(matrix))
    assert matmul(matrix, right) == exact(case[0] @ case[1])
    reduced, pivots = echelon(matrix)
    assert [[reduced[row][pivot] for pivot in pivots] for row in range(len(pivots))] == identity(len(pivots))
    if rank(matrix) < size:
        with pytest.raises(ValueError, match="singular"):
            solve(matrix, right)
        return
    answer = solve(matrix, right)
    assert matmul(matrix, answer) == right
    column = [row[0] for row in right]
    assert solve(matrix, column) == [row[0] for row in answer]
    assert matmul(matrix, column) == [dot(row, column) for row in matrix]


def test_rational_numbers() -> None:
    assert exact(["9/10", 1, np.float64(0.5), (2,)]) == [Fraction(9, 10), 1, Fraction(1, 2), [2]]
    assert exact(0.1) != Fraction(1, 10)
    assert exact(np.array([[1, 2]])) == [[1, 2]]
    assert all(isinstance(entry, Fraction) for entry in exact(np.arange(3)))


def test_a_system_has_to_be_square() -> None:
    for matrix, right in (([[1, 2]], [1]), ([[1, 0], [0, 1]], [1])):
        with pytest.raises(ValueError, match="right-hand"):
            solve(exact(matrix), exact(right))
