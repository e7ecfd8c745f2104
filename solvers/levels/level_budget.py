"""Modules that can each be at one of several levels, under one budget of what all of them remove together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

__all__ = ["Choice", "LevelBudget"]

Choice = tuple[int, ...]  # the number of a level for every module


@dataclass(frozen=True, eq=False)
class LevelBudget:
    """Choices i of one level for every module k whose total is wanted, up to less than a step: wanted <= T(i) <= most.

    T(i) = sum_k amounts_k[i_k] is what a choice removes. Steps from level to level differ in size, so that not every total can
    be met: `most` is `wanted` and the least step of any module, or what a start that was given needs (`widened`).

    amounts: of each module, whole numbers that ascend from level to level, in the unit of the budget (weights, parameters).
    wanted: what has to go at the least. beyond: how much more may go, None for the least step. ValueError for amounts that do
    not ascend, and for more than all last levels together remove.
    """

    amounts: tuple[np.ndarray, ...]
    wanted: int
    beyond: int | None = None

    def __post_init__(self) -> None:
        if not self.amounts:
            raise ValueError("there are no modules to share a budget")
        for place, each in enumerate(self.amounts):
            if each.ndim != 1 or each.size == 0 or bool(np.any(np.diff(each) <= 0)):
                raise ValueError(f"the amounts of module {place} must ascend from level to level but are {each.tolist()}")
        largest = sum(int(each[-1]) for each in self.amounts)
        if self.wanted > largest:
            raise ValueError(f"{self.wanted} is to be removed, but the last levels of all modules remove {largest}")

    @cached_property
    def most(self) -> int:
        """The largest total that is admitted."""
        steps = [int(np.diff(each).min()) for each in self.amounts if each.size > 1]
        return self.wanted + (min(steps, default=0) if self.beyond is None else self.beyond)

    def total(self, choice: Sequence[int]) -> int:
        """T of a choice."""
        return sum(int(each[level]) for each, level in zip(self.amounts, choice, strict=True))

    def admits(self, choice: Sequence[int]) -> bool:
        """Whether a choice is within the budget."""
        return self.wanted <= self.total(choice) <= self.most

    def step(self, choice: Sequence[int], module: int) -> int:
        """What a module removes more at its level than at the one below; 0 at its first level."""
        level = choice[module]
        return int(self.amounts[module][level] - self.amounts[module][level - 1]) if level > 0 else 0

    def widened(self, choice: Sequence[int]) -> LevelBudget:
        """The same budget, which admits this choice too, whose total is at least wanted."""
        return LevelBudget(self.amounts, self.wanted, max(self.most, self.total(choice)) - self.wanted)
