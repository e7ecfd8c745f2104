"""`gramian solve` solves problem files. It needs neither torch nor transformers."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gramian.adapters.config import PruneConfig
from gramian.adapters.data.problem_files import read_gram, read_problem, write_tensors
from gramian.adapters.files import check_output, check_result, write_json
from gramian.progress import progress
from gramian.solvers import Pattern, Quadratic, Support, certify
from gramian.solvers.support.damped import CalibrationSplit, DampedMethod
from gramian.tables import figure, table

__all__ = ["solve_problems"]


def solve_problems(args: argparse.Namespace) -> None:
    """Solve every problem file, print a row for each, and write the solutions and the rows."""
    check_result(args.json)
    if args.out is not None:
        check_output(args.out, args.overwrite, adding=True)
        if len({file.name for file in args.files}) < len(args.files):
            raise ValueError("two problem files have the same name, so their solutions cannot share a directory")
    config: PruneConfig = args.config
    pattern = one_pattern(config)
    for file in args.files:  # every file is read once before the first is solved, which may take long
        read(file, args.heldout, pattern)
    solve = DampedMethod(config.recipe.of_weights(config.options, None), config.own("damping") or 0.0, config.refit)
    rows: list[dict[str, Any]] = []
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
    for file in progress(args.files, config.method, "problem"):
        problem, heldout, tokens = read(file, args.heldout, pattern)
        started = time.perf_counter()
        solution = solve(problem, pattern, CalibrationSplit(tokens))
        seconds = time.perf_counter() - started
        single = np.asarray(solution.weights, dtype=np.float32)  # evaluated as it is stored
        row = {"file": str(file), "method": config.method, "pattern": str(pattern), **evaluated(problem, pattern, single)}
        if "lasso_gap" in solution.detail:
            row["certificate"]["lasso_gap"] = solution.detail["lasso_gap"]
        if heldout is not None:
            row["heldout_error"] = heldout.relative_error(single.astype(np.float64))
        how = {"options": dict(config.options), "damping": solve.damping, "refit": solve.refit}
        rows.append({**row, "status": solution.status.value, "seconds": seconds, **how, "detail": dict(solution.detail)})
        if args.out is not None:
            metadata = {"method": config.method, "pattern": str(pattern), "relative_error": repr(row["relative_error"])}
            write_tensors(args.out / file.name, {"weight": single}, metadata)
    if args.json is not None:
        write_json(args.json, rows)
    print(shown(rows))


def one_pattern(config: PruneConfig) -> Pattern:
    """The pattern of all problems; ValueError for rules by name, since problems have none."""
    patterns = config.amounts.kinds(config.own("per_row"))
    if len(patterns) > 1:
        raise ValueError("rules of sparsity go by names of operators, which problem files do not have: give one amount")
    return patterns[0]


def read(file: Path, heldout: Sequence[Path], pattern: Pattern) -> tuple[Quadratic, Quadratic | None, int]:
    """Read a problem, the same operator's problem on held-out text where there is any, and the number of the first's tokens."""
    problem, metadata = read_problem(file)
    stated = str(metadata.get("tokens", problem.shape[1]))  # where it is not stated, as few tokens as there can be
    if not stated.isdecimal():
        raise ValueError(f"{file}: its metadata says tokens={stated!r}, expected a whole number")
    tokens = int(stated)
    try:
        pattern.check(problem.shape)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    if not heldout:
        return problem, None, tokens
    candidates = [path / file.name if path.is_dir() else path for path in heldout]
    found = [path for path in candidates if path.name == file.name and path.is_file()]
    if not found:
        raise FileNotFoundError(f"no held-out moments for {file}: expected {file.name} in {', '.join(map(str, heldout))}")
    if problem.slope is not None:  # where X* != X, moments of X* alone do not say what the target was
        other = read_problem(found[0])[0]
        if other.shape != problem.shape or not np.array_equal(other.anchor, problem.anchor):
            raise ValueError(f"{found[0]} does not fit {file}: their weights {other.shape} and {problem.shape} differ")
        return problem, other, tokens
    try:
        return problem, Quadratic(read_gram(found[0]), problem.anchor), tokens
    except ValueError as error:
        raise ValueError(f"{found[0]} does not fit {file}: {error}") from error


def evaluated(problem: Quadratic, pattern: Pattern, weights: np.ndarray) -> dict[str, Any]:
    """Evaluate weights in float64, without anything that the solver states of them."""
    weights = weights.astype(np.float64)
    mask = weights != 0
    if not pattern.admits(mask):
        raise RuntimeError(f"the solution does not satisfy the pattern {pattern}")
    certificate = certify(problem, Support(mask), weights)
    return {
        "sparsity": 1 - float(mask.mean()),
        "relative_error": certificate.relative_error,
        "certificate": {
            "residual": certificate.residual,
            "violation": certificate.violation,
            "objective": certificate.objective,
        },
    }


def shown(rows: Sequence[dict[str, Any]]) -> str:
    """Write a table with a row per file."""
    head = ["file", "pattern", "zeros", "error", "held-out", "KKT", "LASSO gap", "s"]
    return table(
        head,
        [
            [
                Path(row["file"]).name.removesuffix(".safetensors"),
                row["pattern"],
                f"{100 * row['sparsity']:.2f}%",
                figure(row["relative_error"]),
                figure(row.get("heldout_error")),
                figure(row["certificate"]["residual"]),
                figure(row["certificate"].get("lasso_gap")),
                f"{row['seconds']:.2f}",
            ]
            for row in rows
        ],
    )
