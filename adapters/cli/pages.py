"""Pages that commands write beside their results."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from gramian.adapters.cli.types import path
from gramian.adapters.files import write_bytes

__all__ = ["add_html", "write_page"]


def add_html(parser: argparse.ArgumentParser) -> None:
    """Add the page that results are shown on."""
    parser.add_argument("--html", type=path, metavar="FILE", help="write the results there as a page too")


def write_page(place: Path | None, made: Callable[[], str]) -> None:
    """Make a page and write it where one is asked for. OSError where the file cannot be written."""
    if place is not None:
        write_bytes(place, made().encode("utf-8", "replace"))
