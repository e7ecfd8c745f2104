"""Time to a certified gap of non-negative least squares, the elastic net and the non-negative LASSO: `lasso` beside its peers.

    python benchmarks/regression.py --problems FOLDER [--layers REGEX] [--cells REGEX] [--solvers NAME ...] [--out FILE]

All rows of a layer are regressed on its inputs, with one Gram: over v >= 0; with a ridge of 1 % of the mean diagonal of the
Gram and a price at which half of the weights of 64 rows are zero; and over v >= 0 with half of that price. The gap is that of
the sum of the rows' objectives to a lower bound of its minimum, relative to it, both computed here from what came back, the
Gram and the dense weights. The bound is the best that is known, at the optimum, so that no solver is charged for dual points
that its weights alone do not give; to those who have no dual points this is a favour.

Ours solves many rows in one call, its inverse and certificate included, on as many BLAS threads as --threads says. The others
solve a row at a time, and what helps them is not timed: scikit-learn runs on the Gram itself; scipy, skglm and celer get a
square root of the Gram as design, made beforehand; OSQP factorises once for all rows and goes on from the row before; code is
compiled already; rows are spread over --threads processes of one thread each; and each row has a tolerance set from its optimal
objective, which is known here, loose at first and tightened until the sum meets the gap. Figures are medians over --repeats
random choices of rows, in milliseconds of wall time per row.

Cells resume from the JSON file. The script needs scikit-learn, skglm, celer, osqp, clarabel and highspy, or --solvers.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import re
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from common.peers import measured, workers
from common.regressions import DISTRIBUTIONS, PEERS, Design, Model, Row, Solve, peer
from common.results import RESULTS

from gramian.adapters.data.problem_files import read_problem
from gramian.solvers import ElasticNet, NonNegative, Quadratic, lasso
from gramian.tables import table

GAPS = (1e-3, 1e-6)
SLOW = ("OSQP", "Clarabel", "HiGHS", "scipy")  # exact, or so slow that one gap says enough: the tightest
OURS = "gramian"
LOOSEST = 1e4  # times the gap, where tolerances begin: some solvers overshoot theirs by far
MOST = 32  # rows that the others are timed on
RIDGE, ZEROS = 0.01, 0.5  # of the mean diagonal of the Gram; of the weights


@cache
def layer(file: Path) -> tuple[Design, np.ndarray]:
    """The Gram and the dense weights of a problem file with X* = X, the only case that every solver here takes."""
    problem, _ = read_problem(file)
    return Design(np.asarray(problem.gram)), np.asarray(problem.anchor)


def term(model: Model) -> ElasticNet | NonNegative:
    """The same as a term of ours."""
    return NonNegative(model.l1, model.l2) if model.positive else ElasticNet(model.l1, model.l2)


def ours(file: Path, model: Model, weight: np.ndarray, gap: float) -> np.ndarray:
    """All rows by one call."""
    return np.asarray(lasso(Quadratic(layer(file)[0].gram, weight), term(model), tol=gap).weights)


@cache
def warmed(name: str, file: Path, model: Model) -> Solve | None:
    """A solver that has run once, compiled and with what it needs of the layer; what is allocated once is not timed either."""
    design, weights = layer(file)
    if name == OURS:
        ours(file, model, weights[:4], 1e-3)
        return None
    solve = peer(name, design, model)
    if solve is not None:
        energy = 0.5 * float(weights[0] @ design.gram @ weights[0])
        solve(Row(weights[0], energy, float(np.abs(weights[0]).sum())), 0.1)
    return solve


def solved(name: str, file: Path, model: Model, rows: list[Row], gap: float) -> tuple[np.ndarray, float]:
    """Weights of the rows and the seconds they took."""
    solve = warmed(name, file, model)
    weights = np.stack([row.weight for row in rows])
    started = time.perf_counter()
    found = ours(file, model, weights, gap) if solve is None else np.stack([solve(row, gap) for row in rows])
    return found, time.perf_counter() - started


@cache
def drawn(file: Path, model: Model, seed: int) -> tuple[list[Row], np.ndarray]:
    """All rows of a layer in a random order, and a lower bound of the optimal objective of each."""
    design, weights = layer(file)
    weights = weights[np.random.default_rng(seed).permutation(len(weights))]
    optima = ours(file, model, weights, 1e-11)
    objectives = model.objectives(design, weights, optima)
    rows = [Row(*row) for row in zip(weights, objectives.tolist(), np.abs(optima).sum(axis=1).tolist())]
    return rows, model.bounds(design, weights, optima)


@dataclass(frozen=True)
class Case:
    """A solver of a model on a layer, by these processes."""

    name: str
    file: Path
    model: Model
    team: list[ProcessPoolExecutor]

    def timed(self, seed: int, count: int, gap: float) -> tuple[float, float, float]:
        """On so many random rows: wall seconds per row, the relative gap of all rows together, and the part of zeros."""
        rows, bounds = drawn(self.file, self.model, seed)
        parts = [range(k, count, len(self.team)) for k in range(len(self.team))]
        jobs = [
            one.submit(solved, self.name, self.file, self.model, [rows[k] for k in part], gap)
            for one, part in zip(self.team, parts)
        ]
        weights = np.stack([row.weight for row in rows[:count]])
        found = np.empty_like(weights)
        for part, job in zip(parts, jobs):
            found[list(part)] = job.result()[0]
        objective = self.model.objectives(layer(self.file)[0], weights, found).sum()
        seconds = max(job.result()[1] for job in jobs)
        return seconds / count, float((objective - bounds[:count].sum()) / objective), float((found == 0).mean())


def models(file: Path) -> dict[str, dict[str, Any]]:
    """What is solved on a layer, by name."""
    design, weights = layer(file)
    chosen = weights[np.random.default_rng(0).permutation(len(weights))[:64]]
    ridge, problem = RIDGE * float(np.mean(np.diag(design.gram))), Quadratic(design.gram, chosen)
    lower, upper = 0.0, float(np.abs(chosen @ design.gram).max())
    while upper > 1.02 * lower:
        price = math.sqrt(lower * upper) if lower else upper / 4
        zeros = float((np.asarray(lasso(problem, ElasticNet(price, ridge), tol=1e-4).weights) == 0).mean())
        lower, upper = (lower, price) if zeros >= ZEROS else (price, upper)
    net, signed = Model(upper, ridge, False), Model(upper / 2, 0.0, True)
    return {"non-negative": asdict(Model(0.0, 0.0, True)), "elastic net": asdict(net), "non-negative lasso": asdict(signed)}


def show(results: Mapping[str, Mapping[str, Any]], solvers: list[str]) -> None:
    """Times side by side, and the ratio of the fastest of the others to ours."""
    cases: dict[tuple[str, str, float], dict[str, Mapping[str, Any]]] = {}
    for result in results.values():
        cell = result["keywords"]
        if cell.get("solver") in solvers and "ms per row" in result:
            cases.setdefault((cell["layer"], cell["model"], cell["gap"]), {})[cell["solver"]] = result
    lines = []
    for (name, model, gap), found in cases.items():
        times = [f"{'' if one['reached'] else '>'}{one['ms per row']:.2f}" if (one := found.get(s)) else "-" for s in solvers]
        others = [result["ms per row"] for solver, result in found.items() if solver != OURS and result["reached"]]
        ratio = f"{min(others) / found[OURS]['ms per row']:.1f}" if others and OURS in found else "-"
        lines.append([f"{name} {model} {gap:.0e}", *times, ratio])
    print("Milliseconds per row, and the ratio of the fastest of the others to ours.")
    print(table(["layer, model, gap", *solvers, "ratio"], lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=Path, required=True, metavar="FOLDER", help="where problem files are")
    parser.add_argument("--layers", default=".", metavar="REGEX", help="use only files whose name the expression finds")
    parser.add_argument("--cells", default=".", metavar="REGEX", help="run only cells whose name it finds")
    parser.add_argument("--solvers", nargs="+", default=[OURS, *PEERS], choices=[OURS, *PEERS], help="whom to time")
    parser.add_argument("--rows", type=int, default=2048, help="of a layer that ours solves, at most (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="that a run of the others takes (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="runs, each on other rows (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of ours, and processes of the others (default %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS / "regression.json", metavar="FILE", help="the result file")
    options = parser.parse_args()
    for name in options.solvers:
        if name != OURS and not importlib.util.find_spec(DISTRIBUTIONS[name]):
            parser.error(f"{name} is missing: pip install {name.lower()}, or name the others after --solvers")
    from common.cells import resumed  # not above: it imports torch, which the workers do not need

    files = {file.stem: file for file in sorted(options.problems.glob("*.safetensors")) if re.search(options.layers, file.name)}
    found = resumed(
        {stem: {"layer": stem} for stem in files}, ".", options.out, lambda _, cell: {"models": models(files[cell["layer"]])}
    )
    budget = {name: getattr(options, name) for name in ("rows", "seconds", "repeats", "threads")}
    cells = {}
    for stem, file in files.items():
        for model in found[stem]["models"]:
            cell = {"layer": stem, "width": len(layer(file)[0].gram), "model": model}
            for gap, solver in ((gap, solver) for gap in GAPS for solver in options.solvers):
                if solver not in SLOW or gap == min(GAPS):
                    cells[f"{stem} {model} {solver} {gap:.0e}"] = {**cell, "solver": solver, "gap": gap} | budget
    with workers(1, options.threads) as team, workers(options.threads, 1) as others:

        def run(name: str, cell: Mapping[str, Any]) -> dict[str, Any]:
            solver, file = cell["solver"], files[cell["layer"]]
            model = Model(**found[cell["layer"]]["models"][cell["model"]])
            if solver != OURS and peer(solver, layer(file)[0], model) is None:
                return {}
            alone, rows = solver == OURS, len(layer(file)[1])
            processes = team if alone else others
            most = min(options.rows if alone else MOST, rows)
            figures, zeros = measured(
                Case(solver, file, model, processes).timed,
                cell["gap"],
                exact=alone,
                most=most,
                fewest=min(most, 2 * len(processes)),
                seconds=options.seconds,
                repeats=options.repeats,
                loosest=LOOSEST,
            )
            return {**figures, "zeros": zeros, "version": version("highspy" if solver == "HiGHS" else solver.lower())}

        show(resumed(cells, options.cells, options.out, run), options.solvers)


if __name__ == "__main__":
    main()
