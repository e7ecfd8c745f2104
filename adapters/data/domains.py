"""Domains: which windows are of which text, and how much each text counts, whatever the numbers of windows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

__all__ = ["Domains", "interleaved", "normalised", "split_samples"]

T = TypeVar("T")


@dataclass(frozen=True)
class Domains:
    """Texts that are calibrated on together. names: of the domains. weights: their parts of all, which sum to 1. places: the
    domain of every window, by number.

    A token of domain d counts f_d = w_d N / N_d times, with N_d the windows of d and N those of all domains that weigh
    anything, so that sum_d f_d N_d = N: a Gram matrix is N times the weighted mean of those of the domains' windows.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]
    places: tuple[int, ...]

    def of(self, domain: int) -> list[int]:
        """The places of the windows of one domain."""
        return [place for place, each in enumerate(self.places) if each == domain]

    @property
    def counts(self) -> tuple[int, ...]:
        """How many windows each domain has."""
        return tuple(self.places.count(number) for number in range(len(self.names)))

    @property
    def factors(self) -> tuple[float, ...]:
        """How often a token of each domain counts, f_d; 0 where it weighs nothing, or has no window."""
        counts = self.counts
        whole = sum(count for count, weight in zip(counts, self.weights) if weight > 0)
        return tuple(weight * whole / count if count else 0.0 for weight, count in zip(self.weights, counts))

    @property
    def proportional(self) -> bool:
        """Whether every domain has its part of the windows, to within one: then windows that count alike will do as well."""
        whole = len(self.places)
        return all(abs(count - weight * whole) < 1 + 1e-9 for count, weight in zip(self.counts, self.weights))

    def part(self, places: Iterable[int]) -> Domains:
        """The same of some of the windows."""
        return replace(self, places=tuple(self.places[place] for place in places))

    def __str__(self) -> str:
        """Names, weights and numbers of windows."""
        return ", ".join(f"{name} {weight:.3g} ({count})" for name, weight, count in zip(self.names, self.weights, self.counts))


def normalised(weights: Mapping[str, float]) -> dict[str, float]:
    """Weights by domain that sum to 1. ValueError where one is negative or not finite, or none is above 0."""
    for name, weight in weights.items():
        if not 0 <= weight < math.inf:
            raise ValueError(f"the weight of the domain {name!r} must be a finite number of at least 0 but is {weight:g}")
    whole = math.fsum(weights.values())
    if not whole > 0:
        raise ValueError("the weights of all domains are 0, so that nothing would calibrate: give one of them more")
    return {name: weight / whole for name, weight in weights.items()}


def split_samples(weights: Mapping[str, float], samples: int) -> dict[str, int]:
    """Windows for each domain: as near to its part as whole numbers that sum to `samples` are (largest remainders), and one
    at least where it weighs anything. ValueError where there are more such domains than samples."""
    shares = normalised(weights)
    heavy = [name for name, weight in shares.items() if weight > 0]
    if samples < len(heavy):
        raise ValueError(f"{len(heavy)} domains need a window each, but samples={samples}: give more samples")
    counts = {name: int(weight * samples + 1e-9) for name, weight in shares.items()}
    for name in sorted(heavy, key=lambda name: counts[name] - shares[name] * samples)[: samples - sum(counts.values())]:
        counts[name] += 1
    for name in heavy:
        if not counts[name]:
            most = max(heavy, key=lambda each: counts[each] - shares[each] * samples if counts[each] > 1 else -math.inf)
            counts[name], counts[most] = 1, counts[most] - 1
    return counts


def interleaved(groups: Sequence[Sequence[T]]) -> list[T]:
    """The members of all groups, in turns: any part, such as the last quarter, has of each group what the whole list has,
    as nearly as that goes. Of one group it is that group."""
    placed = [
        ((2 * number + 1) / (2 * len(group)), place, each)
        for place, group in enumerate(groups)
        for number, each in enumerate(group)
    ]
    return [each for _, _, each in sorted(placed, key=lambda found: found[:2])]
