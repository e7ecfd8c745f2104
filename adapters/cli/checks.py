"""Mistakes that the file system alone shows. They are reported at once, since importing torch takes seconds."""

from __future__ import annotations

import argparse
from pathlib import Path

from gramian.adapters.cli.export import check_export
from gramian.adapters.data.question_files import is_question_file, read_questions
from gramian.adapters.data.source_names import check_source
from gramian.adapters.files import REPORT, check_output, check_result
from gramian.adapters.models.places import locate
from gramian.adapters.run.journal import blocks_done, refuse_journal
from gramian.adapters.training.places import RUN, refuse_state, state_of
from gramian.launcher import follower

__all__ = ["check_places", "how_to_go_on"]


def check_places(args: argparse.Namespace) -> None:
    """Raise for outputs that cannot be written, texts and questions that are not there, and models that are nowhere.

    Errors are those of `check_output`, `check_result`, `check_source` and `locate`. `demo` is not looked for here,
    because finding it assembles it.
    """
    given = vars(args)
    if given.get("out") is not None and not follower():
        replaced = args.overwrite or (args.command == "prune" and args.resume)  # by the run that is gone on with
        check_output(args.out, replaced, adding=args.command == "capture")
        if args.command == "prune":
            refuse_journal(args.out, args.resume, args.overwrite)
        if args.command == "tune":
            refuse_state(args.out, args.resume, args.overwrite)
    if given.get("problems") is not None and not follower():
        if not args.resume and args.problems.is_dir() and any(args.problems.iterdir()):
            raise FileExistsError(f"{args.problems} is not empty: choose an empty directory for --problems, or a new one")
        check_output(args.problems, overwrite=args.resume, adding=args.resume)
    if args.command == "export":
        check_export(args)
    check_result(given.get("json"))
    check_result(given.get("html"))
    if "texts" in given:
        for source in args.texts.sources:
            check_source(source)
        if args.texts.recovery is not None:
            check_source(args.texts.recovery[0])
    for text in (given.get("evaluate"), given.get("text"), given.get("heldout_text")):
        check_text(text)
    for file in given.get("tasks") or ():
        if is_question_file(file):
            read_questions(Path(file).expanduser())
    shape_alone = args.command == "estimate" and (Path(args.model) / "config.json").is_file()
    for model in (given.get("model"), given.get("teacher"), given.get("dense"), given.get("against")):
        if model not in (None, "demo") and not shape_alone:
            locate(model)


def how_to_go_on(args: argparse.Namespace, started: float) -> str:
    """What to do after a command was interrupted, now. started: when it began, in seconds since 1970."""
    if args.command == "tune":
        return how_tuning_goes_on(args)
    if args.command != "prune" or args.out is None or args.dry_run:
        return ""
    if done := blocks_done(args.out):
        return f"{done} blocks are done, and the same command{'' if args.resume else ' with --resume'} goes on from there"
    if (report := args.out / REPORT).is_file() and report.stat().st_mtime >= started:
        return f"the model is saved in {args.out}"
    return "nothing is done that could be kept, and the same command begins again"


def how_tuning_goes_on(args: argparse.Namespace) -> str:
    """The same of `gramian tune`."""
    if (state_of(args.out) / RUN).is_file():
        return f"the same command{'' if args.resume else ' with --resume'} goes on from the last check of held-out loss"
    return "nothing is done that could be kept, and the same command begins again"


def check_text(path: Path | None) -> None:
    """Raise FileNotFoundError if there is no such file."""
    if path is not None and not path.is_file():
        raise FileNotFoundError(f"no text file {str(path)!r}")
