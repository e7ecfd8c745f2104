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
from gramian.solvers.support.growing_penalty import Choose
from gramian.solvers.support.shrinkage import Exact

__all__ = ["Answer", "joined", "row_choice", "rows_compete", "shared_refits", "split_rows"]

PARTS = 8  # at most
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
    count = max(1, min(PARTS, rows // ROWS)) if apart else 1
    ends = [int(end) for end in np.linspace(0, rows, count + 1).round()]
    return [slice(first, last) for first, last in pairwise(ends)]


def rows_compete(pattern: Pattern) -> bool:
    """Whether what one row keeps depends on other rows, as far as is known."""
    return not (isinstance(pattern, NM) or (isinstance(pattern, TopK) and pattern.per_row))


def row_choice(pattern: Pattern, parts: Sequence[slice], owners: Sequence[int], ranks: Ranks) -> Choose:
    """choose(scores) -> masks for those parts of an operator's rows that this process owns. Where the pattern compares rows,
    all owners give each other the scores of theirs, and each has to choose as often as the others."""
    numbers = [number for number, owner in enumerate(owners) if owner == ranks.rank]
    involved = sorted(set(owners))

    def choose(scores: Sequence[Any]) -> Sequence[Any]:
        if not rows_compete(pattern):
            return [pattern.largest(score) for score in scores]
        mine, every = dict(zip(numbers, scores)), []
        for number, (rows, owner) in enumerate(zip(parts, owners)):
            score = mine.get(number)
            if len(involved) > 1:
                own = None if score is None else tensor_of(score)
                like = tensor_of(scores[0]).new_empty((rows.stop - rows.start, scores[0].shape[1]))
                given = ranks.shared_tensor(own, like, owner, involved)
                score = solver_array(given) if score is None else score
            every.append(score)
        mask = pattern.largest(namespace(*every).concat(every))
        return [mask[parts[number], :] for number in numbers]

    return choose


def shared_refits(owners: Sequence[int], ranks: Ranks) -> Exact:
    """exact(pilot, mask) -> the best weights on a mask, of which the owners of an operator's parts find some rows each. Each
    has to ask as often as the others."""
    involved = sorted(set(owners))

    def exact(pilot: Quadratic, mask: Any) -> Any:
        count = pilot.shape[0]
        ends = [int(end) for end in np.linspace(0, count, min(PARTS, count) + 1).round()]
        every = []
        for number, (first, last) in enumerate(pairwise(ends)):
            owner = involved[number * len(involved) // (len(ends) - 1)]
            found = None
            if owner == ranks.rank:
                found = refit(pilot.part(slice(first, last)), mask[first:last, :]).weights
            if len(involved) > 1:
                like = tensor_of(pilot.anchor).new_empty((last - first, pilot.shape[1]))
                given = ranks.shared_tensor(None if found is None else tensor_of(found), like, owner, involved)
                found = solver_array(given) if found is None else found
            every.append(found)
        return namespace(*every).concat(every)

    return exact


def joined(answers: Sequence[Answer]) -> Answer:
    """The answer for all rows: of figures the largest counts, and every status is named."""
    if len(answers) == 1:
        return answers[0]
    names = {name: None for each in answers for name in each.detail}
    return Answer(
        torch.cat([each.weights for each in answers]),
        "; ".join({each.status: None for each in answers}),
        {name: max(each.detail[name] for each in answers if name in each.detail) for name in names},
    )
