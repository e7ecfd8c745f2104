"""Levels exchanged between modules at a constant total while an objective of all of them together falls."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from gramian.solvers.levels.level_budget import Choice, LevelBudget
from gramian.solvers.levels.level_exchange import exchanged, measured, steps_along

__all__ = ["Check", "Confirmed", "Objective", "Prices", "SearchState", "begun", "halved", "search_levels"]

CANDIDATES = 16  # exchanges in a round
PATIENCE = 8  # rounds without a better choice, at the least, after which the search ends

Objective = Callable[[Choice, Sequence[int]], Sequence[float]]  # of a choice on some parts of the data
Check = Callable[[], object]  # called now and then by what takes long; it raises where the time is over
Prices = Callable[[Choice, Check], Sequence[np.ndarray]]  # of a choice: what every module at each level would change


class Late(Exception):
    """The time is over: the round that was begun does not count."""


@dataclass(frozen=True)
class Confirmed:
    """A choice, and the objective of it on every part of the data."""

    choice: Choice
    values: tuple[float, ...]

    @property
    def value(self) -> float:
        """The mean over all parts, which is what is minimised."""
        return mean(self.values)


@dataclass(frozen=True)
class SearchState:
    """Where a search is after a round, and all that it needs to go on.

    present: the choice around which it looks. best: the best of all that it has found. first: the best of the starts. waiting:
    the starts from which it has not yet looked. rounds: done. idle: the last of them, without a better choice than the present
    one. sweeping: whether the next round takes many steps at once. accepted: how often there was a better choice.
    evaluations: parts of the data on which a choice was evaluated. seconds: spent. ended: why it is over, empty before.
    """

    present: Confirmed
    best: Confirmed
    first: Confirmed
    waiting: tuple[Confirmed, ...] = ()
    rounds: int = 0
    idle: int = 0
    sweeping: bool = True
    accepted: int = 0
    evaluations: int = 0
    seconds: float = 0.0
    ended: str = ""


def mean(values: Sequence[float]) -> float:
    """The mean in the order of the parts, in float64."""
    return float(np.mean(np.asarray(values, dtype=np.float64)))


def begun(budget: LevelBudget, objective: Objective, parts: int, starts: Sequence[Choice]) -> SearchState:
    """The beginning of a search: the start whose objective, over all parts, is least; the others wait in that order.

    ValueError for a start outside of the budget, and for an objective that is not finite there."""
    found = []
    for start in dict.fromkeys(starts):
        if not budget.admits(start):
            raise ValueError(f"a start removes {budget.total(start)}, but from {budget.wanted} to {budget.most} are admitted")
        values = tuple(float(value) for value in objective(start, range(parts)))
        if not np.isfinite(values).all():
            raise ValueError(f"the objective of a start is {mean(values)}")
        found.append(Confirmed(start, values))
    best, *others = sorted(found, key=lambda each: each.value)
    return SearchState(best, best, best, tuple(others), evaluations=parts * len(found))


def search_levels(
    budget: LevelBudget,
    objective: Objective,
    state: SearchState,
    *,
    groups: Sequence[Sequence[int]] = (),
    prices: Prices | None = None,
    seed: int = 0,
    time_limit: float | None = None,
    keep: Callable[[SearchState], object] = lambda state: None,
) -> SearchState:
    """argmin_i mean_s objective_s(i) over choices i of a level for every module within the budget, by exchanges of levels

    The objective may be anything, such as the divergence of a model's output: effects of modules need not add up. Rounds of two
    kinds propose choices at the same total. Some take many steps of single modules at once (`steps_along`), by `prices`, or by
    measuring every step to a level next to a module's own on one part of the data; they are repeated as long as that finds
    better choices. Others exchange levels at random (`exchanged`), and where there are prices, what is better is priced anew.
    In either case candidates are judged by successive halving (`halved`): a part of the data dismisses those that are no better
    than the present choice there, and the worse half of the others, then twice as many parts, and so on, and a choice is
    accepted where its mean over all parts is lower. So the mean never rises, and with it the choice is confirmed, however rough
    prices are. After as many rounds without a better choice as there are modules, halved, and PATIENCE at the least, the next
    start has its turn, and after the last one the search ends: of what is found from several starts, one may be far better than
    the others.

    prices(choice, check): for every module an estimate, at each of its levels, of by how much the objective changes if it alone
    goes there, NaN for levels that it should not go to; check() ends it where the time is over. Without it steps are measured.
    state: where it begins (`begun`), or goes on. keep(state): called after every round. seed: of the exchanges. time_limit:
    seconds in all, those of the state included; a round that it interrupts is forgotten. Without it the answer depends on
    nothing but what is given, however often the search is interrupted and gone on with.
    """
    earlier, started = state.seconds, time.monotonic()
    parts, patience = len(state.present.values), max(PATIENCE, len(budget.amounts) // 2)
    evaluations = 0

    def in_time() -> None:
        if time_limit is not None and earlier + time.monotonic() - started >= time_limit:
            raise Late

    def counted(choice: Choice, some: Sequence[int]) -> Sequence[float]:
        nonlocal evaluations
        in_time()
        evaluations += len(some)
        return objective(choice, some)

    while not state.ended:
        present, evaluations = state.present, state.evaluations
        order = [(state.rounds + part) % parts for part in range(parts)]  # which part judges first is another in every round
        try:
            if state.sweeping:
                in_time()
                if prices is None:
                    changes = measured(budget, present.choice, partial(on_one, counted, order[0]))
                else:
                    changes = [*prices(present.choice, in_time)]
                candidates = steps_along(budget, present.choice, changes)
            else:
                generator = np.random.default_rng([seed, state.rounds])
                drawn = (exchanged(budget, present.choice, generator, groups) for _ in range(CANDIDATES))
                candidates = [each for each in dict.fromkeys(drawn) if each is not None]
            found = halved(counted, candidates, present.values, order)
        except Late:
            state = replace(state, ended="the time was over")
        else:
            state = advanced(state, found, patience, prices is not None)
        state = replace(state, evaluations=evaluations, seconds=earlier + time.monotonic() - started)
        keep(state)
    return state


def advanced(state: SearchState, found: Confirmed | None, patience: int, priced: bool) -> SearchState:
    """The state after a round that has found a better choice than the present one, or none. priced: whether to price it."""
    state = replace(state, rounds=state.rounds + 1)
    if found is not None:
        best = found if found.value < state.best.value else state.best
        sweeping = state.sweeping or priced
        return replace(state, present=found, best=best, idle=0, sweeping=sweeping, accepted=state.accepted + 1)
    if state.sweeping:
        return replace(state, sweeping=False)
    if state.idle + 1 < patience:
        return replace(state, idle=state.idle + 1)
    if state.waiting:
        return replace(state, present=state.waiting[0], waiting=state.waiting[1:], idle=0, sweeping=True)
    return replace(state, idle=state.idle + 1, ended=f"no better choice in {patience} rounds, from any start")


def on_one(objective: Objective, part: int, choice: Choice) -> float:
    """The objective of a choice on one part."""
    return float(objective(choice, (part,))[0])


def halved(
    objective: Objective, candidates: Sequence[Choice], present: Sequence[float], order: Sequence[int]
) -> Confirmed | None:
    """The candidate of least mean objective among those below the present choice's on all parts, by successive halving.

    present: the objective of the present choice on every part. order: the parts, first those that judge first. After one part,
    two, four and so on candidates whose mean is not below the present one's there are dismissed, and of the others all but the
    better half of as many as there could be. None where none is left.
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
    return Confirmed(left[0], tuple(values[left[0]][part] for part in range(len(present))))
