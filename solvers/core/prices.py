"""What a term asks per weight: a number, or an array that broadcasts to the weights."""

from __future__ import annotations

import numpy as np

from gramian.solvers.backend._xp import Array, as_floating, full, namespace
from gramian.solvers.backend.printed import extent

__all__ = ["checked_number", "checked_price", "of_price", "price_like", "where_zero"]


def checked_price(value: Array | float, name: str) -> Array | float:
    """Return `value`, a number of numpy's as one of Python's, whatever library the weights are of.

    ValueError is raised unless it is finite and at least zero everywhere. name: what it is, as in `an L1 weight`.
    """
    if isinstance(value, np.generic):
        value = float(value)
    if isinstance(value, int | float):
        valid = 0 <= value < float("inf")
    else:
        xp = namespace(value)
        valid = bool(xp.all((value >= 0) & xp.isfinite(value)))
    if not valid:  # also catches NaN
        raise ValueError(f"{name} must be finite and at least zero everywhere but is {value}")
    return value


def checked_number(value: float, name: str) -> float:
    """Return `value` as a Python number. ValueError is raised unless it is one number, finite and at least zero."""
    if getattr(value, "ndim", 0):
        raise ValueError(f"{name} must be one number but is an array {extent(value)}")
    value = float(value)
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be finite and at least zero but is {value}")
    return value


def of_price(value: Array | float) -> str:
    """Return the number, or the shape of an array, as terms print it."""
    return str(value) if isinstance(value, int | float) else extent(value)


def price_like(value: Array | float, array: Array) -> Array | float:
    """Return `value` in the dtype of `array`, so that a float64 weight serves a float32 problem."""
    return float(value) if isinstance(value, int | float) else as_floating(value, like=array)


def where_zero(value: Array | float, array: Array) -> Array | None:
    """Return where `value` is zero, as a mask of the shape of `array`, or None if it is that nowhere."""
    if isinstance(value, int | float) and value != 0:
        return None
    xp = namespace(array)
    mask = full(tuple(array.shape), 1.0, array) * value == 0
    return mask if bool(xp.any(mask)) else None
