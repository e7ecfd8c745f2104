"""Numbers of hidden channels that are multiples of a number, under the same budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gramian.adapters.methods.unit_sets import UnitSet
from gramian.solvers.units.choice import nearest_choice

__all__ = ["Rounding", "check_rounding", "least_counts", "rounded_counts"]


@dataclass(frozen=True)
class Rounding:
    """multiple: of which numbers of channels are multiples. at_least: whether no less than the budget asks for is removed,
    where else as many more as less may be."""

    multiple: int
    at_least: bool = False


def check_rounding(unit_sets: Sequence[UnitSet], multiple: int) -> None:
    """Raise ValueError for a module that has fewer channels than `multiple`."""
    for unit_set in unit_sets:
        if unit_set.channels and unit_set.removable < multiple:
            raise ValueError(
                f"round_to={multiple} has no multiple among the {unit_set.removable} channels of {unit_set.name}: round to at "
                f"most {unit_set.removable}, or leave the module out with exclude"
            )


def least_counts(unit_sets: Sequence[UnitSet], rounding: Rounding | None) -> list[int]:
    """The number of removables that every module keeps at the least."""
    return [1 if rounding is None or not unit_set.channels else rounding.multiple for unit_set in unit_sets]


def rounded_counts(
    counts: Sequence[int], unit_sets: Sequence[UnitSet], bias_costs: Sequence[int], removal: float, rounding: Rounding
) -> list[int]:
    """argmin over multiples n_m of sum_m cost_m (n_m - c_m)^2, for the number c_m = counts[m] of channels of every module.

    Among all sums of removed parameters the one nearest to `removal` comes first, as `nearest_choice` has it. Heads remain as
    they are counted. Modules of one cost differ from c_m by steps whose prices ascend, so that the best of any number of steps
    are the cheapest ones; how many are taken at each cost is the choice. A module that gains a bias once it is narrower, and
    that was to keep all its channels, keeps them where they are a multiple."""
    rounded, multiple = list(counts), rounding.multiple
    by_cost: dict[int, list[int]] = {}
    settled = 0
    for place, unit_set in enumerate(unit_sets):
        whole = counts[place] == unit_set.removable and unit_set.removable % multiple == 0 and bias_costs[place] > 0
        if unit_set.channels and not whole and unit_set.removable > multiple:
            by_cost.setdefault(unit_set.cost, []).append(place)
        elif counts[place] < unit_set.removable:
            settled += (unit_set.removable - counts[place]) * unit_set.cost - bias_costs[place]
    amounts, distances = [np.array([settled])], [np.zeros(1)]
    steps: list[np.ndarray] = []
    for cost, places in by_cost.items():
        owner, price = step_prices(counts, unit_sets, bias_costs, places, multiple)
        bases = [(unit_sets[place].removable - multiple) * cost - bias_costs[place] for place in places]
        amounts.append(sum(bases) - np.arange(len(price) + 1) * multiple * cost)
        distances.append(cost * np.concatenate([[0.0], np.cumsum(price)]))
        steps.append(owner)
    chosen = nearest_choice(amounts, distances, removal, at_least=rounding.at_least)
    assert chosen is not None  # all multiples below the counts remove at least what the counts do
    for taken, owner, places in zip(chosen[1:], steps, by_cost.values()):
        for place in places:
            rounded[place] = multiple * (1 + int(np.sum(owner[:taken] == place)))
    return rounded


def step_prices(
    counts: Sequence[int], unit_sets: Sequence[UnitSet], bias_costs: Sequence[int], places: Sequence[int], multiple: int
) -> tuple[np.ndarray, np.ndarray]:
    """The steps by which modules grow from one `multiple` of channels, the cheapest first: whose they are, and by how much
    (n - c)^2 grows from n to n + multiple."""
    owners, prices = [], []
    for place in places:
        most = unit_sets[place].removable - (bias_costs[place] > 0)
        before = np.arange(1, most // multiple) * multiple
        owners.append(np.full(len(before), place))
        prices.append(multiple * (2.0 * (before - counts[place]) + multiple))
    price = np.concatenate(prices)
    order = np.argsort(price, kind="stable")
    return np.concatenate(owners)[order], price[order]
