"""`gramian demo` prunes a real language model; everything that it needs is installed with it."""

from __future__ import annotations

import argparse

from gramian.adapters.cli.commands import prune_and_save
from gramian.adapters.data.texts import read_texts
from gramian.adapters.models.loading import load
from gramian.progress import say

__all__ = ["run_demo"]

# Sized for eight minutes and 6 GiB on two cores.
MODEL = "demo"  # gemma-3-270m, which takes 45 seconds to load
SPARSITY = 0.5
SAMPLES = 16  # windows to calibrate on
HELDOUT = 4  # windows for errors and perplexity, from other parts of the same text
LENGTH = 512
SEED = 0
MAX_LAMBDAS = 6  # lambdas that FISTAPruner tries, half as many as by default


def run_demo(args: argparse.Namespace) -> None:
    """Load, prune, measure and save the demonstration model."""
    say(f"gemma-3-270m, {100 * SPARSITY:g} % zeros by FISTAPruner")
    model, tokenizer = load(MODEL)
    read = read_texts(model, tokenizer, "builtin", SAMPLES, LENGTH, SEED, HELDOUT)
    how = {"method": "fistapruner", "sparsity": SPARSITY, "options": {"max_lambdas": MAX_LAMBDAS}}
    prune_and_save(model, tokenizer, "gemma-3-270m", read, how, args.out, args.overwrite)
