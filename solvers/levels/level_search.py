"""Levels exchanged between modules at a constant total while an objective of all of them together falls."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from gramian.solvers.levels.level_budget import Choice, LevelBudget
from gramian.solvers.levels.level_exchange import exchanged, steps_along

__all__ = ["Objective", "SearchState", "begun", "halved", "search_levels"]

CANDIDATES = 16  # exchanges in a round
PATIENCE = 8  # rounds without a better choice, at the least, after which the search ends

Objective = Callable[[Choice, Sequence[int]], Sequence[float]]  # of a choice on some parts of the data


class Late(Exception):
    """The time is over: the round that was begun does not count."""


@dataclass(frozen=True)
class SearchState:
    """Where a search is after a round, and all that it needs to go on.

    choice: the best so far, confirmed on every part. values: the objective of it on every part; their mean is what is
    minimised. first: the choice at the beginning, and start: its mean. rounds: done. idle: the last of them, without a better
    choice. sweeping: whether the next round measures every step by itself. accepted: how often there was a better choice.
    evaluations: parts of the data on which a choice was evaluated. seconds: spent. ended: why the search is over, empty while it
    is not.
    """

    choice: Choice
    values: tuple[float, ...]
    first: Choice
    start: float
    rounds: int = 0
    idle: int = 0
    sweeping: bool = True
    accepted: int = 0
    evaluations: int = 0
    seconds: float = 0.0
    ended: str = ""

    @property
    def value(self) -> float:
        """The mean of the objective over all parts."""
        return mean(self.values)


def mean(values: Sequence[float]) -> float:
    """The mean in the order of the parts, in float64."""
    return float(np.mean(np.asarray(values, dtype=np.float64)))


def begun(budget: LevelBudget, objective: Objective, parts: int, starts: Sequence[Choice]) -> SearchState:
    """The beginning of a search: the start whose objective, over all parts, is least; among equals the first.

    ValueError for a start outside of the budget, and for an objective that is not finite there."""
    states = []
    for start in dict.fromkeys(starts):
        if not budget.admits(start):
            raise ValueError(f"a start removes {budget.total(start)}, but from {budget.wanted} to {budget.most} are admitted")
        values = tuple(float(value) for value in objective(start, range(parts)))
        if not np.isfinite(values).all():
            raise ValueError(f"the objective of a start is {mean(values)}")
        states.append(SearchState(start, values, start, mean(values)))
    best = min(states, key=lambda each: each.value)
    return replace(best, evaluations=parts * len(states))


def search_levels(
    budget: LevelBudget,
    objective: Objective,
    state: SearchState,
    *,
    groups: Sequence[Sequence[int]] = (),
    seed: int = 0,
    time_limit: float | None = None,
    keep: Callable[[SearchState], object] = lambda state: None,
) -> SearchState:
    """argmin_i mean_s objective_s(i) over choices i of a level for every module within the budget, by exchanges of levels

    The objective may be anything, such as the divergence of a model's output: effects of modules need not add up. Rounds of two
    kinds propose choices at the same total. First every step of one module to a level next to its own is measured by itself, on
    one part of the data, and as many steps as pay are taken at once (`steps_along`); as long as that finds better choices it is
    repeated. Then levels are exchanged at random (`exchanged`). In either case candidates are judged by successive halving
    (`halved`): a part of the data dismisses those that are not better than the present choice there, and the worse half of the
    others, then twice as many parts, and so on, and a choice is accepted where its mean over all parts is lower. So the mean
    never rises, and with it the choice is confirmed. The search ends after as many rounds without a better choice as there are
    modules, halved, and PATIENCE at the least.

    state: where it begins (`begun`), or goes on. keep(state): called after every round. seed: of the exchanges. time_limit:
    seconds in all, those of the state included; a round that it interrupts is forgotten. Without it the answer depends on
    nothing but what is given, however often the search is interrupted and gone on with.
    """
    parts, earlier, started = len(state.values), state.seconds, time.monotonic()
    patience = max(PATIENCE, len(budget.amounts) // 2)
    evaluations = 0

    def spent() -> float:
        return earlier + time.monotonic() - started

    def counted(choice: Choice, some: Sequence[int]) -> Sequence[float]:
        nonlocal evaluations
        if time_limit is not None and spent() >= time_limit:
            raise Late
        evaluations += len(some)
        return objective(choice, some)

    while not state.ended:
        order = [(state.rounds + part) % parts for part in range(parts)]  # which part judges first is another in every round
        before = state.evaluations
        evaluations = 0
        try:
            if state.sweeping:
                candidates = steps_along(budget, state.choice, partial(on_one, counted, order[0]))
            else:
                generator = np.random.default_rng([seed, state.rounds])
                drawn = (exchanged(budget, state.choice, generator, groups) for _ in range(CANDIDATES))
                candidates = [each for each in dict.fromkeys(drawn) if each is not None]
            found = halved(counted, candidates, state.values, order)
        except Late:
            state = replace(state, ended="the time was over", evaluations=before + evaluations, seconds=spent())
            keep(state)
            return state
        better = found is not None
        if found is not None:
            state = replace(state, choice=found[0], values=found[1], accepted=state.accepted + 1)
        idle = 0 if better or state.sweeping else state.idle + 1
        state = replace(
            state, rounds=state.rounds + 1, idle=idle, sweeping=state.sweeping and better, evaluations=before + evaluations,
            seconds=spent(), ended=f"no better choice in {patience} rounds" if idle >= patience else "",
        )  # fmt: skip
        keep(state)
    return state


def on_one(objective: Objective, part: int, choice: Choice) -> float:
    """The objective of a choice on one part."""
    return float(objective(choice, (part,))[0])


def halved(
    objective: Objective, candidates: Sequence[Choice], present: Sequence[float], order: Sequence[int]
) -> tuple[Choice, tuple[float, ...]] | None:
    """The candidate of least mean objective among those below the present choice's on all parts, by successive halving.

    present: the objective of the present choice on every part. order: the parts, first those that judge first. After one part,
    two, four and so on candidates whose mean is not below the present one's there are dismissed, and of the others all but the
    better half of as many as there could be. None where none is left; else the choice and its objective on every part.
    """
    values: dict[Choice, dict[int, float]] = {choice: {} for choice in candidates}
    left, done, width = list(values), 0, len(values)
    while left and done < len(order):
        upto = min(len(order), max(1, 2 * done))
        some = order[done:upto]
        for choice in left:
            values[choice].update(zip(some, map(float, objective(choice, some)), strict=True))
        seen = sorted(order[:upto])
        bar = mean([present[part] for part in seen])
        means = {choice: mean([values[choice][part] for part in seen]) for choice in left}
        width = max(1, (width + 1) // 2)
        left = sorted((choice for choice in left if means[choice] < bar), key=lambda choice: means[choice])[:width]
        done = upto
    if not left:
        return None
    return left[0], tuple(values[left[0]][part] for part in range(len(present)))
