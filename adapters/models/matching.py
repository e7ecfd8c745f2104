"""Regular expressions that choose operators by their names, within bounds of time.

An expression such as `(([a-z]+)+)+!` tries more ways than there are atoms before it says that nothing matches, and Python's own
engine cannot be stopped meanwhile. It may come from a recipe, which is a file of somebody else.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from gramian.extras import need

__all__ = ["matches"]

SECONDS = 1.0  # a name takes microseconds


def matches(expression: str, name: str) -> bool:
    """Whether an expression matches somewhere in a name. ValueError where that takes longer than a second, and for what is no
    expression."""
    need("models", ("regex",), "choosing operators by their names")
    regex: Any = import_module("regex")  # transformers needs it too
    try:
        return regex.search(expression, name, timeout=SECONDS) is not None
    except TimeoutError as error:
        raise ValueError(
            f"the regular expression {expression!r} takes more than {SECONDS:g} s for the name {name!r}: nested repetitions, "
            "such as (a+)+, try every way to split it; write it without"
        ) from error
    except regex.error as error:
        raise ValueError(f"{expression!r} is not a regular expression: {error}") from error
