"""What long work says while it runs: bars and remarks, all of it on stderr, so that stdout holds results alone.

Where stderr is a terminal, progress is a bar of tqdm (an extra brings it). Elsewhere, as in a log file or a pipe, it is plain
lines: one at the start, then at most one for every tenth of the work and in LEAST_SECONDS, and one at the end. Inside of
`quietly()` there is neither progress nor are there remarks. A process has one stderr, so being quiet holds for all its threads.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Protocol, TypeVar

__all__ = ["Bar", "bar", "draws_bars", "progress", "quietly", "say"]

Item = TypeVar("Item")
Covariant = TypeVar("Covariant", covariant=True)

LEAST_SECONDS = 5.0  # between two plain lines on the way
QUIET = threading.Event()  # set inside of `quietly()`


class Bar(Protocol):
    """What shows how far the work is. Threads may share it."""

    def update(self, n: int = 1, /) -> object:
        """Say that n more are done."""

    def set_postfix_str(self, s: str, refresh: bool, /) -> object:
        """Put a remark beside the count; without `refresh` from the next time on that it is shown."""


class Counted(Protocol[Covariant]):
    """Items that know how many they are, such as a list, a range or the rows of a tensor."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Covariant]: ...


@contextmanager
def quietly(quiet: bool = True) -> Iterator[None]:
    """Leave out all progress and remarks while the context is open. quiet: False changes nothing."""
    begins = quiet and not QUIET.is_set()
    if begins:
        QUIET.set()
    try:
        yield
    finally:
        if begins:
            QUIET.clear()


def say(text: str) -> None:
    """Write a remark, a line or several, to stderr, above the bars that are there."""
    if QUIET.is_set() or sys.stderr is None:
        return
    if "tqdm" in sys.modules:  # else there cannot be a bar
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr)
    else:
        sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def draws_bars() -> bool:
    """Whether progress is drawn as a bar: on a terminal, and not inside of `quietly()`."""
    return not QUIET.is_set() and sys.stderr is not None and sys.stderr.isatty()


@contextmanager
def bar(total: int, what: str, unit: str, shown: bool = True) -> Iterator[Bar]:
    """Show how much of `total` is done, by calls of `update(n)` on what the context gives.

    what, unit: the label of the work, and what is counted, a noun in the singular. shown: False shows nothing.
    """
    if shown and draws_bars() and find_spec("tqdm") is not None:
        from tqdm import tqdm

        with tqdm(total=total, desc=what, unit=unit) as drawn:
            yield drawn
        return
    lines = Lines(total, what, unit, shown)
    lines.write()
    try:
        yield lines
    finally:
        lines.write()


def progress(items: Counted[Item], what: str, unit: str, shown: bool = True) -> Iterable[Item]:
    """Iterate over items and show how many are done. what, unit, shown: those of `bar`."""
    with bar(len(items), what, unit, shown) as done:
        for item in items:
            yield item
            done.update()


class Lines:
    """Progress as plain lines, such as `perplexity: 3 of 8 windows, 20 s`, a remark before the seconds where there is one."""

    def __init__(self, total: int, what: str, unit: str, shown: bool) -> None:
        self.total, self.what, self.unit, self.shown = total, what, unit, shown
        self.done, self.remark = 0, ""
        self.started = time.monotonic()
        self.written, self.tenths = self.started, 0  # when the last line was written, and how many tenths were done then
        self.lock = threading.Lock()

    def update(self, n: int = 1, /) -> None:
        """Say that n more are done, in a line where it is time for one."""
        with self.lock:
            self.done += n
            tenths = 10 * self.done // max(1, self.total)
            if self.tenths < tenths < 10 and time.monotonic() - self.written >= LEAST_SECONDS:
                self.tenths, self.written = tenths, time.monotonic()
                self.write()

    def set_postfix_str(self, s: str, refresh: bool, /) -> None:
        """Put a remark before the seconds of the lines to come."""
        self.remark = f"{s}, " if s else ""

    def write(self) -> None:
        """Write how much is done and in how many seconds."""
        if self.shown:
            units = self.unit if self.total == 1 else f"{self.unit}s"
            say(f"{self.what}: {self.done} of {self.total} {units}, {self.remark}{time.monotonic() - self.started:.0f} s")
