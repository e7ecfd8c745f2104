"""Choices near a choice at the same total: levels exchanged at random, and many steps at once by what each would change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from gramian.solvers.levels.convex_start import convex_start
from gramian.solvers.levels.level_budget import Choice, LevelBudget

__all__ = ["exchanged", "measured", "steps_along", "steps_of"]

MOST_RAISED = 3  # modules that go a level up in one exchange
WHOLE = 8  # one exchange in this many sends a whole group to its last levels, where there are groups
TRIES = 20
LADDER = 8  # how many sizes of a step by what each module would change


def exchanged(
    budget: LevelBudget, choice: Choice, generator: np.random.Generator, groups: Sequence[Sequence[int]] = ()
) -> Choice | None:
    """One to three modules a level up, and as many others down, step by step, as it takes to be within the budget again.

    Where all steps are of one size this is the level switch of EvoPress (Sieberling et al. 2024), one up and one down, which
    keeps the total. Else one up is met by several down, or the other way round: modules go down at random among those whose
    step still fits, so that the total never falls below what is wanted, until none fits. Modules that went up do not come down.
    groups: modules that may go to their last levels together, such as those of one block. None where no exchange was found.
    """
    for _ in range(TRIES):
        work = list(choice)
        if groups and generator.integers(WHOLE) == 0:
            raised = list(groups[int(generator.integers(len(groups)))])
            for module in raised:
                work[module] = len(budget.amounts[module]) - 1
        else:
            count = 1 + min(generator.integers(MOST_RAISED, size=2))
            higher = [module for module, each in enumerate(budget.amounts) if choice[module] < len(each) - 1]
            if not higher:
                return None
            raised = generator.permutation(higher)[:count].tolist()
            for module in raised:
                work[module] += 1
        lower(budget, work, generator, raised)
        found = tuple(work)
        if found != choice and budget.admits(found):
            return found
    return None


def lower(budget: LevelBudget, work: list[int], generator: np.random.Generator, raised: Sequence[int]) -> None:
    """Lower modules other than those raised, in place, at random, as long as the total remains at least what is wanted."""
    others = [module for module in range(len(work)) if module not in raised]
    while True:
        excess = budget.total(work) - budget.wanted
        fit = [module for module in others if 0 < budget.step(work, module) <= excess]
        if not fit:
            return
        work[fit[generator.integers(len(fit))]] -= 1


def steps_of(budget: LevelBudget, choice: Choice) -> Iterator[tuple[int, int]]:
    """Every module with every level next to its own."""
    for module, each in enumerate(budget.amounts):
        for level in (choice[module] - 1, choice[module] + 1):
            if 0 <= level < len(each):
                yield module, level


def measured(budget: LevelBudget, choice: Choice, loss: Callable[[Choice], float]) -> list[np.ndarray]:
    """d_k(j) = loss(choice with module k at level j) - loss(choice) for levels next to the present one, NaN for all others."""
    present = loss(choice)
    found = [np.full(len(each), np.nan) for each in budget.amounts]
    for each, level in zip(found, choice):
        each[level] = 0.0
    for module, level in steps_of(budget, choice):
        found[module][level] = loss(replaced(choice, module, level)) - present
    return found


def steps_along(budget: LevelBudget, choice: Choice, changes: Sequence[np.ndarray]) -> list[Choice]:
    """argmin_i sum_k [d_k(i_k) + t |i_k - choice_k|] over choices at most r levels away, for r = 1, 2, 4, ..., and several t

    d_k(j) is by how much the objective changes where module k alone goes to level j, measured or estimated, and the sum is what
    `convex_start` is given: near a choice effects add up better than they do from the dense model on. t is what a step has to
    gain at the least, from nothing to the largest d of a level, so that the answers go from all steps that gain anything to one
    exchange.

    changes: d_k of every level; NaN where it is not known, which is where nothing goes. It is 0 at the present level.
    """
    away = [np.abs(np.arange(len(each)) - level) for each, level in zip(budget.amounts, choice)]
    changes = [np.where(far == 0, 0.0, each) for far, each in zip(away, changes)]
    reach = max(int(far[np.isfinite(each)].max(initial=0)) for far, each in zip(away, changes))
    sizes = [np.abs(each[known]) / far[known] for far, each in zip(away, changes) for known in [np.isfinite(each) & (far > 0)]]
    largest = max((float(each.max()) for each in sizes if each.size), default=0.0)
    answers: dict[Choice, None] = {}
    for radius in (2**power for power in range(max(0, reach - 1).bit_length() + (reach > 0))):
        levels = [np.flatnonzero((far <= radius) & np.isfinite(each)) for far, each in zip(away, changes)]
        amounts = tuple(each[some] for each, some in zip(budget.amounts, levels))
        around = LevelBudget(amounts, budget.wanted, budget.most - budget.wanted)
        for size in range(LADDER + 1):
            least = 0.0 if size == 0 else largest / 2 ** (LADDER - size)
            moved = [each[some] + least * far[some] for each, some, far in zip(changes, levels, away)]
            places = convex_start(around, moved).choice
            answer = tuple(int(some[place]) for some, place in zip(levels, places))
            if answer != choice and budget.admits(answer):
                answers[answer] = None
    return list(answers)


def replaced(choice: Choice, module: int, level: int) -> Choice:
    """The choice with one module at another level."""
    return (*choice[:module], level, *choice[module + 1 :])
