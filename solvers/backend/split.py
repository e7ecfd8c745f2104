"""float32 products as three products of TF32 operands, which tensor cores multiply several times as fast as float32.

A number of TF32 has 11 significant bits of float32's 24, and products of two of them are exact in float32. With A = H + L and
B = H' + L', each the nearest number of TF32 and what is left, rounded to TF32 too,

    A B ~ H H' + H L' + L H',    | error | <= 3 u^2 |A| |B| + rounding of the sums,    u = 2^-11,

entry by entry, that is 2^-20.4 of |A| |B| at worst and 2^-22 as a rule; float32 itself is off by 2^-24 times the root of the
number of terms. Numbers above 1e34 overflow.
"""

from __future__ import annotations

from gramian.solvers.backend import _cuda
from gramian.solvers.backend._xp import Array, is_cupy_array, namespace

__all__ = ["halves", "split_product"]

SHIFT = float(2**13 + 1)  # leaves 24 - 13 bits
Halves = tuple[Array, Array]


def halves(array: Array) -> Halves:
    """Return H and L of a float32 array; H + L is within 2^-22 of it, and both are numbers of TF32."""
    xp = namespace(array)
    if array.dtype != xp.float32:
        raise ValueError(f"products are split in float32, but the array is {array.dtype}")
    high = nearest(array)
    return high, nearest(array - high)


def nearest(array: Array) -> Array:
    """Return the nearest numbers of TF32 (Veltkamp)."""
    large = SHIFT * array
    return large - (large - array)


def split_product(left: Array, right: Halves) -> Array:
    """Return A B in float32, from A and the halves of B.

    On cupy the three products are those of tensor cores, whatever is set for others; elsewhere they are three of float32, which
    give the same but for the order of the sums.
    """
    high, low = halves(left)
    if is_cupy_array(left):
        return _cuda.tensor_core_sum([(high, right[1]), (low, right[0]), (high, right[0])])
    return high @ right[1] + low @ right[0] + high @ right[0]  # the small ones first
