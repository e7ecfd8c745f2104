"""Mistakes that the file system alone shows. They are reported at once, since importing torch takes seconds."""

from __future__ import annotations

import argparse
from pathlib import Path

from gramian.adapters.data.source_names import check_source
from gramian.adapters.files import REPORT, check_output, check_result
from gramian.adapters.models.places import locate
from gramian.adapters.run.journal import blocks_done, refuse_journal
from gramian.launcher import follower

__all__ = ["check_places", "how_to_go_on"]


def check_places(args: argparse.Namespace) -> None:
    """Raise for outputs that cannot be written, texts that are not there, and a model that is nowhere.

    Errors are those of `check_output`, `check_result`, `check_source` and `locate`. `demo` is not looked for here,
    because finding it assembles it.
    """
    given = vars(args)
    if given.get("out") is not None and not follower():
        check_output(args.out, args.overwrite or getattr(args, "resume", False), adding=args.command == "capture")
        if args.command == "prune":
            refuse_journal(args.out, args.resume, args.overwrite)
    if given.get("problems") is not None and not follower():
        if not args.resume and args.problems.is_dir() and any(args.problems.iterdir()):
            raise FileExistsError(f"{args.problems} is not empty: choose an empty directory for --problems, or a new one")
        check_output(args.problems, overwrite=args.resume, adding=args.resume)
    check_result(given.get("json"))
    if "texts" in given:
        check_source(args.texts.calibration)
    for text in (given.get("evaluate"), given.get("text")):
        check_text(text)
    shape_alone = args.command == "estimate" and (Path(args.model) / "config.json").is_file()
    if given.get("model", "demo") != "demo" and not shape_alone:
        locate(args.model)


def how_to_go_on(args: argparse.Namespace, started: float) -> str:
    """What to do after a command was interrupted, now. started: when it began, in seconds since 1970."""
    if args.command != "prune" or args.out is None or args.dry_run:
        return ""
    if done := blocks_done(args.out):
        return f"{done} blocks are done, and the same command{'' if args.resume else ' with --resume'} goes on from there"
    if (report := args.out / REPORT).is_file() and report.stat().st_mtime >= started:
        return f"the model is saved in {args.out}"
    return "nothing is done that could be kept, and the same command begins again"


def check_text(path: Path | None) -> None:
    """Raise FileNotFoundError if there is no such file."""
    if path is not None and not path.is_file():
        raise FileNotFoundError(f"no text file {str(path)!r}")
