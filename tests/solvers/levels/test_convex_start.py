"""One level for every module under a budget: against every choice, and against a linear program."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from gramian.solvers.levels.convex_start import convex_start, lower_hull
from gramian.solvers.levels.level_budget import LevelBudget
from gramian.solvers.levels.outliers import SPREAD, outlier_sparsities


@st.composite
def modules(draw, equal: bool = False):
    """Amounts and losses of a few modules, a budget for them; ties, steps of many sizes, losses that fall."""
    count = draw(st.integers(1, 4))
    amounts, losses = [], []
    for _ in range(count):
        levels = draw(st.integers(1, 4))
        step = st.just(3) if equal else st.integers(1, 9)
        first = 0 if equal else draw(st.integers(0, 3))
        amounts.append(first + np.cumsum([0, *(draw(step) for _ in range(levels - 1))]))
        scale = draw(st.sampled_from([1e-6, 1.0, 1e6]))
        losses.append(scale * np.array([draw(st.integers(-3, 9)) for _ in range(levels)], dtype=float))
    least, most = (sum(int(each[place]) for each in amounts) for place in (0, -1))
    return LevelBudget(tuple(amounts), draw(st.integers(least, most))), losses


def every_choice(budget):
    return product(*(range(len(each)) for each in budget.amounts))


def loss_of(losses, choice):
    return sum(float(loss[level]) for loss, level in zip(losses, choice))


def relaxed(budget, losses):
    """The optimum of the relaxation by a linear program over mixtures of levels."""
    sizes = [len(each) for each in losses]
    ends = np.cumsum([0, *sizes])
    mixtures = np.zeros((len(sizes), ends[-1]))
    for row, (first, last) in enumerate(pairwise(ends)):
        mixtures[row, first:last] = 1
    scale = max(1e-300, max(float(np.abs(each).max()) for each in losses))
    found = linprog(
        np.concatenate(losses) / scale, A_ub=-np.concatenate(budget.amounts)[None], b_ub=[-budget.wanted], A_eq=mixtures,
        b_eq=np.ones(len(sizes)), bounds=(0, None),
    )  # fmt: skip
    assert found.status == 0
    return scale * found.fun


@given(modules())
@settings(max_examples=200, deadline=None)
def test_the_relaxation_is_that_of_a_linear_program_and_bounds_every_choice(case):
    budget, losses = case
    found = convex_start(budget, losses)
    size = sum(float(np.abs(each).max()) for each in losses)
    assert found.bound == pytest.approx(relaxed(budget, losses), abs=1e-7 * size)
    best = min(loss_of(losses, choice) for choice in every_choice(budget) if budget.total(choice) >= budget.wanted)
    assert found.bound <= best + 1e-12 * size <= found.loss + 2e-12 * size
    assert budget.total(found.choice) >= budget.wanted and found.loss == loss_of(losses, found.choice)


@given(modules(equal=True))
@settings(max_examples=100, deadline=None)
def test_convex_losses_and_equal_steps_leave_nothing_to_round(case):
    """Then whole levels are the corners of the relaxation: the choice is the best of all, and within the band."""
    budget, losses = case
    losses = [np.cumsum(np.sort(np.abs(each))) for each in losses]
    found = convex_start(budget, losses)
    best = min(loss_of(losses, choice) for choice in every_choice(budget) if budget.total(choice) >= budget.wanted)
    assert found.loss == pytest.approx(best, rel=1e-12)
    assert budget.admits(found.choice)


def test_a_planted_choice_is_found():
    """Losses exp(a x) whose marginal prices meet at levels that are known."""
    amounts = tuple(np.arange(0, 110, 10) for _ in range(4))
    rates = np.array([0.02, 0.03, 0.04, 0.08])
    losses = [np.exp(rate * each) / rate for rate, each in zip(rates, amounts)]
    best = min(
        (choice for choice in product(range(11), repeat=4) if sum(choice) == 20),
        key=lambda choice: loss_of(losses, choice),
    )
    assert convex_start(LevelBudget(amounts, 200), losses).choice == best


def test_levels_off_the_hull_are_taken_where_the_budget_asks_for_part_of_a_segment():
    losses = [np.array([0.0, 9.0, 10.0])]
    assert lower_hull(np.array([0, 5, 10]), losses[0]) == [0, 2]
    assert convex_start(LevelBudget((np.array([0, 5, 10]),), 4), losses).choice == (1,)
    assert convex_start(LevelBudget((np.array([0, 5, 10]),), 6), losses).choice == (2,)
    assert convex_start(LevelBudget((np.array([0, 5, 10]),), 0), losses).choice == (0,)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="must ascend"):
        LevelBudget((np.array([0, 2, 2]),), 1)
    with pytest.raises(ValueError, match="9 is to be removed, but the last levels of all modules remove 5"):
        LevelBudget((np.array([0, 2]), np.array([0, 3])), 9)
    with pytest.raises(ValueError, match="no modules"):
        LevelBudget((), 0)
    with pytest.raises(ValueError, match="but the losses are"):
        convex_start(LevelBudget((np.array([0, 2]),), 1), [np.zeros(3)])


@given(st.lists(st.tuples(st.floats(0, 0.3), st.integers(1, 10**7), st.sampled_from([0.5, 0.6, 0.7])), min_size=1, max_size=6))
@settings(max_examples=100, deadline=None)
def test_outliers_spread_sparsities_at_the_same_total(blocks):
    ratios, sizes, plain = (list(each) for each in zip(*blocks))
    found = np.array(outlier_sparsities(ratios, sizes, plain))
    assert np.dot(sizes, found) == pytest.approx(np.dot(sizes, plain), rel=1e-9)
    assert (found >= 0).all() and (found < 1).all()
    shifts = found - plain
    assert shifts.max() - shifts.min() <= 2 * SPREAD + 1e-9
    order = np.argsort(ratios, kind="stable")
    assert (np.diff(shifts[order]) <= 1e-9).all()  # the more outliers, the denser


def test_outliers_by_hand():
    """Two equal blocks: the one with the most is lambda denser than the mean, the other as much sparser."""
    assert outlier_sparsities([0.1, 0.3], [10, 10], [0.7, 0.7]) == pytest.approx([0.78, 0.62])
    assert outlier_sparsities([0.1, 0.2, 0.3], [10, 10, 10], [0.5] * 3) == pytest.approx([0.58, 0.5, 0.42])
    assert outlier_sparsities([0.2, 0.2], [1, 5], [0.5, 0.6]) == pytest.approx([0.5, 0.6])
