"""Grids of whole numbers times a scale, one scale for every group of consecutive inputs of a row."""

from __future__ import annotations

from dataclasses import dataclass

from gramian.solvers.backend._xp import Array, clip, copied, namespace
from gramian.solvers.backend.options import whole

__all__ = ["SCALE_DIGITS", "Grid", "rounded_scale"]

SCALE_DIGITS = 8  # significant bits of a scale, those of bfloat16, so that no checkpoint's dtype rounds it once more
SHRUNK = (0.975, 0.95, 0.925, 0.9, 0.875, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.5)  # of the scale that reaches the largest weight


@dataclass(frozen=True)
class Grid:
    """{s c : c whole, -2^(bits - 1) <= c < 2^(bits - 1)}, with a scale s > 0 for every group of a row

    Zero is on the grid exactly, whatever the scale. The last group of a row is shorter where `group` does not divide the
    number of inputs. A scale has 8 significant bits, as a number in bfloat16, so that s c is exact in float32.

    Parameters
    ----------
    bits : int, default 4
        2 to 8.
    group : int, default 64
        Consecutive inputs of a row that share a scale.

    Raises
    ------
    ValueError
        For numbers out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import Grid
    >>> grid = Grid(bits=4, group=2)
    >>> grid.lowest, grid.highest, grid.bytes((10, 64))
    (-8, 7, 960)
    >>> grid.dequantised(np.array([[7, -1, 0, 2]]), np.array([[0.5, 0.25]])).tolist()
    [[3.5, -0.5, 0.0, 0.5]]
    """

    bits: int = 4
    group: int = 64

    def __post_init__(self) -> None:
        bits, group = whole("bits", self.bits, 2), whole("group", self.group)
        if bits > 8:
            raise ValueError(f"bits must be a whole number in [2, 8] but is {bits}: codes are stored in a byte at most")
        object.__setattr__(self, "bits", bits)
        object.__setattr__(self, "group", group)

    @property
    def lowest(self) -> int:
        """Return the smallest code."""
        return -(1 << (self.bits - 1))

    @property
    def highest(self) -> int:
        """Return the largest code."""
        return (1 << (self.bits - 1)) - 1

    def groups(self, width: int) -> int:
        """Return how many groups a row of `width` inputs has."""
        return -(-width // self.group)

    def bytes(self, shape: tuple[int, int]) -> int:
        """Return the bytes of the codes of weights (q, p), zeros among them, and of their scales, two bytes each."""
        return shape[0] * (-(-shape[1] * self.bits // 8) + 2 * self.groups(shape[1]))

    def nearest(self, values: Array, scales: Array) -> Array:
        """Return argmin_c |s c - v| over the codes, in the dtype of the values, which scales broadcast to."""
        return clip(namespace(values).round(values / scales), self.lowest, self.highest)

    def dequantised(self, codes: Array, scales: Array) -> Array:
        """Return s c (q, p) for codes (q, p) and scales (q, groups), in the dtype of the scales."""
        return namespace(codes, scales).astype(codes, scales.dtype) * self.spread(scales, codes.shape[1])

    def spread(self, scales: Array, width: int) -> Array:
        """Return scales (q, groups), each repeated over its group, (q, width)."""
        return namespace(scales).repeat(scales, min(self.group, width), axis=1)[:, :width]

    def scales_of(self, values: Array, costs: Array, kept: Array) -> Array:
        """argmin_s sum_j costs_j kept_j min_c (s c - v_j)^2 over a few scales for each group of many, (q,)

        values: columns of one group (g, q). costs: (g,) or (g, q), at least zero. kept: (g, q), False where a weight is zero
        anyway. The scales are those at which the largest weight has a whole code, so that weights on a grid are found to be
        there, and smaller ones, at which it is cut. A group without a weight has the scale one.
        """
        xp = namespace(values)
        values = xp.where(kept, values, xp.zeros_like(values))
        costs = costs if costs.ndim == 2 else costs[:, None]
        peak = xp.max(xp.abs(values), axis=0)
        ones = xp.ones_like(peak)
        wholes = [self.highest, self.highest + 1, *range(self.highest - 1, max(self.highest - 8, 0), -1)]
        best, least = ones, xp.full_like(peak, float("inf"))
        for level in (*wholes, *(self.highest / factor for factor in SHRUNK)):
            scale = rounded_scale(peak / level)
            scale = xp.where(scale > 0, scale, ones)
            error = xp.sum(costs * (self.nearest(values, scale) * scale - values) ** 2, axis=0)
            best, least = xp.where(error < least, scale, best), xp.where(error < least, error, least)
        return copied(best)


def rounded_scale(values: Array) -> Array:
    """Return values rounded to 8 significant bits, exactly: the high part of Veltkamp's splitting."""
    xp = namespace(values)
    digits = 24 if values.dtype == xp.float32 else 53
    shifted = values * float(2 ** (digits - SCALE_DIGITS) + 1)
    return shifted - (shifted - values)
