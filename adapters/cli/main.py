"""The `gramian` command. It ends with 0 when it is done, 1 when it failed (one line says why), 2 for bad usage, 130, 143 or 129
when SIGINT, SIGTERM or SIGHUP has ended it, and 141, in silence, when the program that read its output has closed the pipe, as
`head` does (0 where that was help, whose errors argparse ignores)."""

from __future__ import annotations

import argparse
import logging
import re
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from gramian.adapters.cli.checks import check_places, how_to_go_on
from gramian.adapters.cli.output import abandon, flushed
from gramian.adapters.cli.parser import check_usage, command_line
from gramian.adapters.methods.registry import file_of
from gramian.extras import MODELS, need
from gramian.launcher import PeerLost, follower, restarted
from gramian.progress import draws_bars, quietly, say
from gramian.signals import farewell, foretell
from gramian.spelling import meant

__all__ = ["main"]

EXPECTED = (ImportError, ValueError, OSError, RuntimeError, MemoryError)
CLOSED = 141  # what a shell reports of a program that SIGPIPE, signal 13, has ended: 128 + 13


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (the process's own when None) and return its exit code. Bad usage raises SystemExit(2)."""
    foretell(lambda: "")
    try:
        with flushed():
            return exit_code(arguments)
    except KeyboardInterrupt:  # where the process is not the command's own, which `end_by_signals` ends
        print(farewell(), file=sys.stderr)
        return 130
    except BrokenPipeError:
        code = CLOSED
    except OSError as error:  # of the flush: a disk may be full
        print(f"gramian: error: {error}", file=sys.stderr)
        code = 1
    abandon()
    return code


def exit_code(arguments: Sequence[str] | None) -> int:
    """Do what `main` does, but for output that cannot be written."""
    parser = command_line()
    args, strange = parser.parse_known_args(arguments)
    if strange and args.command is None:
        parser.error(f"unrecognized arguments: {' '.join(strange)}")
    if strange:
        near = meant(strange[0].partition("=")[0], re.findall(r"--[a-z][a-z-]*", args.usage_help()))
        args.usage_error(f"unrecognized arguments: {' '.join(strange)}{near}")
    if args.command is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        check_usage(args)
        foretell(partial(how_to_go_on, args, time.time()))
        with quietly(args.quiet or follower()), warnings.catch_warnings():
            if not args.debug:
                warnings.simplefilter("ignore")
            run(args)
    except BrokenPipeError:
        raise
    except PeerLost as error:
        if not follower():
            hint = how_to_go_on(args, time.time())
            print(f"gramian: error: {error}{f'. {hint[0].upper()}{hint[1:]}' if hint else ''}", file=sys.stderr)
        return 1
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # of a library in Rust
            raise
        if args.debug:
            traceback.print_exc()
        known = isinstance(error, EXPECTED) or type(error).__module__.startswith("safetensors")
        message = " ".join(str(error).split())
        if not known or not message:  # the fault is ours, and the line says at least of which kind it is
            message = f"{type(error).__name__}: {message} (--debug shows where)"
        print(f"gramian: error: {message}", file=sys.stderr)
        return 1
    return 0


def run(args: argparse.Namespace) -> None:
    """Do what the arguments say. What takes seconds to import, as torch does, is imported by the commands that need it."""
    for name in [args.config.method] if "config" in args else getattr(args, "methods", ()):
        if (file := file_of(name)) is not None:
            say(f"the method {name} is what {file} says")
    if not args.needs_models:
        args.run(args)
    else:
        need("models", MODELS, f"gramian {args.command}")
        if args.command == "prune" and restarted():
            args.resume = True
        with shown_messages():
            check_places(args)
            with quiet_libraries(args.debug):
                args.run(args)


@contextmanager
def quiet_libraries(debug: bool) -> Iterator[None]:
    """Silence other libraries, except when debugging: whatever they report that matters arrives as an error."""
    if debug:
        yield
        return
    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars
    from transformers.utils import logging as theirs

    verbosity, bars = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    theirs.set_verbosity(logging.ERROR)
    theirs.disable_progress_bar()
    if draws_bars():  # downloads are long work, and the line above silenced their bars too
        enable_progress_bars()
    else:
        disable_progress_bars()
    try:
        yield
    finally:
        theirs.set_verbosity(verbosity)
        if bars:
            theirs.enable_progress_bar()


class Remarks(logging.Handler):
    """Whatever is logged is a remark."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say it."""
        say(self.format(record))


@contextmanager
def shown_messages() -> Iterator[None]:
    """Say what the library logs while the context is open."""
    ours, shown = logging.getLogger("gramian"), Remarks()
    before = ours.level
    ours.addHandler(shown)
    ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        ours.removeHandler(shown)
        ours.setLevel(before)


if __name__ == "__main__":
    sys.exit(main())
