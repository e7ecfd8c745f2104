"""`gramian capture` writes layers of a model as problem files."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from gramian.adapters.cli.commands import check_family
from gramian.adapters.data.problem_files import write_problem
from gramian.adapters.data.sources import calibration
from gramian.adapters.data.tokens import Tokens, check_windows
from gramian.adapters.models.families import blocks_of, family_of, operator_names
from gramian.adapters.models.layers import Layer
from gramian.adapters.models.loading import load
from gramian.adapters.run.blocks import batches_of, enter, run_block
from gramian.adapters.run.hooks import feed
from gramian.progress import bar, say
from gramian.solvers import Moments

__all__ = ["capture_problems"]


def capture_problems(args: argparse.Namespace) -> None:
    """Load a model, run calibration text through it, and write a problem file for every operator that is chosen."""
    check_family(args.model)
    say(f"loading {args.model}")
    model, tokenizer = load(args.model, dtype=args.dtype, device=args.device)
    names = operator_names(model, args.include, args.exclude)
    tokens = calibration(
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
    """Write one file per operator, from the dense model's activations; the moments of one block exist at a time."""
    family, wanted = family_of(model), set(names)
    hidden, calls = enter(model, batches_of(tokens.windows))
    with bar(len(names), "capture", "operator") as done:
        for index, block in enumerate(blocks_of(model)):
            shared: list[tuple[list[Layer], Moments]] = []  # layers of one stage share their input, and so their moments
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
                    done.update()


def receiver(name: str, moments: Moments) -> Callable[[int, torch.Tensor], None]:
    """Make a function that adds a batch of inputs to the moments of a layer."""
    return lambda _, inputs: feed(name, moments, inputs)


def publish(draft: Path, out: Path) -> None:
    """Move finished files to the directory that they are for."""
    out.mkdir(exist_ok=True)
    for file in sorted(draft.iterdir()):
        os.replace(file, out / file.name)
