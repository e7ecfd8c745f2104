"""Sums of moments over groups of batches: section by section, in the same order whoever has run which."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass
from typing import Any

import torch

from gramian.adapters.devices import solver_array, tensor_of
from gramian.adapters.run.ranks import GROUPS, Ranks, Shares
from gramian.solvers import Moments
from gramian.solvers.core.sums import ProductSum

__all__ = ["PartialMoments", "held_at_once"]

MATRICES = ("squares", "crosses", "drifts")  # and the vectors `total` and `shift`, of which each may be missing
VECTORS = ("total", "shift")


class PartialMoments:
    """Moments of several kinds, each the sum (s_0 + s_1) + ... of those of sections, which are sums (g_i + g_j) + ... of those
    of their groups of batches, as `shares` has them.

    Batches come in order, and what is complete is added up as soon as more comes: a process that is alone holds a sum, a
    section and a group of each kind. Of several each keeps the sections that are all its own, and groups of others, until
    `gather`.
    """

    def __init__(self, shares: Shares) -> None:
        self.shares = shares
        self.sums: dict[Any, Moments] = {}
        self.sections: dict[tuple[Any, int], Moments] = {}
        self.groups: dict[tuple[Any, int], Moments] = {}

    def of(self, kind: Hashable, batch: int, width: int) -> Moments:
        """The moments of a kind to which a batch of so many channels is added."""
        group = self.shares.group(batch)
        section = self.shares.section(group)
        if (kind, group) not in self.groups:
            self.fold(kind, section)
        if self.shares.single(group) and self.shares.whole(section):  # added as it is
            return self.sections.setdefault((kind, section), Moments(width))
        return self.groups.setdefault((kind, group), Moments(width))

    def fold(self, kind: Hashable, following: int | None = None) -> None:
        """Add up what is there of a kind: groups of sections that are all this process's own, and where it is alone sections
        too, but for the one that goes on, `following`."""
        for group in sorted(group for each, group in self.groups if each == kind):
            section = self.shares.section(group)
            if self.shares.whole(section):
                join(self.sections, (kind, section), self.groups.pop((kind, group)))
        if self.shares.ranks.alone:
            for section in sorted(section for each, section in self.sections if each == kind):
                if section != following:
                    join(self.sums, kind, self.sections.pop((kind, section)))

    def gather(self, needed: Collection[int] | None = None) -> None:
        """Form the sums of all processes; each has to ask, in the same order of kinds. needed: the numbers of those that
        go on with the sums, None for all; the others have none then."""
        ranks = self.shares.ranks
        for kind in dict.fromkeys(kind for kind, _ in (*self.groups, *self.sections)):
            self.fold(kind)
        if ranks.alone:
            return
        pieces = {(kind, section, -1): part for (kind, section), part in self.sections.items()}
        pieces |= {(kind, self.shares.section(group), group): part for (kind, group), part in self.groups.items()}
        self.sections, self.groups = {}, {}
        held = {place: contents(part) for place, part in pieces.items() if part.total is not None}
        everywhere = [
            (place, owner, found) for owner, theirs in enumerate(ranks.gathered(held)) for place, found in theirs.items()
        ]
        everyone = range(ranks.size) if needed is None else needed
        for place, owner, found in sorted(everywhere, key=lambda each: each[0]):
            mine = pieces.pop(place) if owner == ranks.rank else None
            if ranks.rank in everyone or mine is not None:
                part = exchanged(ranks, mine, found, owner, everyone)
                if ranks.rank in everyone:
                    for other in [each for each in self.sections if each != place[:2]]:  # complete, since pieces are in order
                        join(self.sums, other[0], self.sections.pop(other))
                    join(self.sections, place[:2], part)
        for kind, section in list(self.sections):
            join(self.sums, kind, self.sections.pop((kind, section)))


def held_at_once(batches: int) -> int:
    """How many moments of a kind a process that is alone holds at a time, of so many batches: a sum, a section, a group."""
    return 1 + (batches > 1) + (batches > GROUPS)


def join(sums: dict[Any, Moments], place: Hashable, part: Moments) -> None:
    """Add moments to what there is in a place."""
    if part.total is not None:
        sums[place] = sums[place].merged(part) if place in sums else part


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
