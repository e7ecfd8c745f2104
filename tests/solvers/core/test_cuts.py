"""A cut that moves finds the very masks of the pattern, wherever it has been before."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gramian.solvers import NM, TopK
from gramian.solvers.core import cuts
from gramian.solvers.core.cuts import MovingCut

levels = st.lists(st.sampled_from([0.0, 1e-6, 0.96, 0.99, 1.0, 1.01, 1.04, 2.0, 1e6]), min_size=12, max_size=12)


@given(st.lists(levels, min_size=1, max_size=5), st.sampled_from([0.0, 0.25, 0.5, 0.9, 0.99]), st.booleans())
def test_masks_are_those_of_the_pattern(steps, sparsity, narrow):
    """Ties, zeros, and scores that jump by twelve orders of magnitude between steps."""
    pattern = TopK(sparsity)
    cut = MovingCut(pattern)
    for step in steps:
        score = np.array(step, np.float32 if narrow else np.float64).reshape(3, 4)
        np.testing.assert_array_equal(cut.largest(score), pattern.largest(score))


@pytest.mark.parametrize("pattern", [TopK(0.5), TopK(0.5, per_row=True), NM(2, 4)], ids=str)
def test_scores_that_drift(xp, pattern):
    rng = np.random.default_rng(7)
    score, cut = rng.random((20, 16)), MovingCut(pattern)
    for _ in range(12):
        score = np.abs(score + 0.01 * rng.normal(size=score.shape))
        np.testing.assert_array_equal(xp.numpy(cut.largest(xp.asarray(score))), pattern.largest(score))


def test_a_cut_that_moved_little_needs_no_other_selection(monkeypatch):
    rng = np.random.default_rng(8)
    score, cut = rng.random((40, 50)), MovingCut(TopK(0.5))
    cut.largest(score)
    sizes = []
    kth = cuts.kth_largest
    monkeypatch.setattr(cuts, "kth_largest", lambda rows, count: sizes.append(rows.shape[1]) or kth(rows, count))
    cut.largest(1.01 * score)
    assert len(sizes) == 1 and sizes[0] < score.size / 5
