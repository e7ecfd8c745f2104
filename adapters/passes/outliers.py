"""Outliers among the weights of every block of the dense model, by which OWL says how sparse each becomes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gramian.adapters.models.layers import Layer
from gramian.solvers import Moments
from gramian.solvers.backend._xp import to_numpy
from gramian.solvers.levels.outliers import outlier_ratio

__all__ = ["BlockOutliers", "outliers", "saliencies"]


@dataclass(frozen=True)
class BlockOutliers:
    """ratio: the part of a block's weights that are outliers, or the mean exponent of their spectra. names: of its operators.
    size: how many weights they have."""

    names: tuple[str, ...]
    ratio: float
    size: int


@dataclass(frozen=True, eq=False)
class Saliencies:
    """|W_ij| |X_j|_2 of one operator, (q, p)."""

    name: str
    values: np.ndarray


def saliencies(layer: Layer, moments: Moments) -> Saliencies:
    """Wanda's scores of one operator."""
    problem = layer.problem(moments)
    return Saliencies(layer.name, np.abs(to_numpy(problem.anchor)) * np.sqrt(to_numpy(problem.diagonal)))


def outliers(rows: list[Saliencies]) -> list[BlockOutliers]:
    """The part of a block's weights that are outliers."""
    scores = [row.values for row in rows]
    return [BlockOutliers(tuple(row.name for row in rows), outlier_ratio(scores), sum(each.size for each in scores))]
