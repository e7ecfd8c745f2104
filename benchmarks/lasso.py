"""Time to a relative duality gap: `lasso` beside scikit-learn, skglm and celer, on layers as problem files.

    python benchmarks/lasso.py --problems FOLDER [--layers REGEX] [--cells REGEX] [--solvers NAME ...] [--out FILE]

Every layer is solved at one lambda for the whole matrix at which half, and 70 %, of the weights are zero (bisection on 64
rows), to gaps of 1e-3, 1e-6 and 1e-9 of the objective. The gap that decides is not a solver's own: it is computed here, in
float64, from the weights that came back, the Gram and the dense weights, and summed over rows.

Ours solves many rows in one call, its inverse included, on as many BLAS threads as --threads says. The others solve a row at a
time, and what helps them is not timed: scikit-learn runs its coordinate descent on the Gram itself; skglm (AndersonCD) and
celer get a square root of the Gram as design, factorised beforehand, and their code is compiled already; rows are spread over
--threads processes of one thread each; and each row has a tolerance set from its optimal objective, which is known here, loose
at first and tightened until the sum meets the gap. (celer's own gap has better dual points than the weights alone give, so it
is tightened most.) Ours is timed on at most --rows rows, the others on a random sample that keeps their processes busy for
about --seconds, drawn anew for each of the repeats. Figures are medians, in milliseconds of wall time per row. The solver
`gramian-processes` is ours with its rows spread like theirs, for machines on which BLAS threads wait for each other.

Cells resume from the JSON file. The script needs scikit-learn, skglm and celer, or --solvers without them.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import re
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from common.peers import measured, workers
from common.results import RESULTS
from fista_gap import duality_gap

from gramian.adapters.data.problem_files import read_problem
from gramian.solvers import L1, Quadratic, lasso, lasso_to_sparsity
from gramian.tables import table

SPARSITIES, GAPS = (0.5, 0.7), (1e-3, 1e-6, 1e-9)
PEERS = {"scikit-learn": "sklearn", "skglm": "skglm", "celer": "celer"}  # distribution: module
OURS, SPREAD = "gramian", "gramian-processes"
MOST = 64  # rows that the others are timed on


@dataclass(frozen=True)
class Row:
    """A row to solve: its dense weights w, and of its optimum v the objective and |v|_1, from which tolerances come."""

    weight: np.ndarray
    objective: float
    norm: float


@cache
def layer(file: Path) -> Quadratic:
    """The problem with X* = X, the only case that every solver here takes."""
    problem, _ = read_problem(file)
    return Quadratic(problem.gram, problem.anchor)


@cache
def root(file: Path) -> np.ndarray:
    """R (r, p) with R^T R = G, columns contiguous."""
    values, vectors = np.linalg.eigh(layer(file).gram)
    kept = values > len(values) * np.finfo(float).eps * values[-1]
    return np.asfortranarray(np.sqrt(values[kept])[:, None] * vectors[:, kept].T)


Solve = Callable[[Row, float], np.ndarray]  # (row, relative gap) -> argmin_v 1/2 |R (v - w)|^2 + lambda |v|_1


def scikit_learn(file: Path, penalty: float) -> Solve:
    """The kernel of `Lasso(precompute=G)` without its checks of arguments. Ends at a gap of tol |R w|^2."""
    from sklearn.linear_model._cd_fast import enet_coordinate_descent_gram as kernel

    gram, rng = np.ascontiguousarray(layer(file).gram), np.random.RandomState(0)

    def solve(row: Row, gap: float) -> np.ndarray:
        cross = gram @ row.weight
        energy = float(row.weight @ cross)
        target = np.array([math.sqrt(energy)])  # only its norm is used
        start = np.zeros(len(cross))
        return kernel(start, penalty, 0.0, gram, cross, target, 10**6, gap * row.objective / energy, rng, False, False)[0]

    return solve


def skglm(file: Path, penalty: float) -> Solve:
    """Working sets and Anderson extrapolation. Ends at a largest violation of the conditions; times |v|_1 it bounds a gap."""
    from skglm.solvers import AndersonCD

    design, (loss, term) = root(file), compiled_once()

    def solve(row: Row, gap: float) -> np.ndarray:
        term.alpha = penalty / len(design)
        tol = gap * row.objective / row.norm / len(design)
        solver = AndersonCD(tol=tol, max_iter=1000, max_epochs=100_000, fit_intercept=False)
        return solver.solve(design, design @ row.weight, loss, term)[0]

    return solve


@cache
def compiled_once() -> tuple[Any, Any]:
    """skglm's loss and its L1, whose alpha may change; to compile them takes longer than a cell."""
    from skglm.datafits import Quadratic as Loss
    from skglm.penalties import L1 as Term
    from skglm.utils.jit_compilation import compiled_clone

    return compiled_clone(Loss()), compiled_clone(Term(1.0))


def celer(file: Path, penalty: float) -> Solve:
    """Working sets and dual extrapolation. Ends at a gap of tol |R w|^2."""
    from celer import celer_path

    design = root(file)

    def solve(row: Row, gap: float) -> np.ndarray:
        target, alphas = design @ row.weight, [penalty / len(design)]
        tol = gap * row.objective / float(target @ target)
        return celer_path(design, target, "lasso", alphas=alphas, tol=tol, max_iter=20, max_epochs=2000)[1][:, 0]

    return solve


ONE_BY_ONE = {"scikit-learn": scikit_learn, "skglm": skglm, "celer": celer}


def solved(name: str, file: Path, penalty: float, rows: list[Row], gap: float) -> tuple[np.ndarray, float]:
    """Weights of the rows and the seconds they took."""
    if name in (OURS, SPREAD):
        warmed_ours(file, penalty)
        problem = Quadratic(layer(file).gram, np.stack([row.weight for row in rows]))
        started = time.perf_counter()
        return np.asarray(lasso(problem, L1(penalty), tol=gap).weights), time.perf_counter() - started
    warnings.simplefilter("ignore")  # whether it has converged is checked below
    solve = warmed(name, file, penalty)
    started = time.perf_counter()
    found = [solve(row, gap) for row in rows]
    return np.stack(found), time.perf_counter() - started


@cache
def warmed_ours(file: Path, penalty: float) -> None:
    """What is imported or allocated once is not timed."""
    lasso(layer(file).rows(np.arange(4)), L1(penalty))


@cache
def warmed(name: str, file: Path, penalty: float) -> Solve:
    """A solver that has run once, compiled and with what it needs of the layer."""
    solve = ONE_BY_ONE[name](file, penalty)
    weight = layer(file).anchor[0]
    solve(Row(weight, float(weight @ layer(file).gram @ weight), float(np.abs(weight).sum())), 0.1)
    return solve


@cache
def drawn(file: Path, penalty: float, seed: int) -> tuple[np.ndarray, list[Row]]:
    """Rows of a layer in a random order, and what tolerances need of the first of them."""
    problem = layer(file)
    order = np.random.default_rng(seed).permutation(problem.shape[0])
    optima = np.asarray(lasso(problem.rows(order[:MOST]), L1(penalty), tol=1e-10).weights)
    rows = []
    for index, optimum in zip(order, optima):
        objective, _ = duality_gap(problem.rows(np.array([index])), optimum[None, :], penalty)
        rows.append(Row(problem.anchor[index], objective, float(np.abs(optimum).sum())))
    return order, rows


@dataclass(frozen=True)
class Case:
    """A solver on a layer at a lambda, by these processes."""

    name: str
    file: Path
    penalty: float
    team: list[ProcessPoolExecutor]

    def timed(self, seed: int, count: int, gap: float) -> tuple[float, float, float]:
        """On so many random rows: wall seconds per row, the relative gap of all rows together, and the part of zeros."""
        order, known = drawn(self.file, self.penalty, seed)
        problem = layer(self.file).rows(order[:count])
        rows = known[:count] if self.name in PEERS else [Row(weight, math.nan, math.nan) for weight in problem.anchor]
        parts = [range(k, count, len(self.team)) for k in range(len(self.team))]
        jobs = [
            one.submit(solved, self.name, self.file, self.penalty, [rows[k] for k in part], gap)
            for one, part in zip(self.team, parts)
        ]
        weights = np.empty_like(problem.anchor)
        for part, job in zip(parts, jobs):
            weights[list(part)] = job.result()[0]
        objective, total = duality_gap(problem, weights, self.penalty)
        seconds = max(job.result()[1] for job in jobs)
        return seconds / count, total / objective, float((weights == 0).mean())

    def measured(self, gap: float, options: argparse.Namespace) -> dict[str, Any]:
        """Median time per row of repeats that all meet the gap; `reached` is false where no tolerance does."""
        ours = self.name not in PEERS
        most = min(options.rows if ours else MOST, layer(self.file).shape[0])
        figures, zeros = measured(
            self.timed,
            gap,
            exact=ours,
            most=most,
            fewest=min(most, 2 * len(self.team)),
            seconds=options.seconds,
            repeats=options.repeats,
        )
        return {**figures, "zeros": zeros, "version": version(OURS if ours else self.name)}


def lambda_at(file: Path, sparsity: float) -> dict[str, Any]:
    """The lambda of a sparsity, on 64 rows."""
    problem = layer(file)
    chosen = np.random.default_rng(0).permutation(problem.shape[0])[:64]
    search = lasso_to_sparsity(problem.rows(chosen), sparsity, tol=1e-3, width=1e-2)
    return {"lambda": float(search.weight[0, 0])}


def show(results: Mapping[str, Mapping[str, Any]], solvers: list[str]) -> None:
    """Times side by side, and the ratio of the fastest of the others to ours, with geometric means by width."""
    cases: dict[tuple[str, int, float, float], dict[str, Mapping[str, Any]]] = {}
    for result in results.values():
        cell = result["keywords"]
        if cell.get("solver") in solvers:
            key = (cell["layer"], cell["width"], cell["sparsity"], cell["gap"])
            cases.setdefault(key, {})[cell["solver"]] = result
    lines: list[list[str]] = []
    ratios: dict[tuple[int, float], list[float]] = {}
    for (name, width, sparsity, gap), found in cases.items():
        times = [f"{'' if one['reached'] else '>'}{one['ms per row']:.2f}" if (one := found.get(s)) else "-" for s in solvers]
        others = [result["ms per row"] for solver, result in found.items() if solver in PEERS and result["reached"]]
        if others and OURS in found:
            ratios.setdefault((width, gap), []).append(min(others) / found[OURS]["ms per row"])
            times.append(f"{ratios[width, gap][-1]:.1f}")
        lines.append([f"{name} ({width}) {sparsity:.0%} {gap:.0e}", *times, *["-"] * (len(solvers) + 1 - len(times))])
    print("Milliseconds per row, and the ratio of the fastest of the others to ours.")
    print(table(["layer, sparsity, gap", *solvers, "ratio"], lines))
    for (width, gap), values in sorted(ratios.items()):
        print(f"{width} inputs, gap {gap:.0e}: {math.prod(values) ** (1 / len(values)):.1f} times as fast (geometric mean)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=Path, required=True, metavar="FOLDER", help="where problem files are")
    parser.add_argument("--layers", default=".", metavar="REGEX", help="use only files whose name the expression finds")
    parser.add_argument("--cells", default=".", metavar="REGEX", help="run only cells whose name it finds")
    parser.add_argument("--solvers", nargs="+", default=[OURS, *PEERS], choices=[OURS, SPREAD, *PEERS], help="whom to time")
    parser.add_argument("--rows", type=int, default=2048, help="of a layer that ours solves, at most (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="that a run of the others takes (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="runs, each on other rows (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of ours, and processes of the others (default %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS / "lasso.json", metavar="FILE", help="the result file")
    options = parser.parse_args()
    for name in options.solvers:
        if name in PEERS and not importlib.util.find_spec(PEERS[name]):
            parser.error(f"{name} is missing: pip install {' '.join(PEERS)}, or name the others after --solvers")
    from common.cells import resumed  # not above: it imports torch, which the workers do not need

    files = {file.stem: file for file in sorted(options.problems.glob("*.safetensors")) if re.search(options.layers, file.name)}
    lambdas = {f"{stem} {sparsity:.0%}": {"layer": stem, "sparsity": sparsity} for stem in files for sparsity in SPARSITIES}
    found = resumed(lambdas, ".", options.out, lambda _, cell: lambda_at(files[cell["layer"]], cell["sparsity"]))
    budget = {name: getattr(options, name) for name in ("rows", "seconds", "repeats", "threads")}
    cells = {
        f"{name} {solver} {gap:.0e}": {**cell, "width": layer(files[cell["layer"]]).shape[1], "solver": solver, "gap": gap}
        | budget
        for name, cell in lambdas.items()
        for gap in GAPS
        for solver in options.solvers
    }
    with workers(1, options.threads) as ours, workers(options.threads, 1) as others:

        def run(name: str, cell: Mapping[str, Any]) -> dict[str, Any]:
            penalty = found[f"{cell['layer']} {cell['sparsity']:.0%}"]["lambda"]
            team = ours if cell["solver"] == OURS else others
            return Case(cell["solver"], files[cell["layer"]], penalty, team).measured(cell["gap"], options)

        show(resumed(cells, options.cells, options.out, run), options.solvers)


if __name__ == "__main__":
    main()
