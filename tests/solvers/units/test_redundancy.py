"""Which heads leave: Algorithm 1 as printed, independent sets, components and orders, against brute force."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gramian.solvers.units.redundancy import (
    RULES,
    apart,
    cover,
    farthest_first,
    redundant,
    redundant_first,
    representatives,
    scan,
    similarity_groups,
)


@st.composite
def instances(draw):
    """Distances with many ties, some of them zero, weights with ties, and a threshold that some distances equal."""
    size = draw(st.integers(1, 7))
    entries = draw(st.lists(st.integers(0, 4), min_size=size * size, max_size=size * size))
    upper = np.triu(np.array(entries, dtype=float).reshape(size, size), 1) / 4
    weights = np.array(draw(st.lists(st.integers(0, 3), min_size=size, max_size=size)), dtype=float)
    return upper + upper.T, weights, draw(st.sampled_from([0.0, 0.25, 0.3, 0.75, 2.0]))


def printed(distances, threshold) -> list[int]:
    """Algorithm 1, line by line; `edges` is read and never written."""
    candidates, edges = [], []
    for i in range(len(distances)):
        for j in range(len(distances)):
            if distances[i][j] < threshold and (i, j) not in edges and (j, i) not in edges and i != j:
                if i not in candidates and j not in candidates:
                    candidates.append(i)
    return candidates


@given(instances())
def test_the_scan_is_the_printed_algorithm(instance):
    distances, _, threshold = instance
    assert scan(distances, threshold).tolist() == printed(distances, threshold)


def independent(distances, threshold, chosen) -> bool:
    return all(distances[i, j] >= threshold for i, j in combinations(chosen, 2))


def dominating(distances, threshold, chosen) -> bool:
    return all(i in chosen or min(distances[i, chosen]) < threshold for i in range(len(distances)))


@given(instances())
def test_representatives_are_independent_and_dominating_and_the_heaviest_that_are(instance):
    distances, weights, threshold = instance
    kept = representatives(distances, threshold, weights).tolist()
    assert independent(distances, threshold, kept) and dominating(distances, threshold, kept)
    # of all maximal independent sets it comes first in the order of weights
    sets = (set(some) for size in range(1, len(weights) + 1) for some in combinations(range(len(weights)), size))
    maximal = [some for some in sets if independent(distances, threshold, some) and dominating(distances, threshold, [*some])]
    order = sorted(range(len(weights)), key=lambda i: (-weights[i], i))
    assert max(maximal, key=lambda some: [i in some for i in order]) == set(kept)


@given(instances())
def test_groups_are_the_components(instance):
    distances, _, threshold = instance
    size = len(distances)
    reach = np.eye(size, dtype=bool) | (distances < threshold)
    for _ in range(size):
        reach = reach @ reach
    groups = similarity_groups(distances, threshold)
    assert sorted(i for group in groups for i in group) == list(range(size))
    place = {i: k for k, group in enumerate(groups) for i in group}
    assert all((place[i] == place[j]) == reach[i, j] or threshold == 0 for i in range(size) for j in range(size))
    assert all(list(group) == sorted(group) for group in groups) and list(groups) == sorted(groups)


@given(instances())
def test_every_number_of_heads_has_its_threshold(instance):
    distances, weights, _ = instance
    order, radii = farthest_first(distances, weights)
    assert sorted(order) == list(range(len(weights))) and weights[order[0]] == weights.max() and radii[0] == np.inf
    assert np.all(np.diff(radii[1:]) <= 0)
    for count in range(1, len(order) + 1):
        first = order[:count].tolist()
        assert independent(distances, radii[count - 1] if count > 1 else 0, first)
        if count < len(order):
            assert cover(distances, first).max() == radii[count]
        if count > 1 and radii[count - 1] > 0:  # a maximal independent set at the threshold radius[count - 1]
            assert count == len(order) or radii[count] <= radii[count - 1]
            assert all(min(distances[i, first]) <= radii[count - 1] for i in range(len(order)))
    scores = redundant_first(distances, weights, None)
    assert np.argsort(-scores).tolist() == order.tolist() and (scores < 0).sum() == len(order) - 1


@given(instances(), st.sampled_from(["independent", "scan"]))
def test_redundant_heads_leave_first_and_then_the_lightest(instance, rule):
    distances, weights, threshold = instance
    scores = redundant_first(distances, weights, threshold, rule)
    removed = printed(distances, threshold)
    if rule == "independent":
        removed = sorted(set(range(len(weights))) - set(representatives(distances, threshold, weights)))
    assert np.flatnonzero(scores < 0).tolist() == removed
    kept = np.flatnonzero(scores >= 0)
    assert len(kept) and np.array_equal(scores[kept], weights[kept])
    nearest = {i: min(distances[i, kept]) for i in removed}
    for i, j in combinations(removed, 2):
        assert scores[i] != scores[j] and abs(scores[i]) <= 1 + 1e-12
        if nearest[i] != nearest[j]:
            assert (scores[i] < scores[j]) == (nearest[i] < nearest[j])
        elif weights[i] != weights[j]:
            assert (scores[i] < scores[j]) == (weights[i] < weights[j])


def test_a_chain_keeps_one_head_by_the_printed_scan_and_every_other_one_by_the_independent_set():
    places = np.arange(6.0)
    distances = np.abs(places[:, None] - places)
    assert scan(distances, 1.5).tolist() == [0, 1, 2, 3, 4]
    assert representatives(distances, 1.5, np.ones(6)).tolist() == [0, 2, 4]
    assert similarity_groups(distances, 1.5) == (tuple(range(6)),)
    assert farthest_first(distances, places)[0][:3].tolist() == [5, 0, 3]  # 2 is as far, and lighter


@pytest.mark.parametrize(
    ("distances", "weights", "message"),
    [
        (np.zeros((2, 3)), np.ones(2), r"square matrix but are \(2, 3\)"),
        (np.array([[0, 1], [2, 0.0]]), np.ones(2), "symmetric"),
        (np.array([[0, np.nan], [np.nan, 0.0]]), np.ones(2), "no NaN"),
        (np.eye(2), np.ones(2), "0 on the diagonal"),
        (np.zeros((2, 2)), np.ones(3), "weights must be 2 numbers"),
        (np.zeros((2, 2)), np.array([1, -1]), "at least 0"),
    ],
)
def test_bad_distances_and_weights(distances, weights, message):
    with pytest.raises(ValueError, match=message):
        redundant_first(distances, weights, 0.1)
    with pytest.raises(ValueError, match="rule must be one of independent, scan but is 'all'"):
        redundant_first(np.zeros((2, 2)), np.ones(2), 0.1, "all")


@pytest.mark.parametrize("rule", RULES)
def test_what_is_redundant_only_grows_with_the_threshold(rule):
    """Beside plain loops: everything kept is apart, everything removed is near something kept, and nothing comes back."""
    rng = np.random.default_rng(11)
    for _ in range(60):
        count = int(rng.integers(1, 9))
        upper = np.triu(rng.integers(1, 5, (count, count)), 1)
        distances, weights = (upper + upper.T).astype(float), rng.integers(0, 3, count).astype(float)
        before: set[int] = set()
        for threshold in (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 9.0):
            gone = set(redundant(distances, threshold, weights, rule).tolist())
            kept = [place for place in range(count) if place not in gone]
            assert before <= gone and kept and not (threshold <= 1 and gone)
            assert all(distances[i, j] >= threshold for i in kept for j in kept if i != j)
            if rule == "independent":
                assert kept == apart(distances, threshold, weights).tolist()
                assert all(any(distances[i, j] < threshold for j in kept) for i in gone)
                assert max(range(count), key=lambda place: weights[place]) in kept
            before = gone
