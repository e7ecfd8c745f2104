"""`gramian estimate`: what a run would take, by one process or by many, from a model's shape alone."""

from __future__ import annotations

import argparse

from gramian.adapters.cli.arguments import MakeCommand, add_json, add_model
from gramian.adapters.cli.options import add_settings, configs_from
from gramian.adapters.cli.output import emit
from gramian.adapters.cli.types import positive
from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.config.run_config import RunConfig
from gramian.progress import say

__all__ = ["add_estimate"]


def add_estimate(command: MakeCommand) -> None:
    """Add the command."""
    parser = command(
        "estimate",
        "say what a run would take, by one process or by many",
        "Estimate memory, time and traffic of `gramian prune` from the shape of a model, whose weights need not be there, and\n"
        "with --ranks what each of several processes takes that torchrun starts, and how long all of them do.",
        "  gramian estimate org/model --method l0 --ranks 8\n"
        "  gramian estimate ./config-only --method sparsegpt --ranks 64 --gflops 50000 50000 --bandwidth 25",
    )
    parser.add_argument("--ranks", type=positive, default=1, metavar="N", help="processes that share the run (%(default)s)")
    parser.add_argument(
        "--gflops", type=positive, nargs=2, metavar=("SINGLE", "DOUBLE"),
        help="10^9 operations a second of float32 and float64 products of a process (measured here)",
    )  # fmt: skip
    parser.add_argument(
        "--bandwidth",
        type=positive,
        default=1,
        metavar="GB/s",
        help="10^9 bytes a second that a process receives (%(default)s)",
    )
    add_settings(parser, {RunConfig: "calibration"}, ("samples", "length", "heldout"))
    add_settings(parser, {PruneConfig: "settings of every method"})
    add_model(parser)
    add_json(parser)
    parser.set_defaults(run=estimate_run, check=check_estimate)


def check_estimate(args: argparse.Namespace) -> None:
    """Set the settings as `args.config` and `args.texts`; end with exit code 2 where they contradict each other."""
    args.config, args.texts = configs_from(args)


def estimate_run(args: argparse.Namespace) -> None:
    """Print what a run would take."""
    from gramian.adapters.devices import usable_device
    from gramian.adapters.estimates.figures import Rates
    from gramian.adapters.estimates.runs import run_estimate
    from gramian.adapters.estimates.shared import shared_estimate
    from gramian.adapters.run.shapes import shape_at

    config, texts = args.config, args.texts
    model = shape_at(args.model, args.dtype, lambda: say(f"loading {args.model}"))
    rates = Rates(*(1e9 * each for each in args.gflops)) if args.gflops else Rates.measured(usable_device(args.device))
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 512
    windows = texts.samples, texts.length or min(512, context)
    found = run_estimate(model, windows, config, heldout=texts.apart, rates=rates, device=args.device)
    shared = None
    if args.ranks > 1:
        shared = shared_estimate(model, windows, config, args.ranks, 1e9 * args.bandwidth, found, heldout=texts.apart)
    figures = {
        "seconds": dict(found.seconds),
        "memory": dict(found.memory),
        "peak": found.peak,
        "covered": found.covered,
        "shared": None if shared is None else shared.as_dict(),
    }
    emit(figures, f"{found}" if shared is None else f"{found}\n\n{shared}", args.json)
