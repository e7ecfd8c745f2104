"""Solvers beside each other: processes that share the rows of a problem, and times at tolerances that meet a gap."""

from __future__ import annotations

import multiprocessing
import os
import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

SMALLEST, LONGEST = 1e-12, 30.0  # where tolerances end: below the former is rounding; the latter are seconds of a run


@contextmanager
def workers(count: int, threads: int) -> Iterator[list[ProcessPoolExecutor]]:
    """Processes of so many threads each, one executor for each, so that rows go where they are sent."""
    os.environ.update({f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "OPENBLAS", "MKL", "NUMBA")})
    context = multiprocessing.get_context("spawn")
    team = [ProcessPoolExecutor(1, mp_context=context) for _ in range(count)]
    try:
        for one in team:
            one.submit(os.getpid).result()  # which starts it, in this environment
        yield team
    finally:
        for one in team:
            one.shutdown()


def measured(
    timed: Callable[[int, int, float], tuple[float, float, float]],
    gap: float,
    *,
    exact: bool,
    most: int,
    fewest: int,
    seconds: float,
    repeats: int,
    loosest: float = 3.0,
) -> tuple[dict[str, Any], float]:
    """Median time per row of repeats that all meet the gap, and the part of zeros; `reached` is false where no tolerance does.

    timed: (seed, rows, tolerance) -> wall seconds per row, the gap of the rows together, and the part of zeros. exact: whether
    the gap is asked for as it is, of `most` rows. The others have a tolerance that is loose at first, `loosest` times the gap,
    on the fewest rows, and tightened until it meets the gap; then as many rows are run as fill the seconds.
    """
    sized, count, factor = exact, most if exact else fewest, 1.0 if exact else loosest
    while True:
        times, gaps = [], []
        for seed in range(repeats if sized else 1):
            per_row, reached, zeros = timed(seed, count, factor * gap)
            times, gaps = [*times, per_row], [*gaps, reached]
            if reached > gap:
                break
        if reached > gap and not exact and factor * gap > SMALLEST and per_row * count < LONGEST:
            factor *= float(np.clip(gap / reached, 0.03, 0.5))
        elif sized or reached > gap:
            break
        else:  # the few rows that found the tolerance show how many fill the time
            sized, count = True, int(np.clip(seconds / per_row, fewest, most))
    figures = {"ms per row": 1e3 * statistics.median(times), "reached": max(gaps) <= gap, "gap": max(gaps)}
    return figures | {"tolerance": factor * gap, "rows": count}, zeros
