"""Masks: exact to the count, whatever the ties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gramian.proofs.kit.references import brute_force_groups
from gramian.proofs.kit.strategies import scores
from gramian.solvers import NM, TopK, parse_pattern
from gramian.solvers.core import patterns

sparsities = st.sampled_from([0.0, 0.01, 0.25, 1 / 3, 0.5, 0.7, 0.9, 0.99])
groups = st.sampled_from([(1, 2), (2, 4), (1, 4), (3, 4), (4, 8), (1, 1), (2, 2), (1, 3)])


def first_wins(score: np.ndarray, count: int) -> np.ndarray:
    """The `count` largest of a flat array, the first among equals: a stable sort in descending order."""
    mask = np.zeros(score.size, dtype=bool)
    mask[np.argsort(-score, kind="stable")[:count]] = True
    return mask


@given(score=scores(), sparsity=sparsities)
def test_topk_over_the_matrix(xp, score, sparsity):
    pattern = TopK(sparsity)
    mask = pattern.select(xp.asarray(score))
    kept = score.size - int(np.floor(sparsity * score.size + 0.5))
    np.testing.assert_array_equal(xp.numpy(mask), first_wins(score.ravel(), kept).reshape(score.shape))
    assert pattern.admits(mask)
    again = pattern.select(xp.asarray(np.where(xp.numpy(mask), np.abs(score) + 1, 0.0)))
    np.testing.assert_array_equal(xp.numpy(again), xp.numpy(mask))  # idempotent


@given(score=scores(), sparsity=sparsities)
def test_topk_per_row(xp, score, sparsity):
    pattern = TopK(sparsity, per_row=True)
    mask = pattern.select(xp.asarray(score))
    kept = score.shape[1] - int(np.floor(sparsity * score.shape[1] + 0.5))
    np.testing.assert_array_equal(xp.numpy(mask), np.stack([first_wins(row, kept) for row in score]))
    assert pattern.admits(mask)


def test_topk_admits_by_count(xp):
    mask = np.array([[True, False, False, False], [True, True, True, False]])
    assert TopK(0.5).admits(xp.asarray(mask))
    assert not TopK(0.5, per_row=True).admits(xp.asarray(mask))
    assert TopK(0.25, per_row=True).admits(xp.asarray(mask))
    assert not TopK(0.75).admits(xp.asarray(mask))


@pytest.mark.parametrize("value", [0.0, 1.0, -2.0])
@pytest.mark.parametrize("per_row", [False, True])
def test_a_constant_score_keeps_the_first(xp, value, per_row):
    mask = xp.numpy(TopK(0.5, per_row).select(xp.asarray(np.full((2, 4), value))))
    expected = [[1, 1, 0, 0], [1, 1, 0, 0]] if per_row else [[1, 1, 1, 1], [0, 0, 0, 0]]
    np.testing.assert_array_equal(mask, np.array(expected, dtype=bool))


@pytest.mark.parametrize("size", [1, 2, 7, 100, 4096 * 11008])
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.3, 0.5, 0.7, 0.999])
def test_the_count_is_the_nearest(size, sparsity):
    assert abs(TopK(sparsity).zeros(size) - sparsity * size) <= 0.5 + 1e-6
    assert 0 <= TopK(sparsity).zeros(size) <= size


@pytest.mark.parametrize("bad", [-0.1, 1.0, 1.5, 50, float("nan"), float("inf")])
def test_sparsity_outside_the_unit_interval(bad):
    with pytest.raises(ValueError, match=r"sparsity must be in \[0, 1\) but is"):
        TopK(bad)


@given(data=st.data(), group=groups)
def test_nm_against_brute_force(xp, data, group):
    kept, size = group
    score = data.draw(scores(multiple=size), label="score")
    pattern = NM(kept, size)
    mask = pattern.select(xp.asarray(score))
    grouped = xp.numpy(mask).reshape(score.shape[0], -1, size)
    np.testing.assert_array_equal(grouped.sum(axis=2), np.full(grouped.shape[:2], kept))
    best = np.where(grouped, score.reshape(grouped.shape), 0).sum(axis=2)
    np.testing.assert_array_equal(best, brute_force_groups(score, kept, size))
    expected = [first_wins(part, kept) for part in score.reshape(-1, size)]
    np.testing.assert_array_equal(xp.numpy(mask), np.reshape(expected, score.shape))
    assert pattern.admits(mask)
    again = pattern.select(xp.asarray(np.where(xp.numpy(mask), np.abs(score) + 1, 0.0)))
    np.testing.assert_array_equal(xp.numpy(again), xp.numpy(mask))


@pytest.mark.parametrize("kept, size", [(1, 128), (100, 200), (3, 256), (60, 130)])
def test_nm_in_large_groups(xp, kept, size):
    score = np.random.default_rng(kept).normal(size=(2, 2 * size))
    mask = xp.numpy(NM(kept, size).select(xp.asarray(score)))
    expected = [first_wins(part, kept) for part in score.reshape(-1, size)]
    np.testing.assert_array_equal(mask, np.reshape(expected, score.shape))


@given(data=st.data(), group=groups)
def test_nm_admits_what_has_at_most_n_per_group(xp, data, group):
    kept, size = group
    mask = data.draw(scores(multiple=size), label="score") > 0
    expected = bool(np.all(mask.reshape(-1, size).sum(axis=1) <= kept))
    assert NM(kept, size).admits(xp.asarray(mask)) == expected


def test_nm_of_the_magnitude_is_the_euclidean_projection(xp):
    """No choice of 2 in 4 is nearer; and 1:4 leaves a quarter: n:m is the density, not the sparsity."""
    weights = np.random.default_rng(3).normal(size=(3, 8))
    for kept, size in ((2, 4), (1, 4)):
        mask = xp.numpy(NM(kept, size).select(xp.asarray(weights**2)))
        lost = np.where(mask, 0, weights**2).sum()
        assert lost == pytest.approx(np.sum(weights**2) - brute_force_groups(weights**2, kept, size).sum())
        assert NM(kept, size).sparsity == 1 - kept / size == np.mean(~mask)


def test_a_group_that_does_not_divide(xp):
    for call in (NM(2, 4).select, NM(2, 4).admits):
        with pytest.raises(ValueError, match=r"pattern 2:4 needs a multiple of 4 inputs but weight is \(3, 6\)"):
            call(xp.asarray(np.ones((3, 6)) > 0))
    with pytest.raises(ValueError, match="multiple of 4"):
        NM(2, 4).check((3, 6))
    NM(2, 4).check((3, 8))
    TopK(0.5).check((3, 7))


@pytest.mark.parametrize("kept, size", [(0, 4), (5, 4), (-1, 2)])
def test_impossible_groups(kept, size):
    with pytest.raises(ValueError, match=rf"keeps 1 <= n <= m weights but is {kept}:{size}"):
        NM(kept, size)


def test_parse_pattern():
    assert parse_pattern("2:4") == NM(2, 4) and parse_pattern(" 1:2 ") == NM(1, 2)
    assert str(parse_pattern("4:8")) == "4:8"
    for text in ("", "2", "2:", ":4", "2/4", "2:4:8", "a:b", "-2:4", "2.0:4", "50%", "2:4x"):
        with pytest.raises(ValueError, match="written n:m") as caught:
            parse_pattern(text)
        assert repr(text) in str(caught.value)
    for text in ("0:4", "5:4"):
        with pytest.raises(ValueError, match="1 <= n <= m"):
            parse_pattern(text)


def test_names():
    assert str(TopK(0.5)) == "50%" and str(TopK(0.125, per_row=True)) == "12.5% per row"


@pytest.mark.parametrize("pattern", [TopK(0.5), TopK(0.5, per_row=True), NM(1, 2)], ids=str)
def test_a_score_that_is_not_a_number_is_rejected(xp, pattern):
    """NaN compares with nothing, so a count could not be exact; it must not pass in silence."""
    score = np.ones((2, 4))
    score[0, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        pattern.select(xp.asarray(score))


@given(score=scores(rows=3, columns=8), sparsity=sparsities)
@settings(max_examples=20)
def test_float32_scores(xp, score, sparsity):
    assume(score.size > 0)
    single, double = (xp.numpy(TopK(sparsity).select(xp.asarray(score, dtype))) for dtype in ("float32", "float64"))
    np.testing.assert_array_equal(single, double)


@pytest.mark.parametrize("per_row", [False, True])
def test_without_waiting_the_mask_is_the_same(xp, per_row, monkeypatch):
    """On a device ties are settled whether there are any or not."""
    rng = np.random.default_rng(3)
    for values in (rng.normal(size=(4, 9)), rng.integers(0, 3, (4, 9)), np.zeros((4, 9)), np.full((1, 1), 2.0)):
        for sparsity in (0.0, 0.3, 0.5, 0.9):
            pattern, score = TopK(sparsity, per_row=per_row), xp.asarray(values, "float64")
            expected = xp.numpy(pattern.select(score))
            with monkeypatch.context() as patched:
                patched.setattr(patterns, "on_host", lambda array: False)
                np.testing.assert_array_equal(xp.numpy(pattern.largest(score)), expected)
