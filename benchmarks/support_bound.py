"""How much better than `l0` any support can be: proven lower bounds of the damped loss on problem files.

    python benchmarks/support_bound.py --problems FOLDER [--steps 50] [--splits 3] [--out FILE]

Every problem is damped by the empirical ridge that `l0` chooses from the calibration moments alone, solved by `l0_admm`, and
bounded by `l0_bound`: for every support that the pattern admits, and all weights on it, the damped loss is at least the bound.
The script prints the damped loss that `l0_admm` reaches as a fraction of that of zero weights, the bound as a fraction of that
loss, and the seconds of both, of processor time, which on one thread (OMP_NUM_THREADS=1) other work hardly changes. It also
says which part of the diagonal of the damped Gram the bound rests on, beside the part that is the ridge; both are medians over
channels.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from common.results import RESULTS, save

from gramian.adapters.data.problem_files import read_problem
from gramian.solvers import NM, Pattern, Quadratic, TopK, empirical_ridge, l0_admm, l0_bound
from gramian.tables import table
from gramian.versions import versions

PATTERNS: dict[str, Pattern] = {"50%": TopK(0.5), "70%": TopK(0.7), "2:4": NM(2, 4)}


def measured(problem: Quadratic, tokens: int, pattern: Pattern, steps: int, splits: int) -> dict[str, float]:
    """Loss, bound and seconds of one case."""
    ridge = empirical_ridge(problem, pattern, tokens).ridge
    damped = problem.damped(ridge)
    started = time.process_time()
    found = l0_admm(damped, pattern)
    between = time.process_time()
    bound = l0_bound(damped, pattern, steps=steps, splits=splits)
    ended = time.process_time()
    live = damped.diagonal > 0
    return {
        "damped error": found.certificate.objective / damped.energy,
        "bound of loss": bound.total / found.certificate.objective,
        "l0 seconds": between - started,
        "bound seconds": ended - between,
        "ridge": float(np.median(ridge[live] / damped.diagonal[live])),
        "split": float(np.median(bound.split[live] / damped.diagonal[live])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=Path, required=True, metavar="FOLDER", help="where problem files are")
    parser.add_argument("--steps", type=int, default=50, help="steps of ADMM for every diagonal (default %(default)s)")
    parser.add_argument("--splits", type=int, default=3, help="diagonals that are tried (default %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS / "support_bound.json", metavar="FILE", help="the result file")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for file in sorted(arguments.problems.glob("*.safetensors")):
        problem, metadata = read_problem(file)
        for name, pattern in PATTERNS.items():
            figures = measured(problem, int(metadata["tokens"]), pattern, arguments.steps, arguments.splits)
            rows.append({"operator": f"{metadata['layer']}.{metadata['operator']}", "pattern": name, **figures})
            print(rows[-1], flush=True)
    head = list(rows[0])
    print(table(head, [[f"{cell:.3g}" if isinstance(cell, float) else cell for cell in row.values()] for row in rows]))
    settings = {"steps": arguments.steps, "splits": arguments.splits}
    save(arguments.out, {"versions": dict(versions()), **settings, "rows": rows})


if __name__ == "__main__":
    main()
