"""Parts of an operator's rows, which several processes solve for: the same parts, however many processes there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from gramian.solvers.support.growing_penalty import Choose
from gramian.solvers.support.shrinkage import Pilots

__all__ = ["Answer", "SharedPilots", "joined", "row_choice", "rows_compete", "split_rows"]

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


def row_choice(pattern: Pattern, parts: Sequence[slice], owners: Sequence[int], ranks: Ranks) -> Choose:
    """choose(scores) -> masks for those parts of an operator's rows that this process owns. Where the pattern compares rows,
    all owners give each other the scores of theirs, and each has to choose as often as the others."""
    numbers, cut = [number for number, owner in enumerate(owners) if owner == ranks.rank], MovingCut(pattern)

    def choose(scores: Sequence[Any]) -> Sequence[Any]:
        if not rows_compete(pattern):
            return [pattern.largest(score) for score in scores]
        mine = dict(zip(numbers, scores))
        pieces = [(mine.get(number), part.stop - part.start, owner) for number, (part, owner) in enumerate(zip(parts, owners))]
        mask = cut.largest(put_together(pieces, scores[0], ranks))
        return [mask[parts[number], :] for number in numbers]

    return choose


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
        return put_together(pieces, pilot.anchor, self.ranks)

    def agreed(self, value: float) -> float:
        """The figure of the first owner."""
        involved = sorted(set(self.owners))
        if len(involved) == 1:
            return value
        given = torch.tensor([value], dtype=torch.float64, device=self.place)
        return float(self.ranks.shared_tensor(given, given, involved[0], involved)[0])


def put_together(pieces: Sequence[tuple[Any | None, int, int]], like: Any, ranks: Ranks) -> Any:
    """The rows of all pieces, in order, for every process that owns one. pieces: rows (n, p) where this process has them, else
    None, their number n, and their owner. like: any rows of the same dtype and device."""
    xp, involved = namespace(like), sorted({owner for _, _, owner in pieces})
    if len(involved) == 1:
        return xp.concat([rows for rows, _, _ in pieces])
    sample, given = tensor_of(like[:1, :]), dict[int, list[Any]]()
    for owner in involved:  # one message each
        own, counts = [rows for rows, _, each in pieces if each == owner], [count for _, count, each in pieces if each == owner]
        mine = tensor_of(xp.concat(own)) if owner == ranks.rank else None
        rows = ranks.shared_tensor(mine, sample.new_empty((sum(counts), sample.shape[1])), owner, involved)
        given[owner] = own if owner == ranks.rank else [solver_array(each) for each in rows.split(counts)]
    return xp.concat([given[owner].pop(0) for _, _, owner in pieces])


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
