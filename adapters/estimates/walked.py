"""What the walk of a pass takes: the pass itself says, block by block, what it taps, what it waits for, and what it writes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from gramian.adapters.models.layers import Layer
from gramian.adapters.run.blocks import module_at
from gramian.adapters.run.walk import Pass

__all__ = ["Walked", "walked"]

PAIRED = 4  # times the operations of A^T A that G, C and E take together: C is a product of two matrices, and as large as two


@dataclass(frozen=True)
class Walked:
    """One walk over the blocks.

    runs: how often a token runs through the model, parts of blocks included. operations: in moments, for every token. entries:
    of the moments that are in memory at once, at most. kept: widths of the inputs that wait at one block, in all, at most.
    written: the operators that are written to.
    """

    runs: float
    operations: float
    entries: int
    kept: int
    written: tuple[str, ...]


def walked(each: Pass, model: Any, paths: tuple[str, ...]) -> Walked:
    """Open every block of a pass and run none. paths: of the blocks; their weights need not be in memory."""
    runs, operations, entries, kept = 0.0, 0.0, 0, 0
    follows_pruned = each.follows == "pruned"
    for index in range(each.stop if each.runs else 0):
        block = module_at(model, paths[index])
        decision = each.open(index, block)
        waiting = [inputs_of(module) for module in decision.replayed]
        squares = [width**2 for width in waiting or map(inputs_of, decision.taps)]
        drifted = follows_pruned and each.taps_dense and index > 0  # before anything is written to this block
        following = [*decision.replayed] if drifted else [*decision.replayed][1:]
        runs += (1 + follows_pruned + sum(before(block, module) for module in following)) / len(paths)
        operations += sum(squares) + (PAIRED - 1) * sum(inputs_of(module) ** 2 for module in following)
        entries = max(entries, 3 * max(squares, default=0) if waiting else sum(squares))
        kept = max(kept, sum(waiting))
    return Walked(runs, operations, entries, kept, tuple(written(each, len(paths))))


def written(each: Pass, blocks: int) -> Iterable[str]:
    """The operators that a pass writes to."""
    return (name for index in range(min(each.stop, blocks)) for name in each.written(index))


def inputs_of(module: nn.Module) -> int:
    """The inputs of an operator."""
    return int(Layer("", module).weight.shape[1])


def before(block: nn.Module, module: nn.Module) -> float:
    """The part of a block's weights that lies before one of its modules."""
    passed, whole, found = 0, 0, False
    for each in block.modules():
        found = found or each is module
        size = sum(parameter.numel() for parameter in each.parameters(recurse=False))
        whole += size
        passed += 0 if found else size
    return passed / whole
