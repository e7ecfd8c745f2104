"""One entry of each of several lists, with a sum nearest to an amount, against all of them tried one by one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gramian.solvers.units.choice import nearest_choice


def every_choice(amounts, distances, wanted, at_least):
    """The least key of all admitted choices, by the definition; None where there is none."""
    gaps = [max(later - earlier for earlier, later in itertools.pairwise(sorted(each))) for each in amounts if len(each) > 1]
    near = min(gaps, default=0) * (1 if at_least else 0.5)
    keys = []
    for places in itertools.product(*[range(len(each)) for each in amounts]):
        total = sum(each[place] for each, place in zip(amounts, places))
        far = sum(each[place] for each, place in zip(distances, places))
        if total > 0 and (total >= wanted or not at_least):
            keys.append((max(abs(total - wanted), near), far, abs(total - wanted)))
    return min(keys, default=None), near


numbers = st.lists(st.integers(0, 40), min_size=1, max_size=7)


@given(
    lists=st.lists(numbers, min_size=1, max_size=4), wanted=st.integers(1, 120), at_least=st.booleans(), seed=st.integers(0, 9)
)
def test_it_is_the_best_of_all(lists, wanted, at_least, seed):
    """Entries in no order, some of them alike; distances are whole numbers, so that sums are exact."""
    amounts = [np.array(each) for each in lists]
    distances = [np.random.default_rng(seed).integers(0, 9, size=len(each)) for each in lists]
    best, near = every_choice(lists, distances, wanted, at_least)
    places = nearest_choice(amounts, distances, wanted, at_least=at_least)
    if best is None:
        assert places is None
        return
    assert places is not None
    total = sum(each[place] for each, place in zip(lists, places))
    far = sum(int(each[place]) for each, place in zip(distances, places))
    assert (max(abs(total - wanted), near), far, abs(total - wanted)) == best
    assert total > 0 and (total >= wanted or not at_least)


def test_large_lists_are_searched_quickly_and_exactly():
    """Two kinds of 11,008 channels and one of 32 heads: every sum within half a step is met, and heads are at their part."""
    channels, heads = 10 * np.arange(11008), 3000 * np.arange(32)
    wanted = 0.3 * (2 * 10 * 11008 + 3000 * 32)
    amounts = [channels, heads, channels]
    distances = [np.abs(each - 0.3 * total) for each, total in zip(amounts, (110080, 96000, 110080))]
    one, two, three = nearest_choice(amounts, distances, wanted)
    assert abs(channels[one] + heads[two] + channels[three] - wanted) <= 5
    assert heads[two] == 3000 * round(0.3 * 32)
    assert abs(channels[one] - 0.3 * 110080) + abs(channels[three] - 0.3 * 110080) <= abs(heads[two] - 0.3 * 96000) + 20


def test_what_changes_nothing_is_no_choice():
    zero = [np.zeros(3)]
    assert nearest_choice(zero, zero, 5.0) is None
    assert nearest_choice([np.array([0, 8])], [np.zeros(2)], 1.0) == [1]


@pytest.mark.parametrize("at_least", [False, True])
def test_a_budget_is_kept_to_and_a_ratio_is_met_from_either_side(at_least):
    steps = [np.arange(0, 100, 10)]
    assert steps[0][nearest_choice(steps, [np.zeros(10)], 41.0, at_least=at_least)[0]] == (50 if at_least else 40)
