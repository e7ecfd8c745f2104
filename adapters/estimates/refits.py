"""What it takes to refit blocks as a whole: runs of a block, forwards and backwards, and copies of its weights."""

from __future__ import annotations

from typing import Any

from gramian.adapters.models.stacks import blocks_in
from gramian.adapters.passes.block_fits import EPOCHS
from gramian.adapters.passes.block_refits import ASIDE

__all__ = ["block_bytes", "token_runs"]

COPIES = 7  # of a block's weights in float32: those that move, their gradients, Adam's two means, the last, the best, rounded
BACKWARD = 2  # times the operations of a forward pass
STREAMS = 3  # more copies of hidden states: on the dense path what enters a block and leaves it, and the targets


def token_runs(calibrating: int, heldout: int) -> float:
    """How often tokens run through a block, counted in forward passes: once more for targets; for losses before, after every
    epoch, and on held-out text at the end; and through the steps."""
    fitted = calibrating * (1 - 1 / ASIDE)
    return 2 * calibrating + 3 * heldout + EPOCHS * (calibrating + (1 + BACKWARD) * fitted)


def block_bytes(model: Any) -> int:
    """The copies of the largest block."""
    return 4 * COPIES * max(sum(each.numel() for each in block.parameters()) for block in blocks_in(model).values())
