"""CFSP: units by activations and weights, and how many of each block by how far it turns the stream (Wang et al. 2024)."""

from __future__ import annotations

import numpy as np

from gramian.adapters.methods.types import ScoreContext, UnitScores
from gramian.solvers.backend._xp import to_numpy

__all__ = ["check_within", "coarse_to_fine"]

WITHIN = ("product", "activations")


def coarse_to_fine(module: ScoreContext, *, within: str = "product") -> UnitScores:
    """a_u |w_u|_1: a_u = sum |X_j|_2 over the unit's columns j of the consumer, |w_u|_1 over all that goes with the unit.

    How many remain of every block says `allocation="angles"` (CFSP, Wang et al. 2024). within: "product", or "activations",
    a_u alone, to which the released code's relative weights amount, as each column's sum to one.
    """
    scores = module.per_unit(np.sqrt(to_numpy(module.inputs().diagonal)))
    return UnitScores(scores * module.magnitudes(1) if within == "product" else scores)


def check_within(within: str = "product") -> None:
    """Raise ValueError for an order that is none."""
    if within not in WITHIN:
        raise ValueError(f"within must be one of {', '.join(WITHIN)} but is {within!r}")
