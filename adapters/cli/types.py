"""Kinds of values on a command line: each function turns text into one, or raises argparse's error, which is bad usage."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from gramian.adapters.methods.registry import METHODS
from gramian.solvers import Pattern, parse_pattern
from gramian.solvers.support.lasso_rounding import SMALLEST

__all__ = [
    "blocks",
    "damping",
    "expression",
    "fraction",
    "groups",
    "method",
    "natural",
    "nonnegative",
    "path",
    "portion",
    "positive",
    "strength",
    "target_blend",
]

Number = TypeVar("Number", int, float)


def path(text: str) -> Path:
    """A path in which `~` is the home directory, also where the shell does not expand it, as in --out=~/model."""
    return Path(text).expanduser()


def number(text: str, kind: Callable[[str], Number], admits: Callable[[Number], bool], described: str) -> Number:
    """A number that is admitted; `admits` must not admit NaN."""
    value: Number | None
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not admits(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {described}")
    return value


def positive(text: str) -> int:
    """A whole number of at least 1."""
    return number(text, int, lambda value: value >= 1, "a whole number of at least 1")


def natural(text: str) -> int:
    """A whole number of at least 0."""
    return number(text, int, lambda value: value >= 0, "a whole number of at least 0")


def fraction(text: str) -> float:
    """A sparsity, a number in [0, 1)."""
    return number(text, float, lambda value: 0 <= value < 1, "a sparsity in [0, 1), as 0.5")


def portion(text: str) -> float:
    """A number in [0, 1]."""
    return number(text, float, lambda value: 0 <= value <= 1, "a number in [0, 1]")


def target_blend(text: str) -> float:
    """A number in (0, 1]."""
    return number(text, float, lambda value: 0 < value <= 1, "a number above 0 and at most 1")


def nonnegative(text: str) -> float:
    """A finite number of at least 0."""
    return number(text, float, lambda value: 0 <= value < math.inf, "a number of at least 0")


def damping(text: str) -> float | str:
    """A finite number of at least 0, or `auto`."""
    if text == "auto":
        return text
    return number(text, float, lambda value: 0 <= value < math.inf, "a number of at least 0, or auto")


def strength(text: str) -> float:
    """A number in [SMALLEST, 1]."""
    return number(text, float, lambda value: SMALLEST <= value <= 1, f"a number in [{SMALLEST:g}, 1]")


def method(text: str) -> str:
    """The name of a method that zeroes weights, or `MODULE:NAME`."""
    if text not in METHODS and not re.fullmatch(r"[^:]+:[^:]+", text):
        raise argparse.ArgumentTypeError(f"invalid choice: {text!r} is none of {', '.join(METHODS)}, nor MODULE:NAME")
    return text


def groups(text: str) -> Pattern:
    """A pattern such as `2:4`."""
    try:
        return parse_pattern(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def expression(text: str) -> str:
    """A regular expression."""
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular expression: {error}") from error
    return text


def blocks(text: str) -> slice:
    """A range of blocks, such as `4:30` for slice(4, 30); either end may be missing, or count from the last block."""
    if not re.fullmatch(r"(-?\d+)?:(-?\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a range of blocks, as 4:30 (the first is 0, the last is excluded)")
    start, stop = (int(end) if end else None for end in text.split(":"))
    return slice(start, stop)
