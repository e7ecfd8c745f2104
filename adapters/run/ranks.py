"""Processes that work on one run together, by torch.distributed: who does what, and how they exchange it.

What is exchanged is in an order that does not depend on how many processes there are, and so is what is added up on the way,
so that the bytes of a result do not depend on it either.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from gramian.launcher import PeerLost, local_rank, together

__all__ = ["Ranks", "Shares", "dealt", "divided", "launched", "ranks_here"]

T = TypeVar("T")
GROUPS = 16  # of batches of a part, at most, whose moments are summed apart; more processes than that cannot share them
UNEVEN = 1.05  # times the load of operators that are split: below that it is as good, since parts wait for one another
SECTIONS = 4  # of groups, at most: a process that runs all of one sends their sum
PATIENCE = timedelta(days=30)  # a process that waits for another is not wrong: one that is gone is known at once


@dataclass(frozen=True)
class Ranks:
    """The processes of a run: the number of this one, and how many there are."""

    rank: int = 0
    size: int = 1

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.size == 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share(self, value: T | None, owner: int = 0) -> T:
        """What the process `owner` gives; the others give None."""
        if self.alone:
            return value  # type: ignore[return-value]
        given = [value]
        reached(lambda: dist.broadcast_object_list(given, src=owner))
        return given[0]  # type: ignore[return-value]

    def gathered(self, value: T) -> list[T]:
        """What every process gives, in their order."""
        if self.alone:
            return [value]
        found: list[Any] = [None] * self.size
        reached(lambda: dist.all_gather_object(found, value))
        return found

    def shared_tensor(
        self, value: torch.Tensor | None, like: torch.Tensor, owner: int, needed: Collection[int]
    ) -> torch.Tensor:
        """The tensor that the process `owner` gives, of the shape, dtype and device of `like`, to those where it is needed."""
        held = torch.empty_like(like) if value is None else value.contiguous()
        if len(needed) == self.size:
            reached(lambda: dist.broadcast(held, src=owner))
        elif self.rank == owner:
            for other in sorted(set(needed) - {owner}):
                reached(partial(dist.send, held, other))
        else:
            reached(lambda: dist.recv(held, owner))
        return held


@dataclass(frozen=True)
class Shares:
    """Which process runs which of the batches of a run, in groups of consecutive ones that do not depend on how many processes
    there are; nor do sections, of consecutive groups. Every part of the batches, those that calibrate and those held out, is
    shared by itself, and every second one from behind, so that what does not divide falls to others.

    ranks: the processes. parts: how many batches each part has; without any, all batches are one group.
    """

    ranks: Ranks = Ranks()
    parts: tuple[int, ...] = ()

    def place(self, batch: int) -> tuple[int, int]:
        """The part of a batch, and its number there."""
        for part, count in enumerate(self.parts):
            if batch < count:
                return part, batch
            batch -= count
        return len(self.parts), 0

    def group(self, batch: int) -> int:
        """The group of a batch."""
        part, number = self.place(batch)
        return GROUPS * part + (number * self.groups(part) // self.parts[part] if part < len(self.parts) else 0)

    def groups(self, part: int) -> int:
        """How many groups a part has, of nearly as many batches each."""
        return min(GROUPS, self.parts[part]) if part < len(self.parts) else 1

    def all_groups(self) -> list[int]:
        """All groups."""
        return [GROUPS * part + number for part in range(len(self.parts)) for number in range(self.groups(part))]

    def divided(self, group: int, count: int) -> int:
        """Where a group begins, as one of `count` divisions of its part."""
        part, number = divmod(group, GROUPS)
        if part >= len(self.parts):
            return 0
        first = -(-number * self.parts[part] // self.groups(part))
        return first * count // self.parts[part]

    def section(self, group: int) -> int:
        """The section of a group."""
        return SECTIONS * (group // GROUPS) + self.divided(group, SECTIONS)

    def owner(self, group: int) -> int:
        """The process that runs a group."""
        place = self.divided(group, self.ranks.size)
        return self.ranks.size - 1 - place if group // GROUPS % 2 else place

    def single(self, group: int) -> bool:
        """Whether a group is one batch."""
        part = group // GROUPS
        return part < len(self.parts) and self.groups(part) == self.parts[part]

    def whole(self, section: int) -> bool:
        """Whether one process runs all groups of a section, and it is this one."""
        return {self.owner(group) for group in self.all_groups() if self.section(group) == section} <= {self.ranks.rank}

    def mine(self, batch: int) -> bool:
        """Whether this process runs a batch."""
        return self.ranks.alone or self.owner(self.group(batch)) == self.ranks.rank

    @property
    def pieces(self) -> list[int]:
        """The owners of what is exchanged of every sum: of sections that one process runs whole, and of groups of others."""
        owners: dict[int, list[int]] = {}
        for group in self.all_groups():
            owners.setdefault(self.section(group), []).append(self.owner(group))
        return [owner for found in owners.values() for owner in (found[:1] if len(set(found)) == 1 else found)]


def reached(exchange: Callable[[], object]) -> None:
    """Exchange something with the other processes. PeerLost where one of them is gone."""
    try:
        exchange()
    except RuntimeError as error:
        raise PeerLost("another process of the group has ended: its own message says why") from error


def divided(costs: Sequence[float], size: int) -> list[int]:
    """The process for each of several pieces of work: the costliest first, each to the one that has least to do."""
    load, owners = [0.0] * size, [0] * len(costs)
    for place in sorted(range(len(costs)), key=lambda place: -costs[place]):
        owners[place] = min(range(size), key=load.__getitem__)
        load[owners[place]] += costs[place]
    return owners


def dealt(costs: Sequence[Sequence[float]], fixed: Sequence[float], size: int) -> list[list[int]]:
    """The process for each part of several operators, by the costs of these. Parts of one operator wait for one another, and
    each process that has some does by itself what it has to know of the whole, at a fixed cost: where that leaves the load
    nearly even, an operator falls to one process, or to as many as there are for each."""
    wholes = [sum(parts) + more for parts, more in zip(costs, fixed)]
    team = max(1, size // max(1, len(costs)))
    chosen = divided(wholes, size) if team == 1 else [team * number for number in range(len(costs))]
    teams = [[first + owner for owner in divided(parts, team)] for first, parts in zip(chosen, costs)]
    flat = iter(divided([cost for parts in costs for cost in parts], size))
    split = [[next(flat) for _ in parts] for parts in costs]
    return teams if longest(costs, fixed, teams) <= UNEVEN * longest(costs, fixed, split) else split


def longest(costs: Sequence[Sequence[float]], fixed: Sequence[float], owners: Sequence[Sequence[int]]) -> float:
    """What the process with most to do has."""
    load = dict[int, float]()
    for parts, more, theirs in zip(costs, fixed, owners):
        for owner in set(theirs):
            load[owner] = load.get(owner, 0.0) + more
        for cost, owner in zip(parts, theirs):
            load[owner] += cost
    return max(load.values(), default=0.0)


def ranks_here() -> Ranks:
    """The processes of the group of torch.distributed that this one is in, or this one alone."""
    if dist.is_available() and dist.is_initialized():
        return Ranks(dist.get_rank(), dist.get_world_size())
    return Ranks()


@contextmanager
def launched(device: str) -> Iterator[tuple[Ranks, str]]:
    """Join the processes that torchrun has started, over gloo on CPUs and nccl on GPUs, as long as the context is open.

    Yields them and the device of this one: of several GPUs that of its number on its machine."""
    if together() == 1:
        yield ranks_here(), device
        return
    if device == "cuda":
        device = f"cuda:{local_rank()}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=PATIENCE)
    try:
        yield ranks_here(), device
    finally:
        dist.destroy_process_group()
