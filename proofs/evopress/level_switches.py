"""Levels exchanged between layers at a constant total, and which exchange survives (claims E1 and E2).

A choice has a level for every layer; amounts_k[i] is what layer k removes at level i, and T(choice) the sum over layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from gramian.proofs.kit.claims import Claim, Counterexample, Property, Verdict
from gramian.solvers.levels.level_budget import Choice, LevelBudget
from gramian.solvers.levels.level_exchange import exchanged
from gramian.solvers.levels.level_search import Confirmed, Objective, halved

__all__ = ["E1", "E2"]

EVOPRESS = "EvoPress"


# --- E1: the total ---------------------------------------------------------------------------------------------------


class Switch(NamedTuple):
    """A choice within its budget, and the seed of an exchange."""

    budget: LevelBudget
    choice: Choice
    seed: int


Exchange = Callable[[LevelBudget, Choice, np.random.Generator], "Choice | None"]


@st.composite
def switches(draw: st.DrawFn) -> Switch:
    count = draw(st.integers(2, 5))
    steps = [draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)) for _ in range(count)]
    amounts = tuple(np.cumsum([0, *each]) for each in steps)
    choice = tuple(draw(st.integers(0, len(each))) for each in steps)
    total = sum(int(each[level]) for each, level in zip(amounts, choice))
    return Switch(LevelBudget(amounts, total), choice, draw(st.integers(0, 999)))


def keeps_the_total(case: Switch, exchange: Exchange) -> None:
    """No less than what is wanted is removed, and less than a step more; the choice is another one."""
    found = exchange(case.budget, case.choice, np.random.default_rng(case.seed))
    if found is not None:
        assert found != case.choice
        assert case.budget.wanted <= case.budget.total(found) <= case.budget.most


def switched(budget: LevelBudget, choice: Choice, generator: np.random.Generator, down: int = 1) -> Choice | None:
    """One layer a level up, and another one `down` levels down."""
    work = list(choice)
    higher = [place for place, each in enumerate(budget.amounts) if work[place] < len(each) - 1]
    if not higher:
        return None
    raised = higher[generator.integers(len(higher))]
    lower = [place for place in range(len(work)) if place != raised and work[place] >= down]
    if not lower:
        return None
    work[raised] += 1
    work[lower[generator.integers(len(lower))]] -= down
    return tuple(work)


def one_step_each_changes_the_total() -> None:
    budget = LevelBudget((np.array([0, 1]), np.array([0, 2])), 2)
    before: Choice = (0, 1)
    after: Choice = (1, 0)
    assert budget.total(before) == 2 and budget.total(after) == 1  # one up, one down


E1 = Claim(
    "E1",
    f"{EVOPRESS}, Sec. 3 (level-switch mutation)",
    "one layer a level up and another layer a level down keeps the total, T(choice') = T(choice)",
    Verdict.CONDITIONAL,
    "it does where both steps have one size; else as many layers go down as fit: wanted <= T(choice') <= wanted + least step",
    properties=(
        Property(
            "wanted <= T <= wanted + the least step after an exchange",
            switches(),
            keeps_the_total,
            exchanged,
            {
                "one up, one down": switched,
                "nothing down": lambda budget, choice, generator: switched(budget, choice, generator, 0),
                "one up, two levels down": lambda budget, choice, generator: switched(budget, choice, generator, 2),
            },
        ),
    ),
    counterexamples=(Counterexample("steps of 1 and of 2", one_step_each_changes_the_total),),
)


# --- E2: what survives -----------------------------------------------------------------------------------------------


class Rivals(NamedTuple):
    """table: the objective of every choice on every part, whole numbers; the present choice is the first row."""

    table: np.ndarray
    order: tuple[int, ...]


Selection = Callable[[Objective, Sequence[Choice], Sequence[float], Sequence[int]], "Confirmed | None"]


@st.composite
def rivals(draw: st.DrawFn) -> Rivals:
    count, parts = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    table = np.array([[draw(st.integers(0, 9)) for _ in range(parts)] for _ in range(1 + count)], dtype=float)
    return Rivals(table, tuple(draw(st.permutations(range(parts)))))


def never_rises(case: Rivals, select: Selection) -> None:
    """What is selected is lower than the present choice on all of the data, its figures are its own, and it is found where a
    single candidate is lower on every part."""

    def objective(choice: Choice, parts: Sequence[int]) -> list[float]:
        return [float(case.table[choice[0], part]) for part in parts]

    candidates = [(row,) for row in range(1, len(case.table))]
    found = select(objective, candidates, case.table[0].tolist(), case.order)
    if found is not None:
        values = case.table[found.choice[0]]
        assert np.array_equal(found.values, values)
        assert values.sum() < case.table[0].sum()
    if len(candidates) == 1 and bool(np.all(case.table[1] < case.table[0])):
        assert found is not None


def by_some(parts: slice, competing: bool) -> Selection:
    """The least by some parts of the data alone; competing: with the present choice."""

    def select(
        objective: Objective, candidates: Sequence[Choice], present: Sequence[float], order: Sequence[int]
    ) -> Confirmed | None:
        some = list(order)[parts]
        best = min(candidates, key=lambda choice: sum(objective(choice, some)))
        if competing and not sum(objective(best, some)) < sum(present[part] for part in some):
            return None
        return Confirmed(best, tuple(objective(best, range(len(present)))))

    return select


E2 = Claim(
    "E2",
    f"{EVOPRESS}, Sec. 3 (multi-step selection)",
    "the parent takes part in a selection over more and more data, so that what survives is no worse than the parent",
    Verdict.HOLDS,
    properties=(
        Property(
            "the mean over all parts falls with everything that is selected",
            rivals(),
            never_rises,
            halved,
            {
                "the first part alone": by_some(slice(1), True),
                "all parts, without the parent": by_some(slice(None), False),
                "nobody survives": lambda *_: None,
            },
        ),
    ),
)
