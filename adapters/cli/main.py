"""The `gramian` command and how it ends: 0 done, 1 failed with one line that says why, 2 bad usage, 130 interrupted."""

from __future__ import annotations

import argparse
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from gramian.adapters.cli.parser import check_usage, command_line
from gramian.adapters.extras import MODELS, need

__all__ = ["main"]

EXPECTED = (ImportError, ValueError, OSError, RuntimeError, MemoryError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (that of the process when None) and return its exit code. Bad usage raises SystemExit(2)."""
    parser = command_line()
    args = parser.parse_args(arguments)
    if args.command is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        check_usage(args)
        run(args)
    except KeyboardInterrupt:
        print("gramian: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if args.debug:
            traceback.print_exc()
        known = isinstance(error, EXPECTED) or type(error).__module__.startswith("safetensors")
        message = " ".join(str(error).split())
        if not known or not message:  # a fault of ours: the line should at least say of which kind
            message = f"{type(error).__name__}: {message} (--debug shows where)"
        print(f"gramian: error: {message}", file=sys.stderr)
        return 1
    return 0


def run(args: argparse.Namespace) -> None:
    """Do what the arguments say. Imports wait until here, because torch takes seconds, and `solve` and `verify` need none."""
    if args.command == "solve":
        from gramian.adapters.cli.solve import solve_problems

        solve_problems(args)
    elif args.command == "verify":
        from gramian.adapters.cli.verify import verify_claims

        verify_claims(args)
    else:
        need("models", MODELS, f"gramian {args.command}")
        with quiet_libraries(args.debug):
            run_on_model(args)


def run_on_model(args: argparse.Namespace) -> None:
    """The commands that load a model."""
    if args.command == "demo":
        from gramian.adapters.cli.demo import run_demo

        run_demo(args)
    elif args.command == "capture":
        from gramian.adapters.cli.capture import capture_problems

        capture_problems(args)
    else:
        from gramian.adapters.cli import commands

        {"prune": commands.prune_model, "perplexity": commands.measure_perplexity}[args.command](args)


@contextmanager
def quiet_libraries(debug: bool) -> Iterator[None]:
    """Nothing but our own output, except when debugging: what libraries say that matters arrives as an error."""
    if debug:
        yield
        return
    from huggingface_hub.utils import enable_progress_bars
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    enable_progress_bars()  # downloads are long work, and the line above silenced them too
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


if __name__ == "__main__":
    sys.exit(main())
