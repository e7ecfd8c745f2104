"""Parts of an operator's rows, which several processes solve for: the same parts, however many processes there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from gramian.adapters.devices import solver_array, tensor_of
from gramian.adapters.models.weight_parts import Parts, parts_in
from gramian.adapters.run.ranks import Ranks
from gramian.solvers import NM, Pattern, Quadratic, Solution, TopK, refit
from gramian.solvers.backend._xp import namespace
from gramian.solvers.core.cuts import MovingCut
from gramian.solvers.support.growing_penalty import Peers
from gramian.solvers.support.shrinkage import Pilots

__all__ = ["Answer", "SharedPilots", "joined", "peers_of", "rows_compete", "split_rows"]

PARTS = 8  # at most
COUNTS = ("singular_rows",)  # among the figures of an answer
ROWS = 256  # of a part, at least: what it does with the Gram matrix by itself is then little beside its products


@dataclass(frozen=True)
class Answer:
    """What a method found for some rows of an operator. weights: in the memory of the host. parts: what they are the sum or
    product of, if so."""

    weights: torch.Tensor
    status: str
    detail: Mapping[str, float]
    parts: Parts | None = None

    @classmethod
    def of(cls, solution: Solution) -> Answer:
        """The answer that a solution is."""
        return cls(tensor_of(solution.weights).cpu(), solution.status.value, solution.detail, parts_in(solution))


def split_rows(rows: int, apart: bool) -> list[slice]:
    """Parts of nearly equal size; all rows at once where they cannot be solved for apart."""
    return even_parts(rows, max(1, min(PARTS, rows // ROWS)) if apart else 1)


def even_parts(rows: int, count: int) -> list[slice]:
    """So many parts of nearly equal size."""
    ends = [int(end) for end in np.linspace(0, rows, count + 1).round()]
    return [slice(first, last) for first, last in pairwise(ends)]


def rows_compete(pattern: Pattern) -> bool:
    """Whether what one row keeps depends on other rows, as far as is known."""
    return not (isinstance(pattern, NM) or (isinstance(pattern, TopK) and pattern.per_row))


def peers_of(pattern: Pattern, parts: Sequence[slice], owners: Sequence[int], ranks: Ranks) -> Peers:
    """What those parts of an operator's rows that this process owns ask of the others. Where the pattern compares rows, all
    owners give each other the scores that matter, and each has to choose as often as the others."""
    here, rows = (
        [number for number, owner in enumerate(owners) if owner == ranks.rank],
        [part.stop - part.start for part in parts],
    )

    def bring(pieces: Sequence[Any], lengths: Sequence[int]) -> list[Any]:
        mine = dict(zip(here, pieces))
        given = [(mine.get(number), length, owner) for number, (length, owner) in enumerate(zip(lengths, owners))]
        return put_together(given, pieces[0], ranks)

    if rows_compete(pattern):
        return Peers(MovingCut(pattern, rows, here, bring).largest, Turns(owners, ranks))
    return Peers(lambda scores: [pattern.largest(score) for score in scores], Turns(owners, ranks))


class Turns:
    """in_turn(number, count, make) -> make(number): each of the owners makes one of as many as there are owners, all at the
    same time, and gives it to the others when it is asked for."""

    def __init__(self, owners: Sequence[int], ranks: Ranks) -> None:
        self.involved, self.ranks = sorted(set(owners)), ranks
        self.own: Any = None

    def __call__(self, number: int, count: int, make: Callable[[int], Any]) -> Any:
        """What all owners have for this number."""
        if len(self.involved) == 1:
            return make(number)
        owner = self.involved[number % len(self.involved)]
        if owner == self.involved[0]:
            self.own = make(min(number + self.involved.index(self.ranks.rank), count - 1))
            self.like = tensor_of(self.own[:1, :1]).expand(self.own.shape)
        if owner == self.ranks.rank:
            given, self.own = self.own, None
            mine = tensor_of(given)
            self.ranks.shared_tensor(mine, mine, owner, self.involved)
            return given
        if number + 1 == count:
            self.own = None
        return solver_array(self.ranks.shared_tensor(None, self.like, owner, self.involved))


@dataclass(frozen=True)
class SharedPilots(Pilots):
    """Pilots of an operator, of which the owners of its parts refit some rows each. Each has to ask as often as the others, and
    goes by the figures of the first of them. place: the device that they work on."""

    owners: Sequence[int]
    ranks: Ranks
    place: torch.device

    def exact(self, pilot: Quadratic, mask: Any) -> Any:
        """The best weights on a mask, of all rows."""
        involved, rows = sorted(set(self.owners)), pilot.shape[0]
        parts = even_parts(rows, min(PARTS, rows))
        owners = [involved[number * len(involved) // len(parts)] for number in range(len(parts))]
        mine = [part for part, owner in zip(parts, owners) if owner == self.ranks.rank]
        found = iter([refit(each, mask[part, :]).weights for each, part in zip(pilot.parts(mine), mine)])
        pieces = [
            (next(found) if owner == self.ranks.rank else None, part.stop - part.start, owner)
            for part, owner in zip(parts, owners)
        ]
        return namespace(pilot.anchor).concat(put_together(pieces, pilot.anchor, self.ranks))

    def agreed(self, value: float) -> float:
        """The figure of the first owner."""
        involved = sorted(set(self.owners))
        if len(involved) == 1:
            return value
        given = torch.tensor([value], dtype=torch.float64, device=self.place)
        return float(self.ranks.shared_tensor(given, given, involved[0], involved)[0])


def put_together(pieces: Sequence[tuple[Any | None, int, int]], like: Any, ranks: Ranks) -> list[Any]:
    """All pieces, in order, for every process that owns one. pieces: an array of n rows or numbers where this process has them,
    else None, their number n, and their owner. like: any of the same dtype and device, and length of a row."""
    xp, involved = namespace(like), sorted({owner for _, _, owner in pieces})
    if len(involved) == 1:
        return [rows for rows, _, _ in pieces]
    sample, given = tensor_of(like[:1, ...]), dict[int, list[Any]]()
    for owner in involved:  # one message each
        own, counts = [rows for rows, _, each in pieces if each == owner], [count for _, count, each in pieces if each == owner]
        mine = tensor_of(xp.concat(own)) if owner == ranks.rank else None
        rows = ranks.shared_tensor(mine, sample.new_empty((sum(counts), *sample.shape[1:])), owner, involved)
        given[owner] = own if owner == ranks.rank else [solver_array(each) for each in rows.split(counts)]
    return [given[owner].pop(0) for _, _, owner in pieces]


def joined(answers: Sequence[Answer]) -> Answer:
    """The answer for all rows: counts are added up, of other figures the largest is taken, and every status is named."""
    if len(answers) == 1:
        return answers[0]
    figures: dict[str, list[float]] = {}
    for each in answers:
        for name, value in each.detail.items():
            figures.setdefault(name, []).append(value)
    return Answer(
        torch.cat([each.weights for each in answers]),
        "; ".join({each.status: None for each in answers}),
        {name: sum(values) if name in COUNTS else max(values) for name, values in figures.items()},
    )
