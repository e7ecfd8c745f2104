"""Time of a layer's mask score against its width: one Cholesky factorisation beside Newton's iteration as printed.

    python benchmarks/scaling.py [--widths 512 1024 2048 4096] [--repeats 3] [--iterations 50] [--out FILE]

Layers are random, with twice as many tokens and a quarter as many outputs as inputs; the matrix A of the mask problem is given
to both. `newton_score` is ours; the other is Algorithm 1 of Numerical Pruning from z = 1, in which every iteration forms the
Hessian, by a sum, and solves with it. The script prints medians of alternating runs on the same threads, their ratio, the power
of the width by which each grew from the width before, the largest difference of the two scores relative to the largest score,
and how far the printed iteration still moved in its second step: the objective is quadratic, so the first one arrives.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from common.results import RESULTS, save

from gramian.solvers import MaskProblem, Quadratic, newton_score
from gramian.tables import table
from gramian.versions import versions

BUDGET = 0.5  # of the units
PENALTY = 1.0


def layer(width: int, seed: int) -> MaskProblem:
    """A layer of gaussian weights whose inputs have singular values from 1 to 1 / 10, inputs normalised as in the paper."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(2 * width, width)) * np.logspace(0, -1, width)
    return MaskProblem.from_problem(Quadratic.from_data(inputs, rng.normal(size=(width // 4, width))), normalise="frobenius")


def as_printed(problem: MaskProblem, budget: float, iterations: int) -> tuple[np.ndarray, float]:
    """z after the iterations t = 0, ..., T, and the length of the second step relative to the first."""
    keep, ones = np.ones(problem.units), np.ones(problem.units)
    lengths = []
    for _ in range(iterations + 1):
        gradient = problem.matrix @ (keep - ones) + PENALTY * (keep.sum() - budget) * ones
        hessian = problem.matrix + PENALTY * np.ones((problem.units, problem.units))
        step = np.linalg.solve(hessian, gradient)
        keep = keep - step
        lengths.append(float(np.linalg.norm(step)))
    return keep, lengths[1] / lengths[0] if iterations > 0 else math.nan


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def compared(width: int, repeats: int, iterations: int) -> dict[str, float]:
    """Medians of alternating runs, and how far the scores differ."""
    problem, ours, theirs = layer(width, width), [], []
    budget = BUDGET * problem.total
    newton_score(problem, budget, penalty=PENALTY)  # what is imported or allocated once is not timed
    for _ in range(repeats):
        seconds, score = timed(lambda: newton_score(problem, budget, penalty=PENALTY).keep)
        ours.append(seconds)
        seconds, (printed, second) = timed(lambda: as_printed(problem, budget, iterations))
        theirs.append(seconds)
    return {
        "width": width,
        "seconds": statistics.median(ours),
        "as printed": statistics.median(theirs),
        "ratio": statistics.median(theirs) / statistics.median(ours),
        "difference": float(np.abs(score - printed).max() / np.abs(score).max()),
        "second step": second,
    }


def powers(rows: list[dict[str, float]], name: str) -> list[float]:
    """By which power of the width the time grew, from each row to the next; NaN for the first."""
    found = [math.nan]
    for before, after in pairwise(rows):
        found.append(math.log(after[name] / before[name]) / math.log(after["width"] / before["width"]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[512, 1024, 2048, 4096], help="inputs of the layers")
    parser.add_argument("--repeats", type=int, default=3, help="runs of which the median counts (default %(default)s)")
    parser.add_argument("--iterations", type=int, default=50, help="T of Algorithm 1 (default %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS / "scaling.json", metavar="FILE", help="the result file")
    arguments = parser.parse_args()
    rows = []
    for width in sorted(arguments.widths):
        rows.append(compared(width, arguments.repeats, arguments.iterations))
        print(rows[-1], flush=True)
    for name in ("seconds", "as printed"):
        for row, power in zip(rows, powers(rows, name)):
            row[f"power, {name}"] = power
    print(f"budget {BUDGET:.0%}, penalty {PENALTY:g}, T = {arguments.iterations}, medians of {arguments.repeats}")
    print(table([*rows[0]], [[f"{value:.3g}" if math.isfinite(value) else "" for value in row.values()] for row in rows]))
    finite = [{name: value for name, value in row.items() if math.isfinite(value)} for row in rows]
    settings = {"repeats": arguments.repeats, "iterations": arguments.iterations, "budget": BUDGET, "penalty": PENALTY}
    save(arguments.out, {"versions": dict(versions()), **settings, "rows": finite})


if __name__ == "__main__":
    main()
