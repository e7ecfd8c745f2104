"""Kinds of values on a command line: each turns text into one, or raises argparse's error, which is bad usage."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    "target_blend",
    "strength",
]


def path(text: str) -> Path:
    """`~` is the home directory, also where the shell leaves it as it is, as in --out=~/model."""
    return Path(text).expanduser()


def number(text: str, kind: Callable[[str], Any], admits: Callable[[Any], bool], described: str) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not admits(value):  # NaN is never admitted
        raise argparse.ArgumentTypeError(f"{text!r} is not {described}")
    return value


def positive(text: str) -> int:
    return number(text, int, lambda value: value >= 1, "a whole number of at least 1")


def natural(text: str) -> int:
    return number(text, int, lambda value: value >= 0, "a whole number of at least 0")


def fraction(text: str) -> float:
    return number(text, float, lambda value: 0 <= value < 1, "a sparsity in [0, 1), as 0.5")


def portion(text: str) -> float:
    return number(text, float, lambda value: 0 <= value <= 1, "a number in [0, 1]")


def target_blend(text: str) -> float:
    return number(text, float, lambda value: 0 < value <= 1, "a number above 0 and at most 1")


def nonnegative(text: str) -> float:
    return number(text, float, lambda value: 0 <= value < math.inf, "a number of at least 0")


def damping(text: str) -> float | str:
    if text == "auto":
        return text
    return number(text, float, lambda value: 0 <= value < math.inf, "a number of at least 0, or auto")


def strength(text: str) -> float:
    return number(text, float, lambda value: SMALLEST <= value <= 1, f"a number in [{SMALLEST:g}, 1]")


def method(text: str) -> str:
    if text not in METHODS and not re.fullmatch(r"[^:]+:[^:]+", text):
        raise argparse.ArgumentTypeError(f"invalid choice: {text!r} is none of {', '.join(METHODS)}, nor MODULE:NAME")
    return text


def groups(text: str) -> Pattern:
    try:
        return parse_pattern(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular expression: {error}") from error
    return text


def blocks(text: str) -> slice:
    """`4:30` as slice(4, 30); either end may be left out or count from the last."""
    if not re.fullmatch(r"(-?\d+)?:(-?\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a range of blocks, as 4:30 (the first is 0, the last left out)")
    start, stop = (int(end) if end else None for end in text.split(":"))
    return slice(start, stop)
