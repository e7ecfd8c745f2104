"""Angles between rows against plane geometry, and scores whose cut keeps parts in proportion."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gramian.proofs.kit.backends import backends
from gramian.solvers.levels.turning_blocks import angles, proportional_scores, turning_sparsities, turning_weights


@pytest.mark.parametrize("turn", [0.0, 1e-12, 1e-9, 1e-5, 0.1, 0.5, 0.9, 1 - 1e-9, 1.0])
@pytest.mark.parametrize("scale", [1e-200, 1e-6, 1.0, 1e6, 1e200])
def test_angles_in_a_plane(turn, scale):
    """(1, 0) and (cos, sin) of an angle, in any length: to rounding, small ones too."""
    x, y = np.array([[1.0, 0.0]]), np.array([[math.cos(turn * math.pi), math.sin(turn * math.pi)]])
    assert float(angles(scale * x, y)[0]) == pytest.approx(turn, rel=1e-12, abs=1e-15)
    assert float(angles(y, x / scale)[0]) == pytest.approx(turn, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("library", backends(), ids=str)
def test_against_the_cosine(library):
    """Where angles are neither small nor nearly opposite an arccos says the same."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 50, 7))
    expected = np.arccos((x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)) / np.pi
    np.testing.assert_allclose(library.numpy(angles(library.asarray(x), library.asarray(y))), expected, rtol=1e-9)


def test_zeros_are_a_right_angle_away():
    assert angles(np.zeros((1, 3)), np.ones((1, 3))) == angles(np.ones((1, 3)), np.zeros((1, 3))) == [0.5]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_weights_rise_with_the_angle(turns):
    weights = np.array(turning_weights(turns))
    assert (weights > 0).all() and (weights < 1).all()
    order = np.argsort(turns)
    assert (np.diff(weights[order]) >= 0).all()
    logits = np.log(weights / (1 - weights))
    np.testing.assert_allclose(logits - logits[0], 13.1 * (np.array(turns) - turns[0]), atol=1e-6)


@given(
    st.lists(
        st.tuples(st.sampled_from([0.125, 0.25, 0.5, 1.0]), st.lists(st.integers(0, 5), min_size=1, max_size=12)), min_size=1
    ),
    st.data(),
)
def test_a_cut_keeps_parts_in_proportion(modules, data):
    """The units above any cut t are the best floor(w n / t) of each module, or all of it."""
    scored = [proportional_scores(np.array(scores, float), weight) for weight, scores in modules]
    cut = data.draw(st.sampled_from(sorted(set(np.concatenate(scored)))))
    for (weight, scores), found in zip(modules, scored):
        kept = found >= cut
        assert kept.sum() == min(len(scores), math.floor(weight * len(scores) / cut * (1 + 1e-12)))
        if kept.any() and not kept.all():
            assert np.min(np.array(scores)[kept]) >= np.max(np.array(scores)[~kept])


@given(
    st.lists(st.tuples(st.floats(0.01, 1), st.integers(1, 9), st.sampled_from([0.0, 0.3, 0.5, 0.97])), min_size=1, max_size=6)
)
def test_sparsities_meet_the_total_in_proportion(blocks):
    weights, sizes, plain = zip(*blocks)
    found = np.array(turning_sparsities(weights, sizes, plain))
    assert (found >= 0).all() and (found < 1).all()
    assert np.dot(sizes, found) == pytest.approx(np.dot(sizes, plain), abs=1e-9 * sum(sizes))
    part = (1 - found) / (np.array(weights) * (1 - np.array(plain)))
    free = found > 1e-12
    if free.any():
        assert np.ptp(part[free]) <= 1e-9 * part[free].max()
        assert (part[~free] <= part[free].max() * (1 + 1e-9)).all()  # what is cut off would have kept more than all
