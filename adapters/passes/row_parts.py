"""Parts of an operator's rows, which several processes solve for: the same parts, however many processes there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from gramian.adapters.devices import tensor_of
from gramian.adapters.models.weight_parts import Parts, parts_in
from gramian.solvers import NM, Pattern, Solution, TopK

__all__ = ["Answer", "joined", "rows_compete", "split_rows"]

PARTS = 8  # at most
ROWS = 320  # of a part, at least: what it does with the Gram matrix by itself is then little beside 160 products with its rows


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
