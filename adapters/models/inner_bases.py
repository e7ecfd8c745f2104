"""Where the basis between two operators is free: what one produces, only the other reads, by sums or channel by channel.

    heads      values of attention. Sums over tokens lie between the rows of V that are a head's and the columns of O that read
               them, so that any orthogonal matrix may turn the channels of a head.
    channels   hidden channels. What lies between acts on each by itself, so that they may come in any order.

Such places are proposed by the shapes of operators (`proposals`) and proven by numbers: on a copy of each kind of block, with
random weights, a random change must leave the block's output as it is, and one that is made on one side alone must not. What
normalises, gates or shares values in between is thereby found out, whatever it is called.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from gramian.adapters.models.block_lists import block_lists, block_names
from gramian.adapters.models.discovery import short_window
from gramian.adapters.models.families import Structure
from gramian.adapters.models.model_copies import TOLERANCE, Stage, Understudy, difference
from gramian.adapters.models.modes import eval_mode
from gramian.adapters.models.proposals import Proposal, proposals
from gramian.adapters.models.rehearsal import first_line, names_in, shared_weights
from gramian.adapters.models.short_runs import states_of
from gramian.adapters.models.stand_ins import kind_of_block
from gramian.adapters.models.units import operator, read_unit_group, runs_at
from gramian.solvers.support.rotations import rotated_columns

__all__ = [
    "InnerBases",
    "InnerBasis",
    "change_columns",
    "change_rows",
    "check_together",
    "inner_bases_of",
    "random_change",
    "turned",
    "undone",
]


@dataclass(frozen=True, eq=False)
class InnerBasis:
    """One free basis.

    consumer: the full name of the operator whose columns it is the basis of. producers: full names, each with the rows that it
    is the basis of, those of one group after another; an operator that produces two factors is there twice. size: channels
    that are changed together, those of a head or of the module. heads: how many times as many columns the consumer has.
    groups: how many times as many rows there are of each producer; consecutive heads share them evenly. turns: whether any
    orthogonal matrix is admitted, or only another order.
    """

    consumer: str
    producers: tuple[tuple[str, np.ndarray], ...]
    size: int
    heads: int
    groups: int
    turns: bool

    @property
    def operators(self) -> tuple[str, ...]:
        """The full names of all operators that a change is written to."""
        return (*dict.fromkeys(name for name, _ in self.producers), self.consumer)

    def moved(self, block: str, other: str) -> InnerBasis:
        """The same in another block of its kind."""
        producers = tuple((f"{other}{name.removeprefix(block)}", rows) for name, rows in self.producers)
        return InnerBasis(
            f"{other}{self.consumer.removeprefix(block)}", producers, self.size, self.heads, self.groups, self.turns
        )


@dataclass(frozen=True)
class InnerBases:
    """What is free. found: by the full name of the consumer, in order. refused: by the full name of a consumer whose producers
    are known, or of what may be one, why it is not."""

    found: Mapping[str, InnerBasis]
    refused: Mapping[str, str]


ROUNDINGS = 64  # of half precision, in which a turned weight is rounded and every block's sums are formed anew
KNOWN: WeakKeyDictionary[nn.Module, tuple[object, InnerBases]] = WeakKeyDictionary()
TOGETHER: WeakKeyDictionary[nn.Module, set[frozenset[str]]] = WeakKeyDictionary()  # operators that were changed all at once


def inner_bases_of(model: Any) -> InnerBases:
    """Find and prove the free bases of every block, once. ValueError: a model that a short window does not run through."""
    form, known = form_of(model), KNOWN.get(model)
    if known is None or known[0] != form:
        TOGETHER.pop(model, None)
        known = KNOWN[model] = (form, proven(model))
    return known[1]


def form_of(model: Any) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The names and shapes of what is in the blocks: a model whose widths were changed has other bases."""
    inside = tuple(f"{name}." for name in block_names(model))
    return tuple((name, tuple(each.shape)) for name, each in model.named_parameters() if name.startswith(inside))


@torch.no_grad()
def check_together(model: Any, bases: Collection[InnerBasis]) -> None:
    """Raise ValueError where a model whose weights are in memory computes something else, on a short window, once all these
    bases are changed at once, as it does if blocks share what one of them produces. It is unchanged, to the bit, afterwards."""
    names = sorted({name for basis in bases for name in basis.operators})
    if not names:
        return
    parameters = [parameter for name in names for parameter in operator(model, name).parameters(recurse=False)]
    tried_already = TOGETHER.setdefault(model, set())
    if frozenset(names) in tried_already or any(parameter.is_meta for parameter in model.parameters()):
        return
    window, own, generator = (
        short_window(model),
        [each.detach().clone() for each in parameters],
        torch.Generator().manual_seed(0),
    )
    with eval_mode(model):
        before = states_of(model, window)
        try:
            for basis in bases:
                change = random_change(basis, generator)
                change_columns(model, basis, change)
                change_rows(model, basis, change)
            after = states_of(model, window)
        finally:
            for parameter, value in zip(parameters, own):
                parameter.detach().copy_(value)
    scale = max(float(before.abs().max()), 1e-30)
    apart = float((after - before).abs().max()) / scale
    if not apart <= max(TOLERANCE, ROUNDINGS * torch.finfo(before.dtype).eps):
        raise ValueError(
            f"with other bases between {bases_named(bases)} {type(model).__name__} computes something else, by {apart:.2g} of "
            "its output, although every block by itself does not: leave out rotate_heads and permute_channels"
        )
    tried_already.add(frozenset(names))


def bases_named(bases: Collection[InnerBasis]) -> str:
    """The first of some bases by its operators, and how many more there are."""
    first = next(iter(bases))
    return " and ".join(first.operators) + (f", and in {len(bases) - 1} more places," if len(bases) > 1 else "")


@torch.no_grad()
def proven(model: Any) -> InnerBases:
    """Prove or refuse what is proposed of one block of every kind."""
    kinds: dict[Any, list[str]] = {}
    for path in block_lists(model):
        blocks: Any = model.get_submodule(path)
        for name, block in zip(names_in(path, blocks), blocks):
            kinds.setdefault((path, kind_of_block(block)), []).append(name)
    stage = Stage(model, [names[0] for names in kinds.values()], {name: names[0] for names in kinds.values() for name in names})
    try:
        stages = stage.stages()
    except Exception as error:  # stock code raises anything
        raise ValueError(
            f"free bases of {type(model).__name__} cannot be found: a short window does not run through it "
            f"({first_line(error)})"
        ) from error
    shared = shared_weights(model)
    found: dict[str, InnerBasis] = {}
    refused: dict[str, str] = {}
    for (path, _), names in kinds.items():
        for proposal in proposals(stage.block(names[0]), stages[names[0]], model.config.get_text_config(), path):
            basis, reason = first_free(stage, names[0], proposal)
            for name in names:
                consumer = f"{name}.{proposal.consumer}"
                if basis is None:
                    refused[consumer] = reason
                elif twice := sorted(shared.intersection((here := basis.moved(names[0], name)).operators)):
                    refused[consumer] = f"{twice[0]} has weights that are used elsewhere too"
                else:
                    found[consumer] = here
    return InnerBases(found, refused)


def first_free(stage: Stage, name: str, proposal: Proposal) -> tuple[InnerBasis | None, str]:
    """Find the first form of a proposal whose basis is free, else the reason why there is none."""
    reasons = []
    for form in proposal.forms:
        try:
            bases = read_bases(stage.model, name, form)
        except ValueError as error:
            reasons.append(str(error))
            continue
        for basis in bases:
            reason = tried(stage, name, basis)
            if reason is None:
                return basis, ""
            reasons.append(reason)
    return None, reasons[0] if reasons else "its operators are in none of the forms that are known"


def read_bases(model: Any, block: str, form: Structure) -> list[InnerBasis]:
    """Read the bases that a depth-2 module may have: of hidden channels all that it produces; of attention the values, which
    are the last rows that it produces, or, where they are fused, the last but one."""
    group = read_unit_group(model, block, form)
    sections = [(f"{block}.{path}", starts) for path, levels in form.producers for starts in group.starts(levels)]
    if form.unit_size is None:
        return [InnerBasis(group.name, tuple(sections), group.units, 1, 1, False)]
    return [
        InnerBasis(group.name, ((name, runs_at(starts, group.size)),), group.size, group.units, len(starts), True)
        for name, starts in (sections[:0:-1] if len(form.producers) == 1 else sections[-1:])
    ]


def tried(stage: Stage, name: str, basis: InnerBasis) -> str | None:
    """Change the basis of one block; None where that changes nothing, else what happened."""
    change = random_change(basis, stage.generator)
    with Understudy(stage, name):
        stage.run()
        before = stage.answer(name)
        change_columns(stage.model, basis, change)
        stage.run()
        if difference(stage.answer(name), before) < TOLERANCE:
            return f"another basis of {basis.consumer} alone changes nothing, so that nothing can be told from it"
        change_rows(stage.model, basis, change)
        stage.run()
        apart = difference(stage.answer(name), before)
    if apart < TOLERANCE:
        return None
    between, amount = f"{basis.producers[-1][0]} and {basis.consumer}", f"by {apart:.2g} of its output"
    if basis.turns:
        return f"what lies between {between} is more than sums over tokens: turned, they compute something else, {amount}"
    return f"what lies between {between} is not alike for all channels: reordered, they compute something else, {amount}"


def random_change(basis: InnerBasis, generator: torch.Generator) -> torch.Tensor:
    """A change of the basis of every group: any orthogonal matrix (groups, size, size), or another order (groups, size)."""
    if basis.turns:
        found: torch.Tensor = torch.linalg.qr(torch.randn(basis.groups, basis.size, basis.size, generator=generator))[0]
        return found
    return torch.stack([torch.randperm(basis.size, generator=generator) for _ in range(basis.groups)])


# -- changes -----------------------------------------------------------------------------------------------------------


def turned(matrix: torch.Tensor, change: torch.Tensor, heads: int) -> torch.Tensor:
    """M R for M (n, heads size) and the block-diagonal R with the change of every head: orthogonal matrices in the dtype of M,
    (groups, size, size), or orders (groups, size), whole numbers, by which columns are taken."""
    if change.is_floating_point():
        product: torch.Tensor = rotated_columns(matrix, change, heads)
        return product
    size = change.shape[1]
    own = change.repeat_interleave(heads // len(change), dim=0)
    places = own + size * torch.arange(heads, device=change.device)[:, None]
    return matrix.index_select(1, places.flatten().to(matrix.device))


def undone(change: torch.Tensor) -> torch.Tensor:
    """The change R^T that takes back R."""
    return change.transpose(1, 2) if change.is_floating_point() else change.argsort(dim=1)


def change_columns(model: Any, basis: InnerBasis, change: torch.Tensor, dtype: torch.dtype | None = None) -> None:
    """Write O R to the consumer, in place, rounded to `dtype` first where it is given."""
    module = operator(model, basis.consumer)
    weight = module.weight.detach()
    matrix = weight.T if isinstance(module, Conv1D) else weight
    found = turned(precise(matrix, change), change, basis.heads)
    matrix.copy_(found if dtype is None else found.to(dtype))


def change_rows(model: Any, basis: InnerBasis, change: torch.Tensor, dtype: torch.dtype | None = None) -> None:
    """Write R^T V to the rows of the producers, biases included, in place, rounded to `dtype` first where it is given."""
    for name, rows in basis.producers:
        module = operator(model, name)
        weight = module.weight.detach()
        matrix = weight.T if isinstance(module, Conv1D) else weight
        places = torch.from_numpy(rows).to(matrix.device)
        for each in (matrix,) if module.bias is None else (matrix, module.bias.detach()[:, None]):
            found = turned(precise(each[places], change).T, change, basis.groups).T
            each[places] = (found if dtype is None else found.to(dtype)).to(each.dtype)


def precise(matrix: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """A matrix in the dtype in which products with a change are formed; another order forms none."""
    return matrix.to(change.dtype) if change.is_floating_point() else matrix
