"""What a term asks per weight: a number, or an array that broadcasts to the weights."""

from __future__ import annotations

from gramian.solvers.backend._xp import Array, as_floating, copied, full, namespace
from gramian.solvers.backend.given import given
from gramian.solvers.backend.options import is_number, number, shown
from gramian.solvers.backend.printed import extent, span

__all__ = ["broadcasts", "check_price", "checked_number", "checked_price", "of_price", "price_like", "where_zero"]


def checked_price(value: Array | float, name: str) -> Array | float:
    """Return `value`, a number as a float, whatever library the weights are of, and an array as a copy.

    ValueError is raised unless it is finite and at least zero everywhere, TypeError for what is no array of numbers. name: what
    it is, as in `an L1 weight`.
    """
    if isinstance(value, bool):
        raise TypeError(f"{name} is a number or an array of numbers but is {value}")
    if is_number(value):
        if not 0 <= float(value) < float("inf"):  # NaN is not
            raise ValueError(f"{name} must be finite and at least zero everywhere but is {value}")
        return float(value)
    array = copied(as_floating(given("weight", value)))
    xp = namespace(array)
    if not bool(xp.all((array >= 0) & xp.isfinite(array))):
        raise ValueError(f"{name} must be finite and at least zero everywhere but is from {span(array)}")
    return array


def check_price(value: Array | float, shape: tuple[int, int], name: str) -> None:
    """Raise ValueError unless each of the last axes of an array has the length of weights (q, p), or one."""
    if isinstance(value, float):
        return
    if not broadcasts(value, shape):
        wanted = f"a number, ({shape[1]},), {(shape[0], 1)} or {shape}"
        raise ValueError(f"{name} is {tuple(value.shape)} but the problem's weight is {shape}: it must be {wanted}")


def broadcasts(array: Array, shape: tuple[int, int]) -> bool:
    """Return whether an array fits weights (q, p): each of its last axes has their length, or one."""
    own = tuple(array.shape)
    return len(own) <= 2 and all(length in (1, whole) for length, whole in zip(reversed(own), reversed(shape)))


def checked_number(value: float, name: str) -> float:
    """Return `value` as a Python number. ValueError is raised unless it is one number, finite and at least zero."""
    if not is_number(value):
        raise ValueError(f"{name} must be one number but is {shown(value)}")
    return number(name, value)


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
