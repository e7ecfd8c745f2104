"""`gramian capture` writes layers of a model as problem files."""

from __future__ import annotations

import argparse

from gramian.adapters.cli.commands import longest_window
from gramian.adapters.data.problem_files import problem_bytes
from gramian.adapters.data.sources import calibration
from gramian.adapters.data.tokens import check_windows
from gramian.adapters.drafts import new_files
from gramian.adapters.files import check_space
from gramian.adapters.models.discovery import stages_of
from gramian.adapters.models.loading import load
from gramian.adapters.models.modes import eval_mode
from gramian.adapters.passes.problems import WriteProblems
from gramian.adapters.run.blocks import InMemory
from gramian.adapters.run.forward import batches_of
from gramian.adapters.run.walk import walk
from gramian.adapters.targets import chosen_operators, shape_of
from gramian.progress import bar, say

__all__ = ["capture_problems"]


def capture_problems(args: argparse.Namespace) -> None:
    """Load a model, run calibration text through it, and write a problem file for every operator that is chosen."""
    say(f"loading {args.model}")
    model, tokenizer = load(args.model, dtype=args.dtype, device=args.device)
    names = chosen_operators(model, args.config)
    texts = args.texts
    tokens = calibration(
        texts.sources[0], tokenizer, samples=texts.samples, length=texts.length or longest_window(model, tokenizer, 512),
        seed=texts.seed, vocabulary=model.config.get_text_config().vocab_size, model=model,
    )  # fmt: skip
    check_windows(model, tokens.windows, "calibration windows")
    check_space(args.out, sum(problem_bytes(shape_of(model, name), moved=False) for name in names))
    metadata = {"model": args.model, "calibration": f"{tokens.source}, sha256 {tokens.digest}"}
    with new_files(args.out.expanduser().resolve()) as draft:
        with eval_mode(model), bar(len(names), "capture", "operator") as shown:
            blocks, batches, chosen = InMemory(model), batches_of(tokens), frozenset(names)
            each = WriteProblems(blocks.paths, stages_of(model), chosen, draft, metadata, len(batches), shown.update)
            walk(each, blocks, batches)
    print(f"{len(names)} problem files in {args.out}")
