"""One level for every module when their losses add up: the convex relaxation, and a choice within the budget beside it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gramian.solvers.levels.level_budget import Choice, LevelBudget

__all__ = ["ConvexStart", "convex_start"]


@dataclass(frozen=True)
class ConvexStart:
    """choice: a level for every module. loss: the sum of their losses. bound: what no choice of that budget can be below."""

    choice: Choice
    loss: float
    bound: float


def convex_start(budget: LevelBudget, losses: Sequence[np.ndarray]) -> ConvexStart:
    """argmin_i sum_k losses_k[i_k] subject to sum_k amounts_k[i_k] >= wanted, relaxed over levels and cut to whole ones

    The relaxation takes mixtures of levels, so that every module has the lower convex hull of its points (amount, loss). It is
    exact: segments of all hulls are taken by ascending price, the rise of the loss per amount, until the budget is met, and
    those that lower the loss in any case. At most one segment is taken in part; its module takes the first of its levels that
    meets the budget. What goes beyond it is then given back, the step that lowers the loss most per amount first, as long as
    one fits, so that the total is within the budget's band wherever steps of the least size are there to be given back.

    losses: of every module at each of its levels, finite. Of equal prices the first module's comes first. ValueError for losses
    that do not fit the levels.
    """
    shapes = [each.shape for each in budget.amounts]
    if [np.shape(each) for each in losses] != shapes:
        raise ValueError(f"the levels are {shapes} but the losses are {[np.shape(each) for each in losses]}")
    segments = []
    choice, total, bound = [], 0, 0.0
    for module, (amounts, loss) in enumerate(zip(budget.amounts, losses)):
        hull = lower_hull(amounts, loss)
        choice.append(hull[0])
        total, bound = total + int(amounts[hull[0]]), bound + float(loss[hull[0]])
        for one, two in itertools.pairwise(hull):
            price = float(loss[two] - loss[one]) / float(amounts[two] - amounts[one])
            segments.append((price, module, one, two))
    for price, module, one, two in sorted(segments, key=lambda each: each[:3]):
        if total >= budget.wanted and price >= 0:
            break
        amounts = budget.amounts[module]
        needed = max(0, budget.wanted - total)
        part = int(amounts[two] - amounts[one])
        bound += price * (min(part, needed) if price >= 0 else part)
        first = next(level for level in range(one + 1, two + 1) if level == two or amounts[level] - amounts[one] >= needed > 0)
        level = two if price < 0 else first
        choice[module], total = level, total + int(amounts[level] - amounts[one])
    given_back(budget, losses, choice)
    loss_of = sum(float(loss[level]) for loss, level in zip(losses, choice))
    return ConvexStart(tuple(choice), loss_of, bound)


def lower_hull(amounts: np.ndarray, losses: np.ndarray) -> list[int]:
    """The levels at the corners of the lower convex hull of the points (amount, loss), from the first level to the last."""
    corners: list[int] = []
    for level in range(len(amounts)):
        while len(corners) > 1:
            one, two = corners[-2:]
            before = float(losses[two] - losses[one]) * float(amounts[level] - amounts[two])
            after = float(losses[level] - losses[two]) * float(amounts[two] - amounts[one])
            if before < after:
                break
            corners.pop()
        corners.append(level)
    return corners


def given_back(budget: LevelBudget, losses: Sequence[np.ndarray], choice: list[int]) -> None:
    """Lower levels in place while the total remains at least wanted: those that lower the loss, and, as long as it is beyond
    the band, others."""
    while True:
        excess = budget.total(choice) - budget.wanted
        steps = [(module, budget.step(choice, module)) for module in range(len(choice))]
        fit = [(module, step) for module, step in steps if 0 < step <= excess]
        gains = [float(losses[module][choice[module]] - losses[module][choice[module] - 1]) / step for module, step in fit]
        if not fit or (max(gains) <= 0 and excess <= budget.most - budget.wanted):
            return
        choice[fit[gains.index(max(gains))][0]] -= 1
