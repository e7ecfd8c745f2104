"""CFSP: how much blocks keep by how far they turn the stream, and which units by activations and weights (Wang et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gramian.adapters.methods.types import ModelContext, ScoreContext, UnitScores
from gramian.solvers.backend._xp import to_numpy
from gramian.solvers.levels.turning_blocks import proportional_scores, turning_weights

if TYPE_CHECKING:
    from torch import nn

    from gramian.adapters.methods.unit_sets import UnitSet

__all__ = ["check_blocks", "coarse_to_fine", "weights_of_blocks"]

WITHIN = ("product", "activations")


def coarse_to_fine(module: ScoreContext, *, within: str = "product") -> UnitScores:
    """s_u = w_b n / (1 + r_u), r_u the place of unit u by a_u |w_u|_1: one threshold keeps parts in proportion to w_b.

    w_b rises with how far block b turns what enters it (`turning_weights`), a_u = sum |X_j|_2 over the unit's columns j of the
    consumer, and |w_u|_1 = sum |w| over all weights that are removed with the unit (CFSP, Wang et al. 2024). within: "product",
    or "activations", a_u alone, to which the released code's relative weights amount, as each column's sum to one.
    """
    scores = module.per_unit(np.sqrt(to_numpy(module.inputs().diagonal)))
    if within == "product":
        scores = scores * module.magnitudes(1)
    return UnitScores(proportional_scores(scores, 1.0 if module.statistics is None else module.statistics))


def check_within(within: str = "product") -> None:
    """Raise ValueError for an order that is none."""
    if within not in WITHIN:
        raise ValueError(f"within must be one of {', '.join(WITHIN)} but is {within!r}")


def weights_of_blocks(context: ModelContext, *, within: str = "product") -> Sequence[float]:
    """w_b of the block that each module is in."""
    from gramian.adapters.methods.block_angles import block_angles

    found = block_angles(context.model, context.windows, context.blocks)  # type: ignore[arg-type]
    weights = dict(zip(found, turning_weights(list(found.values()))))
    return [weights[unit_set.unit_group.block] for unit_set in context.unit_sets]


def check_blocks(model: nn.Module, unit_sets: Sequence[UnitSet]) -> None:
    """Raise ValueError for a model that is one block."""
    from gramian.adapters.models.block_lists import walks_by_block

    if not walks_by_block(model):
        raise ValueError(
            f"'cfsp' compares what enters a block with what leaves it, and {type(model).__name__} does not run block by block: "
            "take wanda-sp"
        )
