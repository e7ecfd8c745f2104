"""`gramian speed`: how fast a model is, and what it takes."""

from __future__ import annotations

import argparse

from gramian.adapters.cli.arguments import MakeCommand, add_json, add_model
from gramian.adapters.cli.output import emit
from gramian.adapters.cli.types import positive

__all__ = ["add_speed"]


def add_speed(command: MakeCommand) -> None:
    """Add the command and its options."""
    parser = command(
        "speed",
        "time a model, alone or in turn with another",
        "Tokens a second as prompts are read (prefill) and as tokens are made (decode, greedy, with a cache), at several\n"
        "batch sizes and lengths; peak memory, parameters (all, and those that a token meets), bytes on the disk, seconds\n"
        "to load. Two models take turns, each in a process of its own; both are in memory. Medians and quartiles.",
        "  gramian speed ./smaller --against org/model\n  gramian speed ./smaller --batch 1 8 --length 128 512 --repeats 5",
    )
    add_model(parser)
    parser.add_argument("--against", metavar="MODEL", help="another model that it takes turns with, given as MODEL is (none)")
    parser.add_argument("--batch", type=positive, nargs="+", default=[1, 4], metavar="N", help="prompts read at a time (1 4)")
    parser.add_argument(
        "--length", type=positive, nargs="+", default=[64, 256], metavar="N", help="tokens of a prompt (64 256)"
    )
    parser.add_argument("--tokens", type=positive, default=8, metavar="N", help="tokens made after a prompt (%(default)s)")
    parser.add_argument(
        "--repeats", type=positive, default=3, metavar="N", help="runs that count, after one that does not (%(default)s)"
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="threads on a CPU (as many as torch takes)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the prompts (%(default)s)")
    add_json(parser)
    parser.set_defaults(run=time_model)


def time_model(args: argparse.Namespace) -> None:
    """Time the model, and print what it took."""
    from gramian.adapters.evaluation.speeds import speed

    found = speed(
        args.model, args.against, batch=args.batch, length=args.length, tokens=args.tokens, repeats=args.repeats,
        device=args.device, dtype=args.dtype, threads=args.threads, seed=args.seed,
    )  # fmt: skip
    emit(found.as_dict(), f"{found}\n{found.seconds:.0f} s in all", args.json)
