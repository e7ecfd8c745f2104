"""How objects print in a line, or in lines: an array by its shape, dtype and library, never by its numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gramian.solvers.backend._xp import Array, device, namespace, on_host

__all__ = ["aligned", "digits", "extent", "fraction_of_zeros", "kept", "kind", "span"]


def extent(array: Array) -> str:
    """Return the shape, as in `640x2048`."""
    return "x".join(str(length) for length in array.shape) or "scalar"


def kind(array: Array) -> str:
    """Return the dtype and the library, as in `float64, numpy`, with the device where that is not the host."""
    names = [str(array.dtype).rpartition(".")[2], namespace(array).__name__.rpartition(".")[2]]
    return ", ".join(names if on_host(array) else [*names, str(device(array))])


def digits(value: float) -> str:
    """Return a number to two digits, as in `4e-9`."""
    mantissa, exponential, exponent = f"{value:.2g}".partition("e")
    return mantissa + exponential + (str(int(exponent)) if exponential else "")


def span(array: Array) -> str:
    """Return the least and the largest entry, as in `1 to 4`, or the one number that both are."""
    xp = namespace(array)
    least, largest = digits(float(xp.min(array))), digits(float(xp.max(array)))
    return least if least == largest else f"{least} to {largest}"


def fraction_of_zeros(array: Array) -> str:
    """Return how many entries are exactly zero, or False, as in `50 % zeros`."""
    xp = namespace(array)
    zeros = int(xp.sum(xp.astype(~xp.astype(array, xp.bool), xp.int64)))
    return f"{100 * zeros / max(1, math.prod(array.shape)):.3g} % zeros"


def kept(*masks: Array) -> str:
    """Return how many of the entries of boolean masks are True, as in `6 of 8`."""
    counts = (int(namespace(mask).sum(namespace(mask).astype(mask, namespace(mask).int64))) for mask in masks)
    return f"{sum(counts)} of {sum(math.prod(mask.shape) for mask in masks)}"


def aligned(rows: Sequence[tuple[str, str]]) -> str:
    """Return a line for each name and text, the texts one below the other."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)
