"""`gramian demo` prunes a real language model; everything that it needs is installed with it."""

from __future__ import annotations

import argparse

from gramian.adapters.cli.arguments import REPLACING, MakeCommand, add_output, add_verbose
from gramian.adapters.cli.prune import add_prune, check_prune
from gramian.progress import say

__all__ = ["add_demo"]

# Sized for eight minutes and 6 GiB on two cores.
SPARSITY = 0.5
SAMPLES = 16  # windows to calibrate on
HELDOUT = 4  # windows for errors and perplexity, from other parts of the same text
LENGTH = 512
SEED = 0
MAX_LAMBDAS = 6  # lambdas that FISTAPruner tries, half as many as by default


def add_demo(command: MakeCommand) -> None:
    """Add the command."""
    parser = command(
        "demo",
        "prune a small real language model and show what it cost",
        "Prune gemma-3-270m (from the extra `demo`) to 50 % zeros with FISTAPruner, calibrated on English text that\n"
        "ships with Python; print perplexity before and after and the error of every layer; save the pruned model.\n"
        "Minutes on two cores.",
        "  gramian demo\n  gramian demo --out sparse-gemma",
    )
    add_output(parser, "directory for the pruned model (default %(default)s)", REPLACING, default="gramian-demo")
    add_verbose(parser)
    parser.set_defaults(run=run_demo)


def run_demo(args: argparse.Namespace) -> None:
    """Load, prune, measure and save the demonstration model."""
    from gramian.adapters.cli.checks import check_places
    from gramian.adapters.cli.pruning import prune_model

    say(f"gemma-3-270m, {100 * SPARSITY:g} % zeros by FISTAPruner")
    settings = {
        "sparsity": SPARSITY, "samples": SAMPLES, "heldout": HELDOUT, "length": LENGTH, "seed": SEED,
        "set": f"max_lambdas={MAX_LAMBDAS}", "out": args.out,
    }  # fmt: skip
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    words += ["--overwrite"] * args.overwrite + ["--verbose"] * args.verbose
    prune = add_prune(lambda *_: argparse.ArgumentParser()).parse_args(["demo", *words])
    prune.command, prune.usage_error = "prune", args.usage_error
    check_prune(prune)
    check_places(prune)
    prune_model(prune)
