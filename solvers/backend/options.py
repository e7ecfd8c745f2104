"""Options: numbers within their ranges, or one sentence with the number that was given, before any work."""

from __future__ import annotations

import math
from functools import cache
from numbers import Integral, Real

import numpy as np
from array_api_compat import is_array_api_obj

__all__ = ["flag", "is_number", "number", "shown", "whole"]


def is_number(value: object) -> bool:
    """Return whether a value is one real number: Python's, numpy's, or an array without axes; truth values are none."""
    if isinstance(value, Real):
        return not isinstance(value, bool)
    if isinstance(value, np.bool) or not is_array_api_obj(value) or tuple(getattr(value, "shape", (1,))) != ():
        return False
    return not str(getattr(value, "dtype", "")).rpartition(".")[2].startswith(("bool", "complex"))


def number(name: str, value: object, within: str = "[0, inf)") -> float:
    """Return a number of an interval, in mathematical notation, as a float. ValueError is raised for anything else."""
    try:
        found = float(value) if is_number(value) else math.nan  # type: ignore[arg-type]  # a number has a float
    except OverflowError:  # an int beyond the floats
        found = math.nan
    low, high, at_low, at_high = interval(within)
    if low < found < high or (at_low and found == low) or (at_high and found == high):
        return found
    kind = "" if is_number(value) else "a number "
    raise ValueError(f"{name} must be {kind}in {within} but is {shown(value)}")


def whole(name: str, value: object, least: int = 1) -> int:
    """Return a whole number of at least `least` as an int. ValueError is raised for anything else, 1e4 and True included."""
    if isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least:
        return int(value)
    raise ValueError(f"{name} must be a whole number of at least {least} but is {shown(value)}")


def flag(name: str, value: object) -> bool:
    """Return a truth value. ValueError is raised for anything else."""
    if isinstance(value, bool | np.bool):
        return bool(value)
    raise ValueError(f"{name} must be True or False but is {shown(value)}")


def shown(value: object) -> str:
    """Return a value as a message has room for it: arrays by their shapes, long ones cut."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    shape = getattr(value, "shape", None)
    if shape is not None and tuple(shape) != ():
        return f"an array {tuple(shape)}"
    text = f"{value}" if is_number(value) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@cache
def interval(within: str) -> tuple[float, float, bool, bool]:
    """Return the ends of an interval such as `[0, inf)`, and whether each belongs to it."""
    low, high = within[1:-1].split(",")
    return float(low), float(high), within[0] == "[", within[-1] == "]"
