"""How heavy the tails of the spectra of every block's weights are, by which AlphaPruning says how sparse each becomes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gramian.adapters.devices import solver_array
from gramian.adapters.models.layers import Layer
from gramian.adapters.passes.outliers import BlockOutliers
from gramian.solvers import Moments
from gramian.solvers.levels.heavy_tails import hill_exponent

__all__ = ["exponents", "spectrum"]


@dataclass(frozen=True)
class Spectrum:
    """exponent: of the tail of one operator's spectrum. size: how many weights it has."""

    name: str
    exponent: float
    size: int


def spectrum(layer: Layer, _: Moments) -> Spectrum:
    """The exponent of one operator; what reaches it does not matter."""
    return Spectrum(layer.name, hill_exponent(solver_array(layer.weight.double())), math.prod(layer.weight.shape))


def exponents(rows: list[Spectrum]) -> list[BlockOutliers]:
    """The mean exponent over the operators of a block, of those that have a tail; infinite where none has."""
    finite = [row.exponent for row in rows if math.isfinite(row.exponent)]
    mean = sum(finite) / len(finite) if finite else math.inf
    return [BlockOutliers(tuple(row.name for row in rows), mean, sum(row.size for row in rows))]
