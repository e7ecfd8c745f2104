"""Exchanges of levels: planted optima, every choice of tiny cases, the laws of totals and of what is accepted."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gramian.solvers.levels.convex_start import convex_start
from gramian.solvers.levels.level_budget import LevelBudget
from gramian.solvers.levels.level_exchange import exchanged, measured, steps_along
from gramian.solvers.levels.level_search import Confirmed, begun, halved, search_levels

EQUAL = tuple(np.arange(0, 60, 10) for _ in range(6))


class Parts:
    """An objective on several parts: losses of single levels, products of neighbours, and what differs between the parts."""

    def __init__(self, amounts, parts=4, pairs=0.0, noise=0.0, seed=0):
        generator = np.random.default_rng(seed)
        self.single = [np.sort(generator.random(len(each))).cumsum() * generator.integers(1, 20) for each in amounts]
        self.pairs = pairs * generator.normal(size=(len(amounts), len(amounts)))
        self.noise = noise * generator.normal(size=(parts, len(amounts)))
        self.parts, self.calls, self.seen = parts, 0, set()

    def __call__(self, choice, parts):
        self.calls += len(parts)
        self.seen.add(tuple(choice))
        level = np.array([each[place] for each, place in zip(self.single, choice)])
        return [float(level.sum() + level @ self.pairs @ level + self.noise[part] @ level) for part in parts]

    def mean(self, choice):
        return float(np.mean(self(choice, range(self.parts))))


def searched(budget, objective, start, **settings):
    return search_levels(budget, objective, begun(budget, objective, objective.parts, [start]), **settings)


def best_of(budget, objective):
    choices = (each for each in product(*(range(len(amounts)) for amounts in budget.amounts)) if budget.admits(each))
    return min(choices, key=objective.mean)


@pytest.mark.parametrize("seed", range(6))
def test_the_optimum_of_a_separable_objective_is_found(seed):
    budget = LevelBudget(EQUAL, 150, beyond=0)
    objective = Parts(EQUAL, noise=0.01, seed=seed)
    found = searched(budget, objective, (3, 3, 3, 2, 2, 2))
    assert found.best.value == pytest.approx(objective.mean(best_of(budget, objective)), rel=1e-12)
    assert found.ended.startswith("no better choice")


@pytest.mark.parametrize("seed", range(6))
def test_with_effects_that_do_not_add_up_the_best_of_all_choices_is_found(seed):
    amounts = tuple(np.arange(4) * step for step in (1, 1, 2, 2, 3))
    budget = LevelBudget(amounts, 12)
    objective = Parts(amounts, pairs=0.01, seed=seed)
    starts = [convex_start(budget, objective.single).choice, (3, 3, 2, 1, 0)]
    found = search_levels(budget, objective, begun(budget, objective, objective.parts, starts))
    best = objective.mean(best_of(budget, objective))
    assert found.best.value <= best + 1e-9 * abs(best)


@st.composite
def budgets(draw):
    """Steps of many sizes, and a choice within the budget."""
    count = draw(st.integers(1, 6))
    amounts = tuple(
        np.cumsum([0, *draw(st.lists(st.integers(1, 40), min_size=0, max_size=4))]) for _ in range(count)
    )  # fmt: skip
    choice = tuple(draw(st.integers(0, len(each) - 1)) for each in amounts)
    total = sum(int(each[level]) for each, level in zip(amounts, choice))
    return LevelBudget(amounts, max(0, total - draw(st.integers(0, 30)))).widened(choice), choice


@given(budgets(), st.integers(0, 10**6), st.booleans())
@settings(max_examples=300, deadline=None)
def test_no_exchange_leaves_the_budget(case, seed, grouped):
    budget, choice = case
    groups = [list(range(0, len(choice), 2))] if grouped else []
    found = exchanged(budget, choice, np.random.default_rng(seed), groups)
    if found is not None:
        assert found != choice and budget.wanted <= budget.total(found) <= budget.most
        assert all(0 <= level < len(each) for level, each in zip(found, budget.amounts))
    changes = measured(budget, choice, lambda each: float(np.sin(np.dot(each, np.arange(1, 1 + len(each))))))
    for other in steps_along(budget, choice, changes):
        assert budget.admits(other) and max(abs(one - two) for one, two in zip(other, choice)) == 1


@given(budgets(), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_what_is_accepted_never_rises_and_everything_evaluated_whole_is_within_the_budget(case, seed):
    budget, choice = case
    objective = Parts(budget.amounts, pairs=0.05, noise=0.3, seed=seed)
    states = []
    state = begun(budget, objective, objective.parts, [choice])
    found = search_levels(budget, objective, state, seed=seed, keep=states.append)
    values = [state.best.value, *(each.best.value for each in states)]
    assert all(later <= earlier for earlier, later in pairwise(values))
    assert all(budget.admits(confirmed.choice) for each in states for confirmed in (each.present, each.best))
    for confirmed in (found.best, found.first):
        assert confirmed.value == pytest.approx(objective.mean(confirmed.choice), rel=1e-12)  # and what is stated is true
    assert found.best.value <= found.first.value == state.first.value
    rises = [later for earlier, later in pairwise([state, *states]) if later.present.value > earlier.present.value]
    assert len(rises) <= len(state.waiting)  # only where another start has its turn
    assert sum(later.present.value < earlier.present.value for earlier, later in pairwise([state, *states])) >= found.accepted


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rough", [0.0, 0.5, 50.0])
def test_prices_spare_evaluations_and_rough_ones_do_no_harm(seed, rough):
    """Exact ones reach the optimum of a separable objective in a few rounds; wrong ones are not believed."""
    budget, start = LevelBudget(EQUAL, 150, beyond=0), (5, 5, 5, 0, 0, 0)
    objective, measuring = Parts(EQUAL, noise=0.01, seed=seed), Parts(EQUAL, noise=0.01, seed=seed)
    generator = np.random.default_rng(seed)

    def prices(choice, check):
        check()
        found = [each - each[level] for each, level in zip(objective.single, choice)]
        return [each * (1 + rough * generator.normal(size=len(each))) for each in found]

    states = []
    found = searched(budget, objective, start, prices=prices, keep=states.append)
    searched(budget, measuring, start)
    best = objective.mean(best_of(budget, objective))
    assert found.best.value == pytest.approx(best, rel=1e-12 if rough < 1 else 0.05)
    if not rough:
        assert states[0].best.value == pytest.approx(best, rel=0.02) and states[0].evaluations < 6 * 6 + 4


def test_nothing_goes_to_a_level_without_a_price():
    """However low it would have been, and from whatever level."""
    budget, choice = LevelBudget(EQUAL, 150, beyond=0), (2, 2, 2, 3, 3, 3)
    changes = [np.array([np.nan, -1.0, np.nan, 2.0, -9.0, np.nan]) for _ in EQUAL]
    found = steps_along(budget, choice, [*changes[:4], *(np.full(6, np.nan) for _ in range(2))])
    assert found and all(other[4:] == (3, 3) for other in found)
    for other in found:
        assert all(new == old or not np.isnan(each[new]) for new, old, each in zip(other, choice, changes))
    assert steps_along(budget, choice, [np.full(6, np.nan) for _ in EQUAL]) == []


def test_every_start_has_its_turn_and_the_best_of_all_is_kept():
    """Two valleys with a wall between them, and the better start leads to the worse one."""
    amounts = tuple(np.arange(9) for _ in range(2))
    budget = LevelBudget(amounts, 8, beyond=0)
    height = [5, 4, 3, 9, 9, 9, 2, 1, 4]

    def objective(choice, parts):
        return [float(height[choice[0]])] * len(parts)

    state = begun(budget, objective, 3, [(8, 0), (2, 6)])
    assert state.first.choice == (2, 6) and [each.choice for each in state.waiting] == [(8, 0)]
    found = search_levels(budget, objective, state)
    assert found.best.choice == (7, 1) and found.ended.endswith("from any start")
    alone = search_levels(budget, objective, begun(budget, objective, 3, [(2, 6)]))
    assert alone.best.choice == (2, 6)


@pytest.mark.parametrize("priced", [False, True])
@pytest.mark.parametrize("after", [0, 1, 2, 5, 9, 20])
def test_a_search_that_was_interrupted_ends_where_another_does(after, priced):
    budget = LevelBudget(EQUAL, 150, beyond=0)
    objective = Parts(EQUAL, pairs=0.02, noise=0.2, seed=3)
    start = begun(budget, objective, objective.parts, [(3, 3, 3, 2, 2, 2), (5, 5, 5, 0, 0, 0)])

    def prices(choice, check):
        check()
        return [each - each[level] for each, level in zip(objective.single, choice)]

    how = {"seed": 5, "prices": prices if priced else None}
    whole = search_levels(budget, objective, start, **how)

    class Killed(Exception):
        pass

    kept = [start]

    def keep(state):
        kept.append(state)
        if state.rounds == after:
            raise Killed

    try:
        search_levels(budget, objective, start, **how, keep=keep)
    except Killed:
        pass
    again = search_levels(budget, objective, kept[-1], **how)
    assert replace(again, seconds=0.0) == replace(whole, seconds=0.0)
    assert search_levels(budget, objective, whole, **how) == whole  # there is nothing left to do


def test_time_ends_the_search_with_what_was_confirmed():
    budget = LevelBudget(EQUAL, 150, beyond=0)
    objective = Parts(EQUAL, seed=1)

    def slow(choice, parts):
        time.sleep(1e-3)
        return objective(choice, parts)

    state = begun(budget, objective, objective.parts, [(3, 3, 3, 2, 2, 2)])
    found = search_levels(budget, slow, state, time_limit=0.05)
    assert found.ended == "the time was over" and budget.admits(found.best.choice)
    assert found.best.value == pytest.approx(objective.mean(found.best.choice)) and found.best.value <= state.best.value
    late = search_levels(budget, slow, replace(state, seconds=1.0), time_limit=0.05)
    assert late.best == state.best and late.evaluations == state.evaluations


def test_a_group_goes_as_a_whole_where_that_helps():
    """Each module of the group alone costs much, both together nothing: single exchanges climb a wall."""
    amounts = tuple(np.arange(3) for _ in range(4))
    budget = LevelBudget(amounts, 4, beyond=0)

    def objective(choice, parts):
        gone = choice[0] == choice[1] == 2
        return [float(choice[2] + choice[3] + (0 if gone else 10 * (choice[0] + choice[1])))] * len(parts)

    state = begun(budget, objective, 2, [(0, 0, 2, 2)])
    assert search_levels(budget, objective, state).best.choice == (0, 0, 2, 2)
    assert search_levels(budget, objective, state, groups=[(0, 1)]).best.choice == (2, 2, 0, 0)


def test_halving_dismisses_early_and_confirms_on_everything():
    table = {
        (0,): [9, 0, 0, 0, 0, 0, 0, 0],  # worse on the first part, better in all: dismissed
        (1,): [1, 9, 9, 9, 9, 9, 9, 9],  # better on the first part alone
        (2,): [2, 2, 2, 2, 2, 2, 2, 2],
        (3,): [2, 2, 2, 2, 2, 2, 2, 3],
    }
    asked = []

    def objective(choice, parts):
        asked.extend((choice, part) for part in parts)
        return [table[choice][part] for part in parts]

    found = halved(objective, list(table), [3.0] * 8, list(range(8)))
    assert found == Confirmed((2,), tuple(table[2,]))
    assert len(asked) == len(set(asked)) and sum(choice == (0,) for choice, _ in asked) == 1
    assert halved(objective, list(table), [2.0] * 8, list(range(8))) is None
    assert halved(objective, [], [2.0], [0]) is None


def test_starts_are_compared_and_checked():
    budget = LevelBudget(EQUAL, 150, beyond=0)
    objective = Parts(EQUAL, seed=1)
    one, two = (5, 5, 5, 0, 0, 0), (3, 3, 3, 2, 2, 2)
    assert begun(budget, objective, 4, [one, two]).best.choice == min((one, two), key=objective.mean)
    with pytest.raises(ValueError, match="a start removes 0, but from 150 to 150 are admitted"):
        begun(budget, objective, 4, [(0,) * 6])
    with pytest.raises(ValueError, match="nan"):
        begun(budget, lambda choice, parts: [float("nan")] * len(parts), 4, [two])


def test_prices_that_take_long_are_ended_in_time():
    budget = LevelBudget(EQUAL, 150, beyond=0)
    objective = Parts(EQUAL, seed=1)

    def slow(choice, check):
        for _ in range(10_000):
            time.sleep(1e-3)
            check()

    state = begun(budget, objective, objective.parts, [(3, 3, 3, 2, 2, 2)])
    found = search_levels(budget, objective, state, prices=slow, time_limit=0.05)
    assert found.ended == "the time was over" and found.best == state.best and found.seconds < 5
