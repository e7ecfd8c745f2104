"""Independent parts of work on as many threads as BLAS has, each of which computes alone."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import cache
from threading import Lock
from typing import Any, Protocol, TypeVar

from array_api_compat import array_namespace, is_numpy_array
from threadpoolctl import ThreadpoolController

from gramian.solvers.backend.computing import computing

__all__ = ["Crew", "blas_threads", "by_rows", "crew"]

BUSY = ContextVar("BUSY", default=False)  # whether this is a thread of a crew: a crew inside it is that thread alone
WORTHWHILE = 2e7  # multiply-adds, about a millisecond
ROWS = 256  # of a problem, at most, that a thread works on at a time, so that what a step holds stays in the cache

Result = TypeVar("Result")


@cache
def blas_threads() -> ThreadpoolController:
    """Return the thread pools of numpy's and scipy's OpenBLAS.

    They are two, and the idle threads of the one wait in a loop for more work: factorisations of small matrices on several
    threads of the other take up to three times as long as on one. Where numpy has another BLAS there are none, and a crew is of
    one thread: MKL, for one, counts its threads for each thread that calls it.
    """
    import scipy.linalg  # noqa: F401  its BLAS counts too

    return ThreadpoolController().select(internal_api="openblas")


class Crew(Protocol):
    """Threads that wait for work. size: how many there are."""

    size: int

    def __call__(self, work: Callable[..., Result], *parts: Iterable[Any]) -> list[Result]:
        """Return `list(map(work, *parts))`; the calls are independent of each other."""


class Alone:
    """BLAS computes on one thread while any block of a program is under way, whichever thread it is of."""

    def __init__(self) -> None:
        self.lock, self.blocks, self.threads = Lock(), 0, 1
        self.limit: Any = None

    def begin(self) -> int:
        """Return how many threads BLAS has outside of all blocks."""
        with self.lock:
            if self.blocks == 0:
                pools = blas_threads()
                self.threads = max((pool["num_threads"] for pool in pools.info()), default=1)
                take_control(pools)
                self.limit = pools.limit(limits=1)
            self.blocks += 1
            return self.threads

    def end(self) -> None:
        """Restore what was, after the last block."""
        with self.lock:
            self.blocks -= 1
            if self.blocks == 0:
                take_control(blas_threads())
                self.limit.restore_original_limits()


def take_control(pools: ThreadpoolController) -> None:
    """Let this thread set limits: the library leaves that to the first one that did, which may not be the last one to end."""
    for pool in pools.lib_controllers:
        if clear := getattr(type(pool), "clear_controlling_thread", None):  # since threadpoolctl 3.7
            clear(force=True)


ALONE = Alone()


@cache
def pool_of(size: int) -> ThreadPoolExecutor:
    """Return the threads of all crews of a size. To begin a thread takes as long as some work for it; idle ones sleep."""
    return ThreadPoolExecutor(size)


if hasattr(os, "register_at_fork"):  # a process that is forked has none of the threads
    os.register_at_fork(after_in_child=pool_of.cache_clear)


class Threads:
    """A crew of the threads of a pool; with one thread the work is done where it is asked for."""

    def __init__(self, pool: ThreadPoolExecutor | None, size: int) -> None:
        self.pool, self.size = pool, size

    def __call__(self, work: Callable[..., Result], *parts: Iterable[Any]) -> list[Result]:
        """Return `list(map(work, *parts))`."""
        if self.pool is None:
            return list(map(work, *parts))
        # numpy's handling of floating-point errors is a variable of the context, so every call gets a copy.
        context = copy_context()
        context.run(BUSY.set, True)
        futures = [self.pool.submit(context.copy().run, work, *each) for each in zip(*parts)]
        try:
            return [future.result() for future in futures]
        finally:
            wait(futures)  # after an error too: what they write to belongs to the caller again


@contextmanager
def crew(array: Any, operations: float = math.inf) -> Iterator[Crew]:
    """Threads for work on rows of a numpy array: as many as its BLAS has, which has one for each of them meanwhile.

    Rows of a problem are independent: products of few rows, factorisations and elementwise work of one thread then use every
    core, where BLAS alone uses them in products only. Arrays of other libraries are worked on whole, by the one thread that
    asks, and so are numpy's where there are so few operations in all that threads take longer to begin, and in a thread of
    another crew.
    """
    if not is_numpy_array(array) or BUSY.get():
        yield Threads(None, 1)
        return
    with computing():
        threads = ALONE.begin()
        try:
            if threads == 1 or operations < WORTHWHILE:
                yield Threads(None, 1)
            else:
                yield Threads(pool_of(threads), threads)
        finally:
            ALONE.end()


def by_rows(work: Callable[[slice], Any], array: Any, operations: float) -> Any:
    """Return `work(rows)` of all rows of an array, one below the other; some rows at a time where there are threads for them.

    Rows do not depend on each other. operations: multiply-adds in all.
    """
    count = array.shape[0]
    with crew(array, operations) as every:
        if every.size == 1 or count == 0:
            return work(slice(0, count))
        parts = every.size * math.ceil(count / (every.size * ROWS))
        height = math.ceil(count / parts)
        return array_namespace(array).concat(every(work, [slice(at, at + height) for at in range(0, count, height)]))
