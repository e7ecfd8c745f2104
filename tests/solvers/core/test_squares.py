"""Sums of squares: half of them is computed, all of them are right, and what was given away stays as it is."""

from __future__ import annotations

import numpy as np
import pytest

from gramian.solvers.core import squares
from gramian.solvers.core.squares import SquareSum


@pytest.mark.parametrize("width", [1, 3, 4, 7, 8, 9])
def test_halves_make_a_whole(width, monkeypatch):
    monkeypatch.setattr(squares, "BLOCK", 4)
    batches = np.random.default_rng(width).integers(-8, 9, size=(3, 5, width)).astype(float)  # exact in any order
    found, expected = SquareSum(), np.zeros((width, width))
    assert found.value is None
    for batch in batches:
        before = found.value
        kept = None if before is None else before.copy()
        found.add(batch)
        expected += batch.T @ batch
        np.testing.assert_array_equal(found.value, expected)
        assert before is None or np.array_equal(before, kept)
    unread = SquareSum()
    for batch in batches:
        unread.add(batch)
    np.testing.assert_array_equal(unread.value, expected)
    other = SquareSum(expected.copy())
    other.add(batches[0])
    np.testing.assert_array_equal(other.value, expected + batches[0].T @ batches[0])
    given = SquareSum()
    given.add(batches[0], batches[0].T @ batches[0])
    given.add(batches[1])
    np.testing.assert_array_equal(given.value, sum(batch.T @ batch for batch in batches[:2]))


def test_symmetric_to_the_last_bit():
    found, rows = SquareSum(), np.random.default_rng(0).normal(size=(40, 1100))
    found.add(rows[:23])
    found.add(rows[23:])
    assert np.array_equal(found.value, found.value.T)
    np.testing.assert_allclose(found.value, rows.T @ rows, rtol=1e-12, atol=1e-12)
