"""Errors that name what was worked on, whatever raised them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["naming"]


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Put the name of an operator or a block before the message of an error, unless it is there. The error's type remains."""
    try:
        yield
    except Exception as error:
        said = str(error)
        if name and name not in said:
            if len(error.args) <= 1 and not isinstance(error, OSError):
                error.args = (f"{name}: {said}" if said else name,)
            else:  # the arguments of other errors are no text
                error.add_note(f"while {name} was worked on")
        raise
