"""CFSP: blocks by how far they turn the stream, and units within by relative activations and weights (Wang et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gramian.adapters.methods.types import ModelContext, ScoreContext, UnitScores
from gramian.solvers.backend._xp import to_numpy

if TYPE_CHECKING:
    from torch import nn

    from gramian.adapters.methods.unit_sets import UnitSet

__all__ = ["angles_of_blocks", "check_blocks", "coarse_to_fine"]


def coarse_to_fine(module: ScoreContext) -> UnitScores:
    """I_b a_u w_u / mean_v a_v w_v, I_b = mean_t arccos(cos(x_t, f_b(x_t))) / pi, orders units u of the modules of block b.

    I_b is how far the block turns what enters it (`block_angles`), a_u = sum |X_j|_2 over the unit's columns j of the consumer,
    and w_u = sum |w| over all weights that are removed with the unit. CFSP (Wang et al. 2024) gives every block a budget by I
    and keeps by relative activations and weights within it; here both are one score, of mean I_b in every module, and
    `allocation="score"` ranks it over the model, so that a block loses the more the less it turns the stream.
    """
    activity = module.per_unit(np.sqrt(to_numpy(module.inputs().diagonal)))
    product = activity * module.magnitudes(1)
    mean = float(product.mean())
    return UnitScores((1.0 if module.statistics is None else module.statistics) * product / (mean or 1.0))


def angles_of_blocks(context: ModelContext) -> Sequence[float]:
    """I_b of the block that each module is in."""
    from gramian.adapters.methods.block_angles import block_angles

    found = block_angles(context.model, context.windows, context.blocks)  # type: ignore[arg-type]
    return [found[unit_set.unit_group.block] for unit_set in context.unit_sets]


def check_blocks(model: nn.Module, unit_sets: Sequence[UnitSet]) -> None:
    """Raise ValueError for a model that is one block."""
    from gramian.adapters.models.block_lists import walks_by_block

    if not walks_by_block(model):
        raise ValueError(
            f"'cfsp' compares what enters a block with what leaves it, and {type(model).__name__} does not run block by block: "
            "take wanda-sp"
        )
