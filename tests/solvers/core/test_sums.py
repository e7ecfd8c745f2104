"""Sums of products: of squares half is computed, all of them are right, and what was given away stays as it is."""

from __future__ import annotations

import numpy as np
import pytest

from gramian.solvers import Moments
from gramian.solvers.backend.threads import Threads, crew
from gramian.solvers.core import sums as sums_file
from gramian.solvers.core.sums import ProductSum, TokenRows

ONE = Threads(None, 1)


def tiles(width: int) -> list[slice]:
    return [slice(first, min(first + 4, width)) for first in range(0, width, 4)]


@pytest.mark.parametrize("square", [True, False])
@pytest.mark.parametrize("width", [1, 3, 4, 7, 8, 9])
def test_tiles_make_a_whole(width, square, monkeypatch):
    monkeypatch.setattr(sums_file, "spans", tiles)
    rows = np.random.default_rng(width).integers(-8, 9, size=(2, 3, 5, width)).astype(float)  # exact in any order
    pairs = [(one, one if square else other) for one, other in zip(*rows)]
    found, expected = ProductSum(square), np.zeros((width, width))
    assert found.value is None
    for one, other in pairs:
        before = found.value
        kept = None if before is None else before.copy()
        found.add(one, other, ONE)
        expected += one.T @ other
        np.testing.assert_array_equal(found.value, expected)
        assert before is None or np.array_equal(before, kept)
    unread = ProductSum(square)
    for one, other in pairs:
        unread.add(one, other, ONE)
    np.testing.assert_array_equal(unread.value, expected)
    begun = ProductSum(square, expected.copy())
    begun.add(*pairs[0], ONE)
    np.testing.assert_array_equal(begun.value, expected + pairs[0][0].T @ pairs[0][1])
    given = ProductSum(square)
    given.add(*pairs[0], ONE, pairs[0][0].T @ pairs[0][1])
    given.add(*pairs[1], ONE)
    np.testing.assert_array_equal(given.value, sum(one.T @ other for one, other in pairs[:2]))


@pytest.mark.parametrize("width", [300, 1100])
def test_the_same_to_the_last_bit_on_any_number_of_threads(width):
    rows = np.random.default_rng(0).normal(size=(40, width))
    one, many = ProductSum(square=True), ProductSum(square=True)
    for batch in (rows[:23], rows[23:]):
        one.add(batch, batch, ONE)
        with crew(batch) as every:
            many.add(batch, batch, every)
    assert np.array_equal(one.value, many.value) and np.array_equal(one.value, one.value.T)
    np.testing.assert_allclose(one.value, rows.T @ rows, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("minus", [None, np.float32, np.float64])
def test_rows_are_kept_in_one_place(minus, monkeypatch):
    monkeypatch.setattr(TokenRows, "HEIGHT", 4)
    draw, rows, places = np.random.default_rng(0), TokenRows(), set()
    for count in (9, 3, 9):
        tokens = draw.normal(size=(count, 5)).astype(np.float32)
        other = None if minus is None else draw.normal(size=(count, 5)).astype(minus)
        found = rows(tokens, other, None, np.float64, ONE)
        expected = tokens.astype(np.float64) - (0 if other is None else other.astype(np.float64))
        np.testing.assert_array_equal(found, expected)
        places.add(found.ctypes.data)
    assert len(places) == 1
    exact = draw.normal(size=(3, 5))
    assert rows(exact, None, None, np.float64, ONE) is exact


def test_batches_of_single_precision_are_not_rounded():
    """Sums of what float32 holds exactly are those of float64, with and without dense counterparts, and inputs stay."""
    draw = np.random.default_rng(0)
    batches = draw.normal(size=(3, 2, 40, 300)).astype(np.float32)
    single, double = Moments(300), Moments(300)
    for star, dense in batches:
        before = star.copy(), dense.copy()
        single.update(star, dense)
        double.update(star.astype(np.float64), dense.astype(np.float64))
        assert np.array_equal(star, before[0]) and np.array_equal(dense, before[1])
    assert single.inputs.held is not None and single.differences.held is not None
    for name in ("gram", "cross", "drift", "total", "shift"):
        np.testing.assert_array_equal(getattr(single, name), getattr(double, name))
    assert single.inputs.held is None and single.differences.held is None


def test_what_is_not_finite_changes_nothing():
    good, bad = np.ones((4, 3), np.float32), np.ones((4, 3), np.float32)
    bad[2, 1] = np.nan
    moments = Moments(3)
    moments.update(good, good)
    before = [np.copy(getattr(moments, name)) for name in ("gram", "cross", "drift", "total", "shift")]
    for star, dense, message in ((bad, good, "the inputs hold"), (good, bad, "the dense inputs hold")):
        with pytest.raises(ValueError, match=message):
            moments.update(star, dense)
    after = [getattr(moments, name) for name in ("gram", "cross", "drift", "total", "shift")]
    assert all(np.array_equal(one, other) for one, other in zip(before, after)) and moments.tokens == 4
