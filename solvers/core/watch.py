"""What stands beside the loop of every solver: a clock, a callback, and a bar."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gramian.progress import Bar, bar
from gramian.solvers.backend._xp import Array, namespace
from gramian.solvers.core.certificate import Certificate
from gramian.solvers.core.solution import Status

__all__ = ["RUNNING", "Callback", "Watch", "watched"]

RUNNING = ("throw", "time_limit", "callback", "progress")  # how a solver is run: keywords that many share, as of `solve`

Callback = Callable[[int, Array, Certificate], bool | None]
Point = Callable[[], tuple[Array, Certificate]]


class Watch:
    """Say of a loop whether it is to end, and show how far it is.

    Without a limit the clock is never read, and without a callback no point is computed, so that neither changes what a solver
    does. The device is waited for by nothing here but the points that the callback gets.

    shown: the bar that counts steps, None for no bar. deadline: seconds of the monotonic clock. callback: that of `solve`.
    ended: the verdict by which a loop is to end, None while it may go on.
    """

    def __init__(self, shown: Bar | None = None, deadline: float | None = None, callback: Callback | None = None) -> None:
        self.shown, self.deadline, self.callback = shown, deadline, callback
        self.done = 0
        self.ended: Status | None = None

    @property
    def within(self) -> Watch:
        """Return a watch with this clock and callback for a solve that is one step of what this one counts."""
        return Watch(None, self.deadline, self.callback)

    def late(self) -> bool:
        """Return whether the time limit has passed."""
        if self.deadline is not None and time.monotonic() >= self.deadline:
            self.ended = Status.TIME_LIMIT
        return self.ended is Status.TIME_LIMIT

    def verdict(self, step: int, point: Point, note: str = "", *, over: bool = False) -> Status | None:
        """Return what a loop is to end with after so many steps in all, STOPPED or TIME_LIMIT, or None if it is to go on.

        point: what makes the weights that would be returned now, with their certificate. note: a remark beside the bar. over:
        whether the loop is at its own end, so that nothing is cut short.
        """
        self.count(step, note)
        if self.callback is not None:
            weights, certificate = point()
            if self.callback(step, namespace(weights).asarray(weights, copy=True), certificate) and not over:
                self.ended = Status.STOPPED
                return self.ended
        return None if over or not self.late() else self.ended

    def count(self, step: int, note: str = "") -> None:
        """Show that so many steps are done in all."""
        if self.shown is not None:
            self.shown.set_postfix_str(note, False)
            self.shown.update(step - self.done)
        self.done = step


@contextmanager
def watched(
    what: str, total: int, unit: str, *, time_limit: float | None, callback: Callback | None, progress: bool
) -> Iterator[Watch]:
    """Watch a loop of at most `total` steps while the context is open; the clock starts now.

    what, unit: the label of the bar, and what it counts. ValueError or TypeError is raised for a limit or a callback that is
    none.
    """
    if time_limit is not None and not time_limit > 0:
        raise ValueError(f"time_limit must be a positive number of seconds, or None for no limit, but is {time_limit}")
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be a function of (step, weights, certificate) but is {callback!r}")
    deadline = None if time_limit is None else time.monotonic() + time_limit
    if not progress:
        yield Watch(None, deadline, callback)
        return
    with bar(total, what, unit) as shown:
        yield Watch(shown, deadline, callback)
