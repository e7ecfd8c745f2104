"""Orders of channels for n:m: never worse than the order as it is, planted orders, every order of a few channels."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gramian.proofs.kit.backends import NUMPY
from gramian.proofs.kit.strategies import full, normal_layer
from gramian.solvers import NM, refit
from gramian.solvers.support.channel_order import channel_order, kept_score, removal_scores


def kept_by_loops(score: np.ndarray, pattern: NM) -> float:
    """Row by row and group by group, by the pattern's own mask."""
    return float(np.sum(score * pattern.select(score)))


def best_of_all(score: np.ndarray, pattern: NM) -> float:
    return max(kept_by_loops(score[:, list(order)], pattern) for order in permutations(range(score.shape[1])))


@pytest.mark.parametrize("pattern", [NM(2, 4), NM(1, 4), NM(3, 4), NM(1, 2)])
def test_what_is_kept_is_what_the_pattern_selects(xp, pattern):
    score = np.random.default_rng(0).exponential(size=(5, 16)) ** 2
    assert kept_score(xp.asarray(score), pattern) == pytest.approx(kept_by_loops(score, pattern))


@given(scores=full((3, 8)), pattern=st.sampled_from([NM(2, 4), NM(1, 4), NM(3, 4), NM(1, 2), NM(2, 2), NM(8, 8)]))
@settings(max_examples=40)
def test_an_order_holds_every_channel_once_and_keeps_no_less(xp, scores, pattern):
    score = np.square(scores[0])
    order = channel_order(xp.asarray(score), pattern)
    np.testing.assert_array_equal(np.sort(order), np.arange(8))
    before, after = kept_by_loops(score, pattern), kept_by_loops(score[:, order], pattern)
    assert after >= before * (1 - 1e-12)
    if after <= before:
        np.testing.assert_array_equal(order, np.arange(8))
    np.testing.assert_array_equal(order, channel_order(xp.asarray(score), pattern))  # the same call twice


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("pattern", [NM(1, 2), NM(1, 3), NM(2, 3)])
def test_a_few_channels_against_every_order(seed, pattern):
    """Between two groups every exchange of a channel for another is one of the assignments; six channels are few enough for
    the search to end at the best of all orders from any start that was drawn."""
    score = np.random.default_rng(seed).exponential(size=(4, 6)) ** 2
    found = kept_by_loops(score[:, channel_order(score, pattern, sweeps=20)], pattern)
    best = best_of_all(score, pattern)
    assert kept_by_loops(score, pattern) <= found <= best * (1 + 1e-12)
    assert found >= 0.97 * best


def test_a_planted_order_is_found(xp):
    """All large channels stand side by side, and an order that spreads them two to a group loses nothing of them."""
    random = np.random.default_rng(3)
    large = np.arange(32) < 16
    score = np.where(large, 100 + random.random((6, 32)), random.random((6, 32)))
    order = channel_order(xp.asarray(score), NM(2, 4))
    np.testing.assert_array_equal(large[order].reshape(-1, 4).sum(axis=1), 2)
    assert kept_by_loops(score[:, order], NM(2, 4)) == pytest.approx(score[:, large].sum())


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="4"):
        channel_order(np.ones((2, 6)), NM(2, 4))
    with pytest.raises(ValueError, match="sweeps must be a whole number"):
        channel_order(np.ones((2, 8)), NM(2, 4), sweeps=0)


def test_scores_are_what_it_costs_to_remove_a_weight():
    """Twice the loss of a damped problem with one weight removed and the rest of its row refitted."""
    layer = normal_layer(0, 40, 4, 2)
    problem = layer.problem(NUMPY)
    damped = problem.damped(0.01 * float(np.mean(problem.diagonal)))
    scores = removal_scores(problem)
    for row, place in np.ndindex(2, 4):
        support = np.ones((2, 4), dtype=bool)
        support[row, place] = False
        assert scores[row, place] == pytest.approx(2 * damped.loss(refit(damped, support).weights))
