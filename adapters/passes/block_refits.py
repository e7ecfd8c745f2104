"""The pass around another that fits what is left of every block as a whole, once its operators are decided on."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from gramian.adapters.models.block_lists import full_name
from gramian.adapters.models.examples import Rows
from gramian.adapters.passes.block_fits import BlockFit, Step, scales_of
from gramian.adapters.passes.removal import RemoveUnits
from gramian.adapters.passes.weights import ZeroWeights
from gramian.adapters.report import BlockReport
from gramian.adapters.run.block_records import written_to
from gramian.adapters.run.blocks import module_at
from gramian.adapters.run.forward import BlockCall, enter
from gramian.adapters.run.naming import naming
from gramian.adapters.run.ranks import Shares
from gramian.adapters.run.walk import Decision, collected

__all__ = ["RefitBlocks"]

ASIDE = 4  # one window in this many says when a fit ends, and whether it is kept
STEP_TOKENS = 512  # of a step, at least one window's
States = Sequence[torch.Tensor | None]


@dataclass(frozen=True)
class Part:
    """Some windows of one batch, which enter the block together. kind: 0 is fitted, 1 set aside, 2 held out."""

    batch: int
    windows: slice
    kind: int


@dataclass(frozen=True, eq=False)
class RefitBlocks:
    """argmin_V sum_t |S (b(x*_t; V) - T_t)|^2 / |T_t|^2 over all weights that are left of a block b, their zeros held.

    It follows `each`, another pass. T = target_blend times what the dense block answers on the dense model's path, plus the
    rest of what it answers on x*, what the blocks pruned so far deliver. A parameter that another part of the model has too
    remains as it is.

    batches: of windows, of which the first `fitted` calibrate; the rest are held out for the report. dtype: of the checkpoint.
    shares: of the batches, where other processes run some; the first one fits, and the others take its weights over.
    """

    each: ZeroWeights | RemoveUnits
    model: Any
    paths: tuple[str, ...]
    batches: Sequence[Rows]
    fitted: int
    target_blend: float
    dtype: torch.dtype
    shares: Shares = Shares()
    runs = True
    follows = "pruned"

    @property
    def name(self) -> str:
        """Of the pass inside."""
        return self.each.name

    @property
    def stop(self) -> int:
        """Of the pass inside."""
        return self.each.stop

    @property
    def taps_dense(self) -> bool:
        """Of the pass inside."""
        return self.each.taps_dense

    @property
    def types(self) -> Sequence[type]:
        """Of rows."""
        return (*self.each.types, BlockReport)

    def open(self, index: int, block: nn.Module) -> Decision:
        """Begin with a block."""
        return self.each.open(index, block)

    def written(self, index: int) -> list[str]:
        """The modules of a block with parameters of their own, if any of it is pruned."""
        if not self.each.written(index):
            return []
        found = module_at(self.model, self.paths[index]).named_modules()
        path = self.paths[index]
        return [
            full_name(path, name) if name else path for name, module in found if any(True for _ in module.parameters(False))
        ]

    @cached_property
    def parts(self) -> list[Part]:
        """The windows in steps of about STEP_TOKENS tokens: the last quarter of those that calibrate is set aside."""
        calibrating = sum(map(len, self.batches[: self.fitted]))
        rest = calibrating - max(1, calibrating // ASIDE)
        found = list[Part]()
        for number, batch in enumerate(self.batches):
            here = min(len(batch), max(0, rest)) if number < self.fitted else 0
            rest -= len(batch)
            count = max(1, STEP_TOKENS // length_of(batch))
            kinds = [(0, here, 0), (here, len(batch), 1 if number < self.fitted else 2)]
            for first, last, kind in kinds:
                found += [Part(number, slice(at, min(at + count, last)), kind) for at in range(first, last, count)]
        return found

    @cached_property
    def calls(self) -> Sequence[Any]:
        """The call of every block for as many windows as a step has."""
        shapes = {(part.windows.stop - part.windows.start, length_of(self.batches[part.batch])): part for part in self.parts}
        _, calls = enter(self.model, [self.batches[part.batch].split(count)[0] for (count, _), part in shapes.items()])
        return calls

    def refit(self, index: int, block: nn.Module, entering: States, targets: States) -> list[BlockReport]:
        """Fit a block, and return the row that says what came of it. entering: x*, batch by batch. targets: T."""
        ranks = self.shares.ranks
        if not ranks.alone:
            entering, targets = collected(entering, self.shares), collected(targets, self.shares)
        given = None
        if ranks.first:
            with naming(self.paths[index]):
                row = self.fitted_block(index, block, entering, targets)
            given = row, None if ranks.alone else {name: each.detach().cpu() for name, each in block.named_parameters()}
        row, tensors = ranks.share(given)
        if not ranks.first:
            assert tensors is not None
            for name, parameter in block.named_parameters():
                parameter.detach().copy_(tensors[name])
        return [row]

    def fitted_block(self, index: int, block: nn.Module, entering: States, targets: States) -> BlockReport:
        """The work of one process."""
        started, steps = time.perf_counter(), [list[Step](), list[Step](), list[Step]()]
        for part in self.parts:
            states, target = entering[part.batch], targets[part.batch]
            assert states is not None and target is not None
            steps[part.kind].append((states[part.windows], target[part.windows]))
        call = self.calls[index]
        assert isinstance(call, BlockCall)
        scales = scales_of(steps[0])
        fit = BlockFit(block, call, self.free(index, block), dict(zeros_of(block)), self.dtype, scales)
        tokens = [sum(target.shape[0] * target.shape[1] for _, target in some) for some in steps]
        apart = fit.loss(steps[2])
        found = fit.solve(steps[0], steps[1])
        return BlockReport(
            name=self.paths[index],
            error=(found.before.fitted / tokens[0], found.after.fitted / tokens[0]),
            aside_error=(found.before.aside / tokens[1], found.after.aside / tokens[1]),
            heldout_error=(apart / tokens[2], fit.loss(steps[2]) / tokens[2]) if steps[2] else None,
            epochs=found.epochs,
            tried=found.tried,
            seconds=time.perf_counter() - started,
        )

    def free(self, index: int, block: nn.Module) -> list[str]:
        """The parameters that are fitted, by name in the block: those that no other part of the model has."""
        inside = full_name(self.paths[index], "")
        others = {id(each) for name, each in self.model.named_parameters(remove_duplicate=False) if not name.startswith(inside)}
        recorded = {name.removeprefix(inside) for path in self.written(index) for name in written_to(self.model, path)}
        found = ((name, each) for name, each in block.named_parameters() if name in recorded and id(each) not in others)
        return [name for name, each in found if each.is_floating_point()]


def zeros_of(block: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Where weights of a block are not zero, by name, of those that have zeros: whoever made these, a run before this one may
    have pruned what this one does not."""
    for name, each in block.named_parameters():
        if each.ndim > 1 and not bool((kept := each.detach() != 0).all()):
            yield name, kept


def length_of(rows: Rows) -> int:
    """How many tokens a window has."""
    return int((rows if isinstance(rows, torch.Tensor) else rows.ids).shape[1])
