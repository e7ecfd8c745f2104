"""How far each block of the dense model turns the hidden states that it is given."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import torch

from gramian.adapters.models.examples import Rows
from gramian.adapters.models.experts import eager_experts
from gramian.adapters.passes.planned import nothing
from gramian.adapters.run.blocks import Blocks
from gramian.adapters.run.forward import enter, run_block
from gramian.adapters.run.mixtures import Mixture
from gramian.adapters.run.naming import naming
from gramian.solvers.levels.turning_blocks import angles, turning_weights

__all__ = ["block_angles", "turning_blocks"]


@torch.no_grad()
def block_angles(
    blocks: Blocks, batches: Sequence[Rows], mixture: Mixture | None = None, advance: Callable[[], object] = nothing
) -> dict[str, float]:
    """mean_t arccos(x_t . f(x_t) / (|x_t| |f(x_t)|)) / pi of every block f and what enters it, x, by path, from 0 to 1.

    mixture: of the domains, where there are several; tokens count by their weights. ValueError, naming the block, for states
    that are not finite."""
    found = {}
    hidden, calls = enter(blocks.model, batches)
    with eager_experts(blocks.model):
        for index, path in enumerate(blocks.paths):
            with naming(path):
                leaving = run_block(blocks.acquire(index), calls[index], hidden)
            blocks.commit(index)
            total = mass = 0.0
            for batch, (before, after) in enumerate(zip(hidden, leaving)):
                assert before is not None and after is not None
                turned = angles(before.double(), after.double())
                factor = 1.0 if mixture is None else mixture.factor(batch)
                total += factor * float(turned.sum())
                mass += factor * turned.numel()
            if not math.isfinite(total):
                raise ValueError(f"{path}: what enters or leaves it is not finite, so that it turns nothing by any angle")
            found[path], hidden = total / mass, leaving
            advance()
    return found


def turning_blocks(
    blocks: Blocks,
    concerned: Collection[str],
    batches: Sequence[Rows],
    mixture: Mixture | None = None,
    advance: Callable[[], object] = nothing,
) -> dict[str, float]:
    """`turning_weights` of the blocks of which something is to go, by path."""
    found = {path: turn for path, turn in block_angles(blocks, batches, mixture, advance).items() if path in concerned}
    return dict(zip(found, turning_weights(list(found.values()))))
