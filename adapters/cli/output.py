"""Results go to stdout, all else to stderr, and it is no error when nobody reads on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gramian.adapters.files import STDOUT, write_json
from gramian.progress import say

__all__ = ["STDOUT", "abandon", "emit", "flushed"]


def emit(document: Any, text: str, json_path: Path | None) -> None:
    """Write the result of a command: as JSON where a path is given, and as text for a person on stdout.

    Where the path is STDOUT, the JSON is there alone, and the text is a remark on stderr. A text is written even if the file
    cannot be, since what it says may have taken long; the OSError is then raised.
    """
    if json_path == STDOUT:
        write_json(json_path, document)
        say(text)
        return
    try:
        if json_path is not None:
            write_json(json_path, document)
    finally:
        print(text)


@contextmanager
def flushed() -> Iterator[None]:
    """Flush stdout when the context ends, whichever way, so that an OSError of it is raised here: Python would report it when
    the process ends, in lines of its own."""
    try:
        yield
    finally:
        if sys.stdout is not None:  # None where the process was started without
            sys.stdout.flush()


def abandon() -> None:
    """Drop what stdout and stderr hold and cannot write, so that Python does not try again when the process ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
