"""`gramian solve` solves problem files. It needs neither torch nor transformers."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from gramian.adapters.cli.arguments import ADDING, MakeCommand, add_html, add_json, add_output
from gramian.adapters.cli.contenders import Contender, contenders_of, patterns_of, solution_files, solve_usage
from gramian.adapters.cli.options import add_settings
from gramian.adapters.cli.output import emit
from gramian.adapters.cli.pages import write_page
from gramian.adapters.cli.types import path
from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.data.problem_files import read_gram, read_problem, write_tensors
from gramian.adapters.files import check_output, check_result
from gramian.adapters.pages.solved import page_of_solved
from gramian.progress import bar
from gramian.solvers import Pattern, Quadratic, Support, certify
from gramian.solvers.support.damped import CalibrationSplit
from gramian.tables import figure, table

__all__ = ["add_solve"]


def add_solve(command: MakeCommand) -> None:
    """Add the command."""
    parser = command(
        "solve",
        "solve problem files and compare methods",
        "Solve layer-wise problems from files and print every layer's error, |X* V^T - X W^T|^2 / |X W^T|^2, evaluated in\n"
        "float64 from the answer alone; of several methods, a row for each and their means. The format is described in\n"
        "gramian.adapters.data.problem_files.",
        "  gramian solve problems/*.safetensors --method sparsegpt --sparsity 0.5\n"
        "  gramian solve problems/*.safetensors --method wanda sparsegpt l0 --sparsity 0.5 --per-row\n"
        "  gramian solve problems/*.safetensors --method fistapruner --sparsity 2:4 --heldout heldout --json result.json",
    )
    parser.add_argument("files", nargs="+", type=path, metavar="FILE", help="problem files")
    parser.add_argument(
        "--method", dest="methods", nargs="+", default=["fistapruner"], metavar="NAME",
        help="after the files, one or several that `gramian methods` lists, or MODULE:NAME for one of your own; each takes "
        "those of the given options that it has (fistapruner)",
    )  # fmt: skip
    add_settings(parser, {PruneConfig: "method"}, ("sparsity", "per_row", "options", "damping", "refit"))
    parser.add_argument(
        "--heldout",
        nargs="+",
        type=path,
        default=[],
        metavar="PATH",
        help="files, or directories of files, that are named like the problems and hold `gram_upper` of other text",
    )
    add_output(
        parser,
        "directory for the solutions: files named like the problems, with the tensor `weight`; with several "
        "methods they are in DIR/METHOD",
        ADDING,
    )
    add_html(parser)
    add_json(parser)
    parser.set_defaults(run=solve_problems, check=check_solve, needs_models=False)


def check_solve(args: argparse.Namespace) -> None:
    """End with exit code 2 where options contradict each other."""
    if (wrong := solve_usage(args)) is not None:
        args.usage_error(wrong)


def solve_problems(args: argparse.Namespace) -> None:
    """Solve every problem file by every method, and write the solutions, the rows and a table of them."""
    check_result(args.json)
    check_result(args.html)
    if args.out is not None:
        check_output(args.out, args.overwrite, adding=True)
        if len({file.name for file in args.files}) < len(args.files):
            raise ValueError("two problem files have the same name, so their solutions cannot share a directory")
    patterns = patterns_of(args)
    for file in args.files:  # every file is read once before the first is solved, which may take long
        read(file, args.heldout, patterns)
    contenders = contenders_of(args)
    places = {} if args.out is None else solution_files(args.out, args.methods, args.files)
    for folder in {place.parent for place in places.values()}:
        folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    with bar(len(args.files) * len(contenders), ", ".join(args.methods), "problem") as done:
        for file in args.files:
            problem, heldout, tokens = read(file, args.heldout, patterns)
            for contender in contenders:
                row, weights = solved(contender, problem, heldout, tokens)
                rows.append({"file": str(file), **row})
                if places:
                    metadata = {name: row[name] for name in ("method", "pattern")}
                    metadata |= {"relative_error": repr(row["relative_error"])}
                    write_tensors(places[contender.name, file], {"weight": weights}, metadata)
                done.update()
    text = shown(rows) if len(contenders) == 1 else f"{shown(rows, ['method'])}\n\n{summary(rows)}"
    write_page(args.html, lambda: page_of_solved(rows))
    emit(rows, text, args.json)


def solved(
    contender: Contender, problem: Quadratic, heldout: Quadratic | None, tokens: int
) -> tuple[dict[str, Any], np.ndarray]:
    """Solve a problem by one method; the result is the row of figures and the weights as they are stored."""
    started = time.perf_counter()
    solution = contender.solve(problem, contender.pattern, CalibrationSplit(tokens))
    seconds = time.perf_counter() - started
    single = np.asarray(solution.weights, dtype=np.float32)  # evaluated as it is stored
    sparse = not contender.wrapped
    figures = evaluated(problem, contender.pattern if sparse else None, single)
    if "lasso_gap" in solution.detail:
        figures["certificate"]["lasso_gap"] = solution.detail["lasso_gap"]
    if heldout is not None:
        figures["heldout_error"] = heldout.relative_error(single.astype(np.float64))
    how = {
        "options": dict(contender.options),
        "damping": contender.solve.damping,
        "refit": "support" if contender.solve.refit else "none",
    }
    row = {"method": contender.name, "pattern": str(contender.pattern), **figures, "status": solution.status.value}
    return {**row, "seconds": seconds, **how, "detail": dict(solution.detail)}, single


def read(file: Path, heldout: Sequence[Path], patterns: Sequence[Pattern]) -> tuple[Quadratic, Quadratic | None, int]:
    """Read a problem, the same operator's problem on held-out text where there is any, and the number of the first's tokens."""
    problem, metadata = read_problem(file)
    stated = str(metadata.get("tokens", problem.shape[1]))  # where it is not stated, as few tokens as there can be
    if not stated.isdecimal():
        raise ValueError(f"{file}: its metadata says tokens={stated!r}, expected a whole number")
    tokens = int(stated)
    try:
        for pattern in patterns:
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


def evaluated(problem: Quadratic, pattern: Pattern | None, weights: np.ndarray) -> dict[str, Any]:
    """Evaluate weights in float64, without anything that the solver states of them. pattern: that they have to satisfy."""
    weights = weights.astype(np.float64)
    mask = weights != 0
    if pattern is not None and not pattern.admits(mask):
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


def shown(rows: Sequence[dict[str, Any]], more: Sequence[str] = ()) -> str:
    """Write a table with a row per file and method. more: what a row says besides, as further columns after the file."""
    head = ["file", *more, "pattern", "zeros", "error", "held-out", "KKT", "LASSO gap", "s"]
    return table(
        head,
        [
            [
                Path(row["file"]).name.removesuffix(".safetensors"),
                *(row[name] for name in more),
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


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """Write a table with a row per method: means of its errors over the files, and the seconds of all of them."""
    of: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        of.setdefault(row["method"], []).append(row)
    return table(
        ["method", "mean error", "mean held-out", "s"],
        [
            [
                method,
                figure(fmean(row["relative_error"] for row in its)),
                figure(fmean(row["heldout_error"] for row in its) if "heldout_error" in its[0] else None),
                f"{sum(row['seconds'] for row in its):.2f}",
            ]
            for method, its in of.items()
        ],
    )
