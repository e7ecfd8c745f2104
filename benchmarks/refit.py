"""Exact weights on a support: our refit beside one factorisation after another.

    python benchmarks/refit.py --problems FOLDER [--rows N] [--repeats 3] [--out FILE]

The largest problem file is taken, and half of its weights are kept by Wanda's score. `cho_factor` and `cho_solve` per row are
what one would write with scipy. The script prints times (medians of alternating runs on the same threads), their ratio, the
largest difference of the answers and what part of the rate of a matrix product our factorisations reach, first with a support
for every row, then with one for all.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common.results import RESULTS, save
from scipy.linalg import cho_factor, cho_solve

from gramian.adapters.data.problem_files import read_problem
from gramian.solvers import Quadratic, TopK, refit
from gramian.tables import table
from gramian.versions import versions


def row_by_row(problem: Quadratic, mask: np.ndarray) -> np.ndarray:
    """v_K = w_K + G_KK^-1 G_KP w_P, a row at a time."""
    weights = np.zeros_like(problem.anchor)
    target = problem.anchor @ problem.gram
    for row, kept in enumerate(mask):
        chosen = np.flatnonzero(kept)
        weights[row, chosen] = cho_solve(cho_factor(problem.gram[np.ix_(chosen, chosen)]), target[row, chosen])
    return weights


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def compared(problem: Quadratic, mask: np.ndarray, repeats: int) -> dict[str, float]:
    """Medians of alternating runs, and how far the answers differ."""
    ours, theirs = [], []
    for _ in range(repeats):
        seconds, solution = timed(lambda: refit(problem, mask))
        ours.append(seconds)
        seconds, reference = timed(lambda: row_by_row(problem, mask))
        theirs.append(seconds)
    multiplications = float(np.sum(mask.sum(axis=1).astype(float) ** 3) / 3)
    product, _ = timed(lambda: problem.gram @ problem.gram)
    rate = 2 * problem.shape[1] ** 3 / product
    mine = statistics.median(ours)
    return {
        "seconds": mine,
        "row by row": statistics.median(theirs),
        "ratio": statistics.median(theirs) / mine,
        "difference": float(np.abs(solution.weights - reference).max() / np.abs(reference).max()),
        "residual": solution.certificate.residual or 0.0,
        "part of the product's rate": multiplications / mine / rate,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=Path, required=True, metavar="FOLDER", help="where problem files are")
    parser.add_argument("--rows", type=int, metavar="N", help="only the first N rows of the weights")
    parser.add_argument("--repeats", type=int, default=3, help="runs of which the median counts (default %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS / "refit.json", metavar="FILE", help="the result file")
    arguments = parser.parse_args()
    file = max(arguments.problems.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    problem, metadata = read_problem(file)
    problem = Quadratic(problem.gram, problem.anchor[: arguments.rows])
    score = np.abs(problem.anchor) * np.sqrt(problem.diagonal)
    masks = {"a support for every row": TopK(0.5).select(score)}
    masks["one support for all rows"] = np.broadcast_to(TopK(0.5).select(score.sum(axis=0)[None, :]), problem.shape).copy()
    rows = {name: compared(problem, mask, arguments.repeats) for name, mask in masks.items()}
    print(f"{metadata['layer']}.{metadata['operator']}, {problem.shape[0]} rows of {problem.shape[1]}, half of them kept")
    head = ["", *next(iter(rows.values()))]
    print(table(head, [[name, *(f"{value:.3g}" for value in row.values())] for name, row in rows.items()]))
    result = {"versions": dict(versions()), "file": file.name, "rows": rows}
    save(arguments.out, result)


if __name__ == "__main__":
    main()
