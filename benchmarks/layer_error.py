"""Layer errors of our methods on problem files, beside those of published codes.

    python benchmarks/layer_error.py --problems FOLDER [--runs REGEX] [--out FILE]

FOLDER holds problem files (`gramian capture` writes them) and, in FOLDER/test, the Gram matrices of the same operators
on other text. What the published codes reach on six operators stands in results/published.json.

An error is |X (V - W)^T|^2 / |X W^T|^2 on the calibration moments or on the test moments, in float64. Wanda and what starts
from its mask prune per row as its code does, everything else over the whole matrix. FISTAPruner's error is shown as a fraction
of its warm start's too. `l0` is damped by what the calibration moments alone say; `l0, undamped` is the optimiser. Times of
`l0, undamped` and SparseGPT, which are compared, are medians of several runs, one after the other: set one thread
(OMP_NUM_THREADS=1) to compare their ratio with that of the published codes. Rows of runs that --runs does not match are kept as
the JSON file has them, so that `--runs '^$'` prints what is there. `tables.py` writes the geometric means of ratios into the
README.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
from pathlib import Path
from typing import Any

from common.results import RESULTS, read, save
from tqdm import tqdm

from gramian.adapters.data.problem_files import read_gram, read_problem
from gramian.adapters.methods.registry import WEIGHT_METHODS, Method
from gramian.solvers import NM, Pattern, Quadratic, TopK, exchange
from gramian.solvers.support.damped import CalibrationSplit, DampedMethod
from gramian.tables import table
from gramian.versions import versions

PATTERNS: dict[str, Pattern] = {"50%": TopK(0.5), "70%": TopK(0.7), "2:4": NM(2, 4)}


KNOWN = WEIGHT_METHODS | {"exchanged": Method(exchange, settings={"per_row": True})}
RUNS: dict[str, tuple[str, dict[str, Any], float | str, bool]] = {  # method, its options, damping, refit
    "wanda": ("wanda", {}, 0.0, False),
    "wanda, refit": ("wanda", {}, 0.0, True),
    "wanda, dsnot": ("dsnot", {}, 0.0, False),
    "wanda, dsnot, refit": ("dsnot", {}, 0.0, True),
    "wanda, exchanged": ("exchanged", {"start": "wanda"}, 0.0, False),
    "sparsegpt": ("sparsegpt", {}, 0.0, False),
    "sparsegpt, refit": ("sparsegpt", {}, 0.0, True),
    "fistapruner from wanda": ("fistapruner", {"warm_start": "wanda"}, 0.0, False),
    "fistapruner from sparsegpt": ("fistapruner", {"warm_start": "sparsegpt"}, 0.0, False),
    "l0, undamped": ("l0", {}, 0.0, False),
    "l0": ("l0", {}, "auto", False),
}
TIMED = ("sparsegpt", "l0, undamped")


def run(
    recipe: tuple[str, dict[str, Any], float | str, bool],
    pattern: Pattern,
    problem: Quadratic,
    tokens: int,
    test: Quadratic,
    repeats: int,
) -> dict[str, float]:
    """One method on one problem: both errors, the median time, and the certificate of what came out."""
    name, options, damping, refit = recipe
    method = KNOWN[name]
    if isinstance(pattern, TopK):
        pattern = TopK(pattern.sparsity, per_row=method.settings.get("per_row", False))
    damped = DampedMethod(method.tried(options), damping, refit)
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        solution = damped(problem, pattern, CalibrationSplit(tokens))
        seconds.append(time.perf_counter() - started)
    assert pattern.admits(solution.weights != 0)
    return {
        "error": problem.relative_error(solution.weights),
        "test_error": test.relative_error(solution.weights),
        "seconds": statistics.median(seconds),
        "residual": solution.certificate.residual or 0.0,
        **solution.detail,
    }


def show(rows: list[dict[str, Any]]) -> None:
    """A row for every case, beside the published code of the same name."""
    peers = read("published")["layers"]["operators"]
    cells = []
    for row in rows:
        peer = peers.get(row["operator"], {}).get(row["pattern"], {}).get(row["run"])
        start = row.get("warm_start_error")
        cells.append(
            [
                f"{row['operator']} {row['pattern']} {row['run']}",
                f"{row['error']:.5f}",
                f"{row['test_error']:.5f}",
                f"{peer['error']:.5f}" if peer else "-",
                f"{peer['test_error']:.5f}" if peer else "-",
                f"{row['error'] / start:.3f}" if start else "-",
                f"{row['seconds']:.2f}",
            ]
        )
    print(table(["case", "error", "test", "published", "test", "of warm start", "s"], cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=Path, required=True, metavar="FOLDER", help="where problem files are")
    parser.add_argument("--runs", default="", metavar="REGEX", help="only runs whose name the expression finds")
    parser.add_argument("--repeats", type=int, default=3, help="timings are medians of so many runs (default %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS / "layer_error.json", metavar="FILE", help="the result file")
    arguments = parser.parse_args()
    files = sorted(arguments.problems.glob("*.safetensors"))
    chosen = {name: recipe for name, recipe in RUNS.items() if re.search(arguments.runs, name)}
    rows: list[dict[str, Any]] = json.loads(arguments.out.read_text())["rows"] if arguments.out.exists() else []
    rows = [row for row in rows if row["run"] not in chosen]
    with tqdm(total=len(files) * len(PATTERNS) * len(chosen), unit="case") as bar:
        for file in files:
            problem, metadata = read_problem(file)
            test = Quadratic(read_gram(arguments.problems / "test" / file.name), problem.anchor)
            operator = f"{metadata['layer']}.{metadata['operator']}"
            for pattern in PATTERNS:
                for name, recipe in chosen.items():
                    repeats = arguments.repeats if name in TIMED else 1
                    figures = run(recipe, PATTERNS[pattern], problem, int(metadata["tokens"]), test, repeats)
                    rows.append({"operator": operator, "pattern": pattern, "run": name, **figures})
                    bar.update()
    rows.sort(key=lambda row: (row["operator"], list(PATTERNS).index(row["pattern"]), list(RUNS).index(row["run"])))
    show(rows)
    if chosen:  # otherwise nothing was measured with these versions
        save(arguments.out, {"versions": dict(versions()), "rows": rows})


if __name__ == "__main__":
    main()
