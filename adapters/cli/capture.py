"""`gramian capture`: layers of a model as problem files."""

from __future__ import annotations

import argparse

from gramian.adapters.cli.arguments import ADDING, MakeCommand, add_model, add_output
from gramian.adapters.cli.options import add_settings, configs_from
from gramian.adapters.cli.types import expression
from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.config.run_config import RunConfig
from gramian.progress import bar, say

__all__ = ["add_capture"]


def add_capture(command: MakeCommand) -> None:
    """Add the command."""
    parser = command(
        "capture",
        "write layers as problem files for research",
        "Run calibration text through a model and write one safetensors file per operator: its weight and the mean of\n"
        "x x^T over its inputs, which is all a layer-wise method needs. `gramian solve` reads them, without the model.",
        "  gramian capture org/model --include 'layers\\.(0|8)\\..*down_proj' --out problems\n"
        "  gramian capture org/model --include down_proj --calibration other.txt --out heldout",
    )
    add_model(parser)
    add_output(parser, "directory for the files", ADDING, required=True)
    add_settings(parser, {RunConfig: "calibration"}, ("calibration", "samples", "length", "seed"))
    add_settings(parser, {PruneConfig: "operators"}, ("exclude", "blocks"))
    parser.add_argument("--include", type=expression, required=True, metavar="REGEX", help="the operators, by their full name")
    parser.set_defaults(run=capture_problems, check=check_capture)


def check_capture(args: argparse.Namespace) -> None:
    """Set the settings as `args.config` and `args.texts`; end with exit code 2 where there are texts of several domains."""
    args.config, args.texts = configs_from(args)
    if len(args.texts.sources) > 1:
        args.usage_error("a problem file holds moments of one text: capture each --calibration into a directory of its own")


def capture_problems(args: argparse.Namespace) -> None:
    """Load a model, run calibration text through it, and write a problem file for every operator that is chosen."""
    from gramian.adapters.data.context import usual_length
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

    say(f"loading {args.model}")
    model, tokenizer = load(args.model, dtype=args.dtype, device=args.device)
    names = chosen_operators(model, args.config)
    texts = args.texts
    tokens = calibration(
        texts.sources[0], tokenizer, samples=texts.samples, length=texts.length or usual_length(model, tokenizer),
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
