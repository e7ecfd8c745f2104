"""Sums of moments over groups of batches: one group after the other, in the same order whoever has run it."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass
from typing import Any

import torch

from gramian.adapters.devices import solver_array, tensor_of
from gramian.adapters.run.ranks import Ranks, Shares
from gramian.solvers import Moments
from gramian.solvers.core.sums import ProductSum

__all__ = ["PartialMoments"]

MATRICES = ("squares", "crosses", "drifts")  # and the vectors `total` and `shift`, of which each may be missing
VECTORS = ("total", "shift")


class PartialMoments:
    """Moments of several kinds, each the sum ((g_0 + g_1) + g_2) + ... of those of the groups of batches in `shares`.

    Where every group is one batch that is the sum of the batches. Batches come in order. A process that is alone adds a group
    to the sum as soon as the next one begins; of several each keeps those that it has run until `gather`.
    """

    def __init__(self, shares: Shares) -> None:
        self.shares = shares
        self.sums: dict[Any, Moments] = {}
        self.parts: dict[tuple[Any, int], Moments] = {}

    def of(self, kind: Hashable, batch: int, width: int) -> Moments:
        """The moments of a kind to which a batch of so many channels is added."""
        if self.shares.ranks.alone and self.shares.size == 1:
            return self.sums.setdefault(kind, Moments(width))
        place = kind, self.shares.group(batch)
        if self.shares.ranks.alone and place not in self.parts:
            self.fold(kind)
        return self.parts.setdefault(place, Moments(width))

    def fold(self, kind: Hashable) -> None:
        """Add the groups of a kind that are there to its sum, in order."""
        for place in sorted((each for each in self.parts if each[0] == kind), key=lambda each: each[1]):
            self.join(kind, self.parts.pop(place))

    def join(self, kind: Hashable, part: Moments) -> None:
        """Add one group to the sum of its kind."""
        if part.total is not None:
            self.sums[kind] = self.sums[kind].merged(part) if kind in self.sums else part

    def gather(self, needed: Collection[int] | None = None) -> None:
        """Form the sums of all processes; each has to ask, in the same order of kinds. needed: the numbers of those that
        go on with the sums, None for all; the others have none then."""
        ranks = self.shares.ranks
        if ranks.alone:
            for kind in {kind: None for kind, _ in self.parts}:
                self.fold(kind)
            return
        held = {place: contents(part) for place, part in self.parts.items() if part.total is not None}
        everywhere = [
            (*place, owner, found) for owner, theirs in enumerate(ranks.gathered(held)) for place, found in theirs.items()
        ]
        for kind, group, owner, found in sorted(everywhere, key=lambda each: each[:2]):
            mine = self.parts.pop((kind, group)) if owner == ranks.rank else None
            everyone = range(ranks.size) if needed is None else needed
            if ranks.rank in everyone or mine is not None:
                part = exchanged(ranks, mine, found, owner, everyone)
                if ranks.rank in everyone:
                    self.join(kind, part)


@dataclass(frozen=True)
class Contents:
    """What there is of moments: their channels and tokens, the names of their arrays, the device on which these are."""

    width: int
    mass: float
    arrays: tuple[str, ...]
    device: str


def contents(part: Moments) -> Contents:
    """What there is of moments that have seen tokens."""
    arrays = [name for name in MATRICES if getattr(part, name).value is not None]
    arrays += [name for name in VECTORS if getattr(part, name) is not None]
    return Contents(part.width, part.mass, tuple(arrays), tensor_of(part.total).device.type)


def exchanged(ranks: Ranks, mine: Moments | None, found: Contents, owner: int, needed: Collection[int]) -> Moments:
    """The moments that the process `owner` has, where they are needed."""
    part = Moments(found.width)
    part.mass = found.mass
    for name in found.arrays:
        matrix = name in MATRICES
        shape = (found.width, found.width) if matrix else (found.width,)
        value = None
        if mine is not None:
            value = tensor_of(getattr(mine, name).value if matrix else getattr(mine, name))
        array = solver_array(
            ranks.shared_tensor(value, torch.empty(shape, dtype=torch.float64, device=found.device), owner, needed)
        )
        setattr(part, name, ProductSum(square=name != "crosses", total=array) if matrix else array)
    return part
