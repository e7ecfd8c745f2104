"""Layers pruned and quantised: one after the other, in one sweep, and with codes moved afterwards.

    python benchmarks/quantised.py --problems FOLDER [--operators REGEX] [--bits 4] [--group 64] [--out FILE]

FOLDER is that of `layer_error.py`: problem files, and in FOLDER/test the Gram matrices of the same operators on other text. An
error is |X (V - W)^T|^2 / |X W^T|^2, on the calibration moments or on the test moments, in float64; seconds are those of one
run. SparseGPT's answer as it is stands beside those on a grid.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common.results import RESULTS, save

from gramian.adapters.data.problem_files import read_gram, read_problem
from gramian.solvers import NM, Pattern, Quadratic, TopK, quantise, sparsegpt
from gramian.tables import table
from gramian.versions import versions

PATTERNS: dict[str, Pattern] = {"2:4": NM(2, 4), "50%": TopK(0.5)}


def ways(problem: Quadratic, pattern: Pattern, bits: int, group: int) -> dict[str, Callable[[], Any]]:
    """Name -> what gives the weights."""

    def rounded() -> Any:
        plain = Quadratic(np.eye(problem.shape[1]), sparsegpt(problem, pattern).weights)
        return quantise(plain, 0.0, bits=bits, group=group, damping=0.0, rounds=0).weights

    def on_grid(support: str, rounds: int) -> Callable[[], Any]:
        return lambda: quantise(problem, pattern, bits=bits, group=group, support=support, rounds=rounds).weights

    return {
        "sparsegpt, not quantised": lambda: sparsegpt(problem, pattern).weights,
        "then rounded": rounded,
        "then GPTQ on its zeros": on_grid("sparsegpt", 0),
        "one sweep": on_grid("sweep", 0),
        "one sweep, codes moved": on_grid("sweep", 10),
        "zeros of l0": on_grid("l0", 0),
        "zeros of l0, codes moved": on_grid("l0", 10),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=Path, required=True, metavar="FOLDER", help="problem files")
    parser.add_argument("--operators", default="", metavar="REGEX", help="only files whose name the expression finds")
    parser.add_argument("--bits", type=int, default=4, help="of a code (default %(default)s)")
    parser.add_argument("--group", type=int, default=64, help="inputs that share a scale (default %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS / "quantised.json", metavar="FILE", help="the result file")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for file in sorted(arguments.problems.glob("*.safetensors")):
        if not re.search(arguments.operators, file.name):
            continue
        problem, _ = read_problem(file)
        gram = read_gram(arguments.problems / "test" / file.name)
        other = Quadratic(gram, problem.anchor)
        for shown, pattern in PATTERNS.items():
            for name, way in ways(problem, pattern, arguments.bits, arguments.group).items():
                started = time.perf_counter()
                weights = way()
                rows.append(
                    {
                        "operator": file.stem, "pattern": shown, "way": name, "error": problem.relative_error(weights),
                        "test_error": other.relative_error(weights), "seconds": time.perf_counter() - started,
                    }
                )  # fmt: skip
                print(rows[-1], flush=True)
                save(
                    arguments.out,
                    {"bits": arguments.bits, "group": arguments.group, "versions": dict(versions()), "rows": rows},
                )
    shown_rows = [[f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows]
    print(table(["operator", "pattern", "way", "error", "on other text", "s"], shown_rows))


if __name__ == "__main__":
    main()
