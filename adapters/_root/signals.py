"""Signals that end the command: ^C, a request to end, a terminal that is closed.

The process ends where it is. An exception instead would strike in the middle of whatever runs: code that catches every one and
goes on, code that Python calls where none can be raised and prints them, imports and writes that are left half done. What the
process has beside its outputs is removed first, and what is done already is on the disk, as after a kill at this moment.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

from gramian.launcher import follower

__all__ = ["end_by_signals", "farewell", "foretell"]

WORDS = {"SIGINT": "interrupted", "SIGTERM": "asked to end", "SIGHUP": "ended with its terminal"}
LAST: dict[str, Callable[[], str]] = {}  # what the last line adds: how the work goes on


def foretell(hint: Callable[[], str]) -> None:
    """Let the last line of a command that is interrupted end with what `hint` says then."""
    LAST["hint"] = hint


def farewell(word: str = "interrupted") -> str:
    """The last line of a command that ends before its time."""
    hint = LAST["hint"]() if LAST else ""
    return f"gramian: {word}{f': {hint}' if hint else ''}"


def end_by_signals() -> None:
    """Let signals end this process with a line, and with 128 and their number as its exit code. One that the process was
    started to ignore, as `nohup` does, is still ignored."""
    for name in WORDS:
        number = getattr(signal, name, None)  # not every system has them all
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, ended)


def ended(number: int, frame: FrameType | None) -> None:
    """End the process."""
    for name in WORDS:
        if hasattr(signal, name):  # once more means at once
            signal.signal(getattr(signal, name), lambda again, frame: os._exit(128 + number))
    try:
        if (drafts := sys.modules.get("gramian.adapters.drafts")) is not None and hasattr(drafts, "withdraw"):
            drafts.withdraw()
        if follower():
            return
        line = farewell(WORDS[signal.Signals(number).name])
        if sys.stderr is not None and sys.stderr.isatty():
            line = f"\n{line}"  # below the bar
        os.write(2, f"{line}\n".encode(errors="replace"))
    finally:
        os._exit(128 + number)
