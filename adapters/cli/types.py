"""Kinds of values on a command line that are no settings: each function turns text into one, or raises argparse's error."""

from __future__ import annotations

import argparse
from pathlib import Path

from gramian.adapters.config.settings import EXPRESSION, POSITIVE

__all__ = ["expression", "path", "positive"]


def path(text: str) -> Path:
    """A path in which `~` is the home directory, also where the shell does not expand it, as in --out=~/model."""
    return Path(text).expanduser()


def positive(text: str) -> int:
    """A whole number of at least 1."""
    try:
        number: int = POSITIVE.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return number


def expression(text: str) -> str:
    """A regular expression."""
    try:
        return str(EXPRESSION.parse(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
