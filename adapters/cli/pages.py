"""Pages that commands write beside their results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gramian.adapters.files import write_bytes

__all__ = ["write_page"]


def write_page(place: Path | None, made: Callable[[], str]) -> None:
    """Make a page and write it where one is asked for. OSError where the file cannot be written."""
    if place is not None:
        write_bytes(place, made().encode("utf-8", "replace"))
