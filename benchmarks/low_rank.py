"""Sparse weights, sparse ones beside a matrix of low rank, and low rank alone, at equal numbers of parameters.

    python benchmarks/low_rank.py --problems FOLDER [--operators REGEX] [--shares 0.05 0.1] [--rounds N] [--damping D]
                                  [--out FILE]

FOLDER is that of `layer_error.py`: problem files, and in FOLDER/test the Gram matrices of the same operators on other text. At
50 % of the numbers of the dense weights, an error is |X (V - W)^T|^2 / |X W^T|^2 on the calibration moments or on the test
moments, in float64. Parameters are nonzeros and r (p + q), without the positions of nonzeros, which `l0` needs more of.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.results import RESULTS, save

from gramian.adapters.data.problem_files import read_gram, read_problem
from gramian.solvers import FactoredSolution, Quadratic, Solution, TopK, l0_admm, low_rank, sparse_low_rank
from gramian.solvers.factored.factors import divided_budget, rank_within
from gramian.tables import table
from gramian.versions import versions

HALF = TopK(0.5)


def shared(problem: Quadratic, share: float, rounds: int) -> FactoredSolution:
    """S and L, of which L has a share of the numbers."""
    pattern, rank = divided_budget(HALF, problem.shape, share)
    return sparse_low_rank(problem, pattern, rank, rounds=rounds, polish=rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=Path, required=True, metavar="FOLDER", help="where problem files are")
    parser.add_argument("--operators", default="", metavar="REGEX", help="only files whose name the expression finds")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.05, 0.1, 0.2], help="what L takes of the numbers")
    parser.add_argument("--rounds", type=int, default=4, help="rounds of the alternation, and as many refits after them")
    parser.add_argument("--damping", type=float, default=0.1, help="the ridge on changes, in unit-diagonal coordinates")
    parser.add_argument("--out", type=Path, default=RESULTS / "low_rank.json", metavar="FILE", help="the result file")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for file in sorted(arguments.problems.glob("*.safetensors")):
        if not re.search(arguments.operators, file.name):
            continue
        problem, _ = read_problem(file)
        test = Quadratic(read_gram(arguments.problems / "test" / file.name), problem.anchor)
        damped = problem.damped(arguments.damping * problem.diagonal)
        runs: dict[str, Callable[[], Solution]] = {
            "l0": lambda damped=damped: l0_admm(damped, HALF),
            **{
                f"sparse + low rank, share {share:g}": lambda damped=damped, share=share: shared(
                    damped, share, arguments.rounds
                )
                for share in arguments.shares
            },
            "low rank": lambda damped=damped: low_rank(damped, rank_within(HALF, damped.shape)),
        }
        for name, solve in runs.items():
            started = time.perf_counter()
            found = solve()
            seconds = time.perf_counter() - started
            rank = found.rank if isinstance(found, FactoredSolution) else 0
            count = found.parameters if isinstance(found, FactoredSolution) else int((found.weights != 0).sum())
            rows.append(
                {
                    "operator": file.stem, "way": name, "rank": rank, "parameters": count,
                    "error": problem.relative_error(found.weights), "test_error": test.relative_error(found.weights),
                    "seconds": seconds,
                }
            )  # fmt: skip
            print(rows[-1], flush=True)
            settings = {"rounds": arguments.rounds, "damping": arguments.damping, "versions": dict(versions())}
            save(arguments.out, {**settings, "rows": rows})
    columns = ["operator", "way", "rank", "parameters", "error", "test_error", "seconds"]
    print(
        table(
            columns, [[f"{row[key]:.4g}" if isinstance(row[key], float) else f"{row[key]}" for key in columns] for row in rows]
        )
    )


if __name__ == "__main__":
    main()
