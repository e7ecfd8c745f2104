"""Solvers compute as if they were alone: in full precision whatever the program has set, and in the midst of no fork.

OpenBLAS stops its threads when a process is forked. Where one of them is inside a product for another thread just then, the
fork waits for it, or that product for its threads, for ever. So a fork waits until no thread is inside a solver, and threads
that come to one meanwhile wait for the fork. This holds for `os.fork` and what calls it, such as multiprocessing.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401  see below
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from threading import Condition, get_ident
from typing import ParamSpec, TypeVar

from gramian.solvers.backend.precision import full_precision

__all__ = ["computation", "computing"]

INSIDE = ContextVar("INSIDE", default=False)  # of a solver: of a thread that computes, and of those that work for it

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Gate:
    """Threads compute beside each other, but not beside a fork.

    threads: those that compute. forks: threads that wait to fork, or do. resuming: of those, the ones that compute, as in a
    function that a solver calls: they are in no product.
    """

    def __init__(self) -> None:
        self.condition = Condition()
        self.threads, self.forks, self.resuming = set[int](), set[int](), set[int]()

    def enter(self) -> None:
        """Begin to compute, after the forks that wait."""
        with self.condition:
            while self.forks:
                self.condition.wait()
            self.threads.add(get_ident())

    def leave(self) -> None:
        """Compute no more."""
        with self.condition:
            self.threads.discard(get_ident())
            if self.forks:
                self.condition.notify_all()

    def before_fork(self) -> None:
        """Wait until no other thread computes, and let none begin."""
        self.condition.acquire()  # and hold it, so that there is one fork at a time, and the child finds everything at rest
        me = get_ident()
        self.forks.add(me)
        if me in self.threads:
            self.threads.remove(me)
            self.resuming.add(me)
            self.condition.notify_all()
        while self.threads:
            self.condition.wait()

    def after_fork(self) -> None:
        """Let the others go on, those first that wait to fork."""
        me = get_ident()
        if me not in self.forks:  # interrupted before it could wait
            return
        self.forks.remove(me)
        self.condition.notify_all()
        try:
            while me in self.resuming and self.forks:
                self.condition.wait()
        finally:
            if me in self.resuming:
                self.resuming.remove(me)
                self.threads.add(me)
            self.condition.release()

    def after_fork_in_child(self) -> None:
        """Forget the other threads, which a process that is forked has not."""
        me = get_ident()
        self.threads = {me} & (self.resuming | self.threads)
        self.condition, self.forks, self.resuming = Condition(), set(), set()


GATE = Gate()

if hasattr(os, "register_at_fork"):
    # What is registered last is called first. Thread pools take a lock of theirs before a fork, without which no solver that
    # is to be waited for comes to its end: they have to be registered already.
    os.register_at_fork(before=GATE.before_fork, after_in_parent=GATE.after_fork, after_in_child=GATE.after_fork_in_child)


@contextmanager
def computing() -> Iterator[None]:
    """Compute as if alone; within another such block this changes nothing."""
    if INSIDE.get():
        yield
        return
    token = INSIDE.set(True)
    try:
        GATE.enter()
        with full_precision():
            yield
    finally:
        GATE.leave()
        INSIDE.reset(token)


def computation(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let a function compute as if alone."""

    @wraps(function)
    def alone(*args: Arguments.args, **options: Arguments.kwargs) -> Result:
        if INSIDE.get():
            return function(*args, **options)
        with computing():
            return function(*args, **options)

    return alone
