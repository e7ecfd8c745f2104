"""How large the weights of every operator are, by which one threshold for the whole model says how sparse each becomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gramian.adapters.models.layers import Layer
from gramian.solvers import Moments

__all__ = ["Magnitudes", "magnitudes", "zeros_below"]

SIZES = 1 << 15  # that a number of 16 bits has without its sign


@dataclass(frozen=True, eq=False)
class Magnitudes:
    """sizes: absolute values of one operator's weights, the smallest first, by their bits in bfloat16. counts: how many weights
    have each."""

    name: str
    sizes: np.ndarray
    counts: np.ndarray


def magnitudes(layer: Layer, _: Moments) -> Magnitudes:
    """The sizes of one operator's weights; what reaches it does not matter.

    Bits of a positive number rise with it, so that the upper half of those of float32, which is bfloat16 cut off, orders it."""
    bits = layer.weight.detach().float().abs().cpu().contiguous().numpy().view(np.uint32) >> 16
    counts = np.bincount(bits.ravel(), minlength=SIZES)
    sizes = np.flatnonzero(counts)
    return Magnitudes(layer.name, sizes, counts[sizes])


def zeros_below(rows: Sequence[Magnitudes], zeros: int) -> dict[str, int]:
    """How many weights of every operator are among the `zeros` smallest of all, by name.

    Of weights that are as large as the threshold, to 8 significant bits, every operator loses its part."""
    total = np.zeros(SIZES, dtype=np.int64)
    for row in rows:
        total[row.sizes] += row.counts
    threshold = int(np.searchsorted(np.cumsum(total), zeros))
    below = np.array([int(row.counts[row.sizes < threshold].sum()) for row in rows])
    equal = np.array([int(row.counts[row.sizes == threshold].sum()) for row in rows])
    part = (zeros - below.sum()) * equal / max(int(equal.sum()), 1)
    more = np.floor(part).astype(np.int64)
    more[np.argsort(more - part, kind="stable")[: int(zeros - below.sum() - more.sum())]] += 1
    return {row.name: int(count) for row, count in zip(rows, below + more)}
