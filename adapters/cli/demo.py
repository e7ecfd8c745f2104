"""`gramian demo` prunes a real language model; everything that it needs is installed with it."""

from __future__ import annotations

import argparse

from gramian.adapters.cli.checks import check_places
from gramian.adapters.cli.commands import prune_model
from gramian.adapters.cli.parser import check_usage, command_line
from gramian.progress import say

__all__ = ["run_demo"]

# Sized for eight minutes and 6 GiB on two cores.
MODEL = "demo"  # gemma-3-270m, which takes 20 seconds to load
SPARSITY = 0.5
SAMPLES = 16  # windows to calibrate on
HELDOUT = 4  # windows for errors and perplexity, from other parts of the same text
LENGTH = 512
SEED = 0
MAX_LAMBDAS = 6  # lambdas that FISTAPruner tries, half as many as by default


def run_demo(args: argparse.Namespace) -> None:
    """Load, prune, measure and save the demonstration model."""
    say(f"gemma-3-270m, {100 * SPARSITY:g} % zeros by FISTAPruner")
    settings = {
        "sparsity": SPARSITY, "samples": SAMPLES, "heldout": HELDOUT, "length": LENGTH, "seed": SEED,
        "set": f"max_lambdas={MAX_LAMBDAS}", "out": args.out,
    }  # fmt: skip
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    prune = command_line().parse_args(
        ["prune", MODEL, *words, *(["--overwrite"] if args.overwrite else []), *(["--verbose"] if args.verbose else [])]
    )
    check_usage(prune)
    check_places(prune)
    prune_model(prune)
