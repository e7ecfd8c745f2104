"""How many steps, and how long, FISTA takes to a certified relative gap on real problem files.

    python benchmarks/fista_gap.py --problems FOLDER [--tol 1e-6] [--out FILE]

For every problem file of the chosen width, and for sparsities of 50 % and 70 %, one lambda for the whole matrix is found by
bisection, roughly. Then the LASSO at that lambda is solved in float64 from where the search ended, with steps per channel and,
if --raw is given, also with one step for all. The gap is computed again from the returned weights and the file's moments.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from common.results import RESULTS, save

from gramian.adapters.data.problem_files import read_problem
from gramian.solvers import FISTA, L1, Quadratic, lasso_to_sparsity, solve
from gramian.tables import table
from gramian.versions import versions


def duality_gap(problem: Quadratic, weights: np.ndarray, weight: float) -> tuple[float, float]:
    """Objective and gap of 1/2 |X (V - W)^T|^2 + lambda |V|_1, straight from G and W: the dual point is the residual
    scaled into the box |X^T theta| <= lambda, one scale for every row."""
    change = weights - problem.anchor
    correlation = change @ problem.gram  # X^T residual, rows of V
    losses = 0.5 * np.sum(correlation * change, axis=1)
    scale = np.minimum(1, weight / np.maximum(np.abs(correlation).max(axis=1), 1e-300))
    dual = -0.5 * scale**2 * 2 * losses - scale * np.sum(correlation * problem.anchor, axis=1)
    objective = losses.sum() + weight * np.abs(weights).sum()
    return float(objective), float(objective - dual.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=Path, required=True, metavar="FOLDER", help="where problem files are")
    parser.add_argument("--width", type=int, default=640, help="inputs of the operators (default %(default)s)")
    parser.add_argument("--raw", action="store_true", help="solve with one step for all channels as well")
    parser.add_argument("--tol", type=float, default=1e-6, help="relative duality gap to reach (default %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS / "fista_gap.json", metavar="FILE", help="the result file")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for file in sorted(arguments.problems.glob("*.safetensors")):
        problem, metadata = read_problem(file)
        if problem.shape[1] != arguments.width:
            continue
        for sparsity in (0.5, 0.7):
            search = lasso_to_sparsity(problem.astype(np.float32), sparsity, tol=1e-2, max_steps=200, width=5e-2)
            weight = float(search.weight[0, 0])
            for scaled in (False, True) if arguments.raw else (True,):
                started = time.perf_counter()
                solver = FISTA(scaled=scaled)
                start = search.solution.weights
                solution = solve(
                    problem, L1(weight), solver, start=start, tol=0.5 * arguments.tol, max_steps=20_000, check_every=50
                )
                seconds = time.perf_counter() - started
                weights = solution.weights
                objective, gap = duality_gap(problem, weights, weight)
                rows.append(
                    {
                        "operator": f"{metadata['layer']}.{metadata['operator']}",
                        "sparsity": sparsity,
                        "lambda": weight,
                        "steps per channel": scaled,
                        "zeros": float((weights == 0).mean()),
                        "steps": solution.steps,
                        "seconds": seconds,
                        "relative_gap": gap / objective,
                    }
                )
                print(rows[-1], flush=True)
    head = ["operator", "sparsity", "scaled", "zeros", "steps", "s", "relative gap"]
    print(
        table(
            head,
            [
                [
                    row["operator"],
                    f"{row['sparsity']:.0%}",
                    "yes" if row["steps per channel"] else "no",
                    f"{row['zeros']:.1%}",
                    str(row["steps"]),
                    f"{row['seconds']:.1f}",
                    f"{row['relative_gap']:.1e}",
                ]
                for row in rows
            ],
        )
    )
    save(arguments.out, {"versions": dict(versions()), "rows": rows})


if __name__ == "__main__":
    main()
