"""A cut that moves finds the very masks of the pattern, wherever it has been before."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Barrier

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gramian.solvers import NM, TopK
from gramian.solvers.core import cuts
from gramian.solvers.core.cuts import MovingCut

levels = st.lists(st.sampled_from([0.0, 1e-6, 0.96, 0.99, 1.0, 1.01, 1.04, 2.0, 1e6]), min_size=12, max_size=12)


@given(
    st.lists(levels, min_size=1, max_size=5),
    st.sampled_from([0.0, 0.25, 0.5, 0.9, 0.99]),
    st.booleans(),
    st.sampled_from([(0, 3), (0, 1, 3), (0, 1, 2, 3)]),
)
def test_masks_are_those_of_the_pattern(steps, sparsity, narrow, ends):
    """Ties, zeros, and scores that jump by twelve orders of magnitude between steps, in parts of the rows."""
    pattern, parts = TopK(sparsity), [slice(*each) for each in pairwise(ends)]
    cut = MovingCut(pattern, [part.stop - part.start for part in parts], range(len(parts)))
    for step in steps:
        score = np.array(step, np.float32 if narrow else np.float64).reshape(3, 4)
        np.testing.assert_array_equal(np.vstack(cut.largest([score[part] for part in parts])), pattern.largest(score))


@pytest.mark.parametrize("pattern", [TopK(0.5), TopK(0.5, per_row=True), NM(2, 4)], ids=str)
def test_scores_that_drift(xp, pattern):
    rng = np.random.default_rng(7)
    score, cut = rng.random((20, 16)), MovingCut(pattern)
    for _ in range(12):
        score = np.abs(score + 0.01 * rng.normal(size=score.shape))
        np.testing.assert_array_equal(xp.numpy(cut.largest([xp.asarray(score)])[0]), pattern.largest(score))


def test_parts_in_different_places_find_the_same_masks_and_give_few_scores(xp):
    """One process for each part, in threads that meet wherever scores are brought."""
    rng, rows, pattern = np.random.default_rng(9), [3, 20, 17], TopK(0.5)
    parts = [slice(0, 3), slice(3, 23), slice(23, 40)]
    meeting, table, sizes = Barrier(3), [None] * 3, []

    def bring_of(number):
        def bring(pieces, lengths):
            assert [piece.shape[0] for piece in pieces] == [lengths[number]]
            table[number] = pieces[0]
            meeting.wait(60)
            found = list(table)
            assert [piece.shape[0] for piece in found] == list(lengths)
            if number == 0:
                sizes.append(sum(lengths))
            meeting.wait(60)
            return found

        return bring

    cuts_there = [MovingCut(pattern, rows, [number], bring_of(number)) for number in range(3)]
    score = rng.random((40, 50))
    score[:, :4] = 0.5  # ties
    with ThreadPoolExecutor(3) as pool:
        for _ in range(4):
            found = pool.map(lambda cut, part, now: cut.largest([xp.asarray(now[part])])[0], cuts_there, parts, [score] * 3)
            np.testing.assert_array_equal(np.vstack([xp.numpy(each) for each in found]), pattern.largest(score))
            score = np.round(score * (1 + 0.01 * rng.normal()), 3)
    assert xp.gpu or (sizes[0] == score.size and max(sizes[1:]) < score.size / 3)


def test_a_cut_that_moved_little_needs_no_other_selection(monkeypatch):
    rng = np.random.default_rng(8)
    score, cut = rng.random((40, 50)), MovingCut(TopK(0.5))
    cut.largest([score])
    sizes = []
    kth = cuts.kth_largest
    monkeypatch.setattr(cuts, "kth_largest", lambda rows, count: sizes.append(rows.shape[1]) or kth(rows, count))
    cut.largest([1.01 * score])
    assert len(sizes) == 1 and sizes[0] < score.size / 5
