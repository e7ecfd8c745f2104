"""`gramian capture` and `gramian solve`: layers out of a model into problem files, and problem files to answers."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from gramian.adapters.cli.commands import check_family, check_result
from gramian.adapters.cli.parser import damping_of, options_of, pattern_of
from gramian.adapters.data.calibration import calibration_tokens, check_source
from gramian.adapters.data.problem_files import read_gram, read_problem, write_problem, write_tensors
from gramian.adapters.data.tokens import Tokens, check_windows
from gramian.adapters.files import write_json
from gramian.adapters.methods.registry import resolve
from gramian.adapters.models.checkpoint import check_output, load_model
from gramian.adapters.models.families import blocks_of, family_of, operator_names
from gramian.adapters.models.layers import Layer
from gramian.adapters.report import figure, table
from gramian.adapters.run.blocks import batches_of, enter, run_block
from gramian.adapters.run.hooks import feed
from gramian.solvers import Moments, Pattern, Quadratic, Support, certify
from gramian.solvers.support.damped import CalibrationSplit, DampedMethod

__all__ = ["capture_problems", "solve_problems"]


def capture_problems(args: argparse.Namespace) -> None:
    check_output(args.out, args.overwrite, adding=True)
    check_source(args.calibration)
    check_family(args.model)
    print(f"loading {args.model}", flush=True)
    model, tokenizer = load_model(args.model, dtype=args.dtype, device=args.device)
    names = operator_names(model, args.include, args.exclude)
    tokens = calibration_tokens(
        args.calibration,
        tokenizer,
        samples=args.samples,
        length=args.length,
        seed=args.seed,
        vocabulary=model.config.get_text_config().vocab_size,
        model=model,
    )
    check_windows(model, tokens.windows, "calibration windows")
    args.out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{args.out.name}.", dir=args.out.absolute().parent) as draft:
        write_blocks(model, names, tokens, Path(draft), args.model)
        publish(Path(draft), args.out)
    print(f"{len(names)} problem files in {args.out}")


@torch.no_grad()
def write_blocks(model: Any, names: Sequence[str], tokens: Tokens, folder: Path, source: str) -> None:
    """One file per operator, from the dense model's activations; the moments of one block exist at a time."""
    family, wanted = family_of(model), set(names)
    hidden, calls = enter(model, batches_of(tokens.windows))
    with tqdm(total=len(names), desc="capture", unit="operator") as bar:
        for index, block in enumerate(blocks_of(model)):
            shared: list[tuple[list[Layer], Moments]] = []  # layers of one stage share their input
            for stage in family.stages:
                paths = {operator: f"{family.blocks}.{index}.{operator}" for operator in stage}
                layers = [Layer(full, block.get_submodule(path)) for path, full in paths.items() if full in wanted]
                if layers:
                    shared.append((layers, layers[0].moments))
            receivers = {layers[0].module: receiver(layers[0].name, moments) for layers, moments in shared}
            hidden = run_block(block, calls[index], hidden, receivers)
            for layers, moments in shared:
                for layer in layers:
                    write_problem(
                        folder / f"{layer.name}.safetensors",
                        layer.problem(moments),
                        tokens=moments.tokens,
                        metadata={
                            "model": source,
                            "operator": layer.name,
                            "layer": str(index),
                            "calibration": f"{tokens.source}, sha256 {tokens.digest}",
                        },
                    )
                    bar.update()


def receiver(name: str, moments: Moments) -> Callable[[int, torch.Tensor], None]:
    return lambda _, inputs: feed(name, moments, inputs)


def publish(draft: Path, out: Path) -> None:
    """Move finished files to where they belong."""
    out.mkdir(exist_ok=True)
    for file in sorted(draft.iterdir()):
        os.replace(file, out / file.name)


def solve_problems(args: argparse.Namespace) -> None:
    check_result(args.json)
    if args.out is not None:
        check_output(args.out, args.overwrite, adding=True)
        if len({file.name for file in args.files}) < len(args.files):
            raise ValueError("two problem files have the same name, so their solutions cannot share a directory")
    pattern = pattern_of(args)
    for file in args.files:  # all are read once before the first is solved, which may take long
        load(file, args.heldout, pattern)
    estimate = DampedMethod(resolve(args.method).tried(options_of(args), pattern), damping_of(args), args.refit)
    rows: list[dict[str, Any]] = []
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
    for file in tqdm(args.files, desc=args.method, unit="problem"):
        problem, heldout, tokens = load(file, args.heldout, pattern)
        started = time.perf_counter()
        solution = estimate(problem, pattern, CalibrationSplit(tokens))
        seconds = time.perf_counter() - started
        single = np.asarray(solution.weights, dtype=np.float32)  # judged as it is stored
        row = {"file": str(file), "method": args.method, "pattern": str(pattern), **judged(problem, pattern, single)}
        if "lasso_gap" in solution.detail:
            row["certificate"]["lasso_gap"] = solution.detail["lasso_gap"]
        if heldout is not None:
            row["heldout_error"] = heldout.relative_error(single.astype(np.float64))
        how = {"options": options_of(args), "damping": estimate.damping, "refit": estimate.refit}
        rows.append({**row, "status": solution.status.value, "seconds": seconds, **how, "detail": dict(solution.detail)})
        if args.out is not None:
            metadata = {"method": args.method, "pattern": str(pattern), "relative_error": repr(row["relative_error"])}
            write_tensors(args.out / file.name, {"weight": single}, metadata)
    if args.json is not None:
        write_json(args.json, rows)
    print(shown(rows))


def load(file: Path, heldout: Sequence[Path], pattern: Pattern) -> tuple[Quadratic, Quadratic | None, int]:
    """A problem, the same operator's problem on held-out text when there is any, and how many tokens the first is of."""
    problem, metadata = read_problem(file)
    said = str(metadata.get("tokens", problem.shape[1]))  # unsaid: as few as could be
    if not said.isdecimal():
        raise ValueError(f"{file}: its metadata says tokens={said!r}, expected a whole number")
    tokens = int(said)
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
    if problem.slope is not None:  # X* != X: moments of X* alone do not say what the target was
        other = read_problem(found[0])[0]
        if other.shape != problem.shape or not np.array_equal(other.anchor, problem.anchor):
            raise ValueError(f"{found[0]} does not fit {file}: their weights {other.shape} and {problem.shape} differ")
        return problem, other, tokens
    try:
        return problem, Quadratic(read_gram(found[0]), problem.anchor), tokens
    except ValueError as error:
        raise ValueError(f"{found[0]} does not fit {file}: {error}") from error


def judged(problem: Quadratic, pattern: Pattern, weights: np.ndarray) -> dict[str, Any]:
    """What can be said of the weights alone, in float64, with no word from the solver."""
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
    """One line per file."""
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
