"""`gramian prune`: its options, and which of them contradict each other."""

from __future__ import annotations

import argparse
from pathlib import Path

from gramian.adapters.cli.arguments import REPLACING, MakeCommand, add_json, add_model, add_output, add_verbose
from gramian.adapters.cli.options import add_settings, configs_from
from gramian.adapters.cli.types import path
from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.config.run_config import RunConfig
from gramian.adapters.data.source_names import has_labels

__all__ = ["add_prune", "check_prune"]

MEMORY = ("host", "offload", "stream")


def add_prune(command: MakeCommand) -> argparse.ArgumentParser:
    """Add the command, and return its parser."""
    parser = command(
        "prune",
        "prune a language model and save it",
        "Set half of a model's weights (or another part) to zero, layer by layer, so that every layer's output on\n"
        "calibration text changes as little as possible. Embeddings and the head are unchanged. The result loads with\n"
        "`from_pretrained` like the original; gramian.json beside it records how it was made and the layers' errors.\n"
        "Structured methods remove whole attention heads and hidden channels instead, so that the model becomes smaller.",
        "  gramian prune org/model --out sparse                          half of the weights\n"
        "  gramian prune ./model --out sparse --sparsity 2:4             2 of every 4 weights kept\n"
        "  gramian prune ./model --out sparse --method wanda --sparsity 0.6 --calibration text.txt\n"
        "  gramian prune ./model --out small --method numerical --ratio 0.2   a fifth of the blocks' parameters removed\n"
        "  gramian prune ./model --dry-run                               what it would take; nothing is done",
    )
    parser.usage = "gramian prune MODEL --out DIR [--method NAME] [--sparsity S | --ratio R] [options]"
    add_model(parser, dtype=False)
    parser.add_argument(
        "--memory", choices=MEMORY, default="host",
        help="the model in memory (host), in the host's memory with a block at a time on --device (offload), or a block at a "
        "time read from the checkpoint (stream) (%(default)s)",
    )  # fmt: skip
    add_output(parser, "directory for the pruned model; needed unless --dry-run", REPLACING)
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run that was interrupted, from its journal beside DIR"
    )
    parser.add_argument(
        "--recipe", type=path, metavar="FILE", help="settings from a YAML file or a gramian.json; options given here win"
    )
    add_settings(parser, {PruneConfig: "settings of every method", RunConfig: "calibration and saving"})
    parser.add_argument(
        "--evaluate", type=path, metavar="FILE.txt", help="measure perplexity on the first 8 windows of this text"
    )
    parser.add_argument("--no-perplexity", action="store_true", help="do not measure perplexity before and after")
    parser.add_argument("--dry-run", action="store_true", help="check everything, estimate memory and time, stop")
    add_verbose(parser)
    parser.add_argument(
        "--problems", type=path, metavar="DIR", help="write the operators' problems, as they were solved, there"
    )
    add_json(parser)
    parser.set_defaults(run=prune_here, check=check_prune)
    return parser


def prune_here(args: argparse.Namespace) -> None:
    """Prune a model and save it."""
    from gramian.adapters.cli.pruning import prune_model

    prune_model(args)


def check_prune(args: argparse.Namespace) -> None:
    """Set the settings as `args.config` and `args.texts`; end with exit code 2 where options contradict each other."""
    args.config, args.texts = configs_from(args)
    if args.out is None and not args.dry_run:
        args.usage_error("--out DIR is needed: where the pruned model goes")
    if args.texts.pad and args.config.recipe.granularity == "weights":
        args.usage_error(f"--pad is for methods that remove units, not for {args.config.method}")
    check_recovery(args)
    if any(map(has_labels, args.texts.sources)) and args.evaluate is not None:
        args.usage_error(
            "--evaluate measures perplexity, and of texts with labels it is answers that are measured, on those held out: "
            "leave it out"
        )
    if args.problems is not None and args.config.recipe.granularity == "units":
        args.usage_error(f"--problems is for methods that zero weights, not for {args.config.method}")
    if args.config.jobs > 1 and args.memory != "host":
        args.usage_error(
            f"--jobs {args.config.jobs} and --memory {args.memory} contradict each other: there is one block at a time"
        )
    if args.memory == "stream":
        for flag, present in (
            ("--evaluate", args.evaluate is not None), ("--pad", args.texts.pad),
            ("--calibration self", args.texts.calibration == "self"),
            ("--recovery-calibration self", args.texts.recovery_calibration == "self"),
        ):  # fmt: skip
            if present:
                args.usage_error(f"{flag} does not go with --memory stream, where no more than one block is in memory")
    if args.dry_run and (args.json or args.problems or args.resume):
        args.usage_error("--dry-run writes nothing: leave out --json, --problems and --resume")
    if args.problems and args.out and overlap(args.problems.absolute(), args.out.absolute()):
        args.usage_error("--problems and --out need separate directories")
    if args.json and any(args.json.absolute() == folder.absolute() for folder in (args.out, args.problems) if folder):
        args.usage_error("--json names a file, and --out and --problems directories: they cannot be the same")
    if args.evaluate is not None and args.no_perplexity:
        args.usage_error("--evaluate and --no-perplexity contradict each other")


def check_recovery(args: argparse.Namespace) -> None:
    """Report windows for recovery where nothing is fitted on them as bad usage."""
    method, own = args.config.recipe, args.texts.recovery_calibration
    if own is None:
        return
    if method.granularity == "weights" or method.modules == "experts":
        args.usage_error(
            f"--recovery-calibration {own} is for methods that first choose heads and channels, and {args.config.method} "
            "chooses and fits at once: leave it out"
        )
    if not args.config.own("compensate"):
        args.usage_error(
            f"--recovery-calibration {own} changes nothing, as nothing makes up for what {args.config.method} removes: add "
            "--compensate"
        )


def overlap(one: Path, other: Path) -> bool:
    """Whether one directory is the other, or inside it."""
    return one.is_relative_to(other) or other.is_relative_to(one)
