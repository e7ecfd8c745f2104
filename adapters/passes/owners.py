"""Which process solves for which parts of operators, and how parts, and operators that are done, come to all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from gramian.adapters.models.layers import Layer
from gramian.adapters.passes.row_parts import Answer
from gramian.adapters.report import OperatorReport
from gramian.adapters.run.ranks import Ranks, dealt

__all__ = ["handed_on", "owners_of", "put_together"]

# About how much work an operator of p inputs is: multiplications of p^2 and p^3 a row, and of p^3 for the Gram matrix. Methods
# with a form for parts of rows take many steps, a refit of every row, and eigenvectors.
COSTS, APART_COSTS = (1.0, 0.0, 1 / 3), (360.0, 1 / 6, 50.0)


def owners_of(inputs: Sequence[int], parts: Sequence[Sequence[slice]], apart: bool, size: int) -> list[list[int]]:
    """For operators that are solved for at the same time, the process of each part.

    inputs: p, by operator. parts: of its rows. apart: whether the method has a form for parts of rows. size: how many
    processes there are."""
    square, cube, once = APART_COSTS if apart else COSTS
    costs = [[(part.stop - part.start) * (square * p**2 + cube * p**3) for part in some] for p, some in zip(inputs, parts)]
    return dealt(costs, [once * p**3 for p in inputs], size)


def put_together(ranks: Ranks, own: Mapping[int, Answer], owners: Sequence[int], end: int) -> dict[int, Answer] | None:
    """The answers for all parts of an operator, in the process `end`; None elsewhere. own: what this process has, by the number
    of the part. All processes have to come here."""
    found = [ranks.share(own[number] if owner == ranks.rank else None, owner) for number, owner in enumerate(owners)]
    return dict(enumerate(found)) if end == ranks.rank else None


def handed_on(ranks: Ranks, layer: Layer, row: OperatorReport | None, owner: int, dtype: torch.dtype) -> OperatorReport:
    """The row of an operator that the process `owner` has ended, whose weights, of a dtype, every other one takes over. row:
    there, and None elsewhere. All processes have to come here."""
    given = None
    if row is not None:
        given = row, {name: tensor.detach().to("cpu", dtype) for name, tensor in layer.tensors.items()}
    found, tensors = ranks.share(given, owner)
    if row is None:
        for name, tensor in layer.tensors.items():
            tensor.data.copy_(tensors[name])
    return found
