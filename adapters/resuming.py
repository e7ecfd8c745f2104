"""Runs that can be interrupted: what is done is kept in a journal beside the output, and the same run goes on from there."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.data.tokens import Tokens
from gramian.adapters.estimates.runs import disk_space
from gramian.adapters.files import check_space
from gramian.adapters.fingerprint import fingerprint
from gramian.adapters.pipeline import check_run, run
from gramian.adapters.removal.report import StructuredReport
from gramian.adapters.report import Report
from gramian.adapters.run.journal import Journal, differences, journal_of
from gramian.adapters.run.streaming import Stream

__all__ = ["Finished", "journaled", "started"]


class Finished(Exception):
    """The run is already finished; its message says so."""


def finished_as(out: Path, expected: Mapping[str, Any]) -> bool:
    """Whether a model at `out` is that of a finished run with this fingerprint."""
    try:
        document = json.loads((out / "gramian.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    found = document.get("fingerprint") if isinstance(document, Mapping) else None
    return isinstance(found, Mapping) and not differences(found, json.loads(json.dumps(expected)))


def started(out: Path, expected: Mapping[str, Any], resume: bool, space: int) -> Journal:
    """Begin the journal of a run that needs so many bytes of space, or go on with it.

    OSError where the disk has no space for the journal and the result. `Finished`, with `resume`, where a run with this
    fingerprint has already written `out`.
    """
    journal = Journal(journal_of(out), expected)
    if resume and finished_as(out.expanduser().resolve(), journal.fingerprint):
        journal.clear()
        raise Finished(f"{out} is finished: it was written by this very run")
    there = sum(file.stat().st_size for file in journal_of(out).glob("*")) if resume else 0
    check_space(out, space - there)
    journal.start()
    return journal


def journaled(
    stream: Stream,
    tokens: Tokens,
    config: PruneConfig,
    *,
    out: Path,
    heldout: torch.Tensor | None = None,
    problems: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    document: Callable[[Report | StructuredReport], dict[str, Any]] = lambda report: report.to_dict(),
) -> Report | StructuredReport:
    """Prune a checkpoint of which one block at a time is in memory, and save it as `out`.

    document(report) is what `gramian.json` says, beside the fingerprint of the run. Errors are those of `run`, `Journal` and
    `Stream.save`; `Finished` where nothing is left to do.
    """
    plan = check_run(stream.blocks, config)
    expected = fingerprint(
        stream.blocks.digest, tokens, heldout, config, stream.blocks.place, {"dtype": str(stream.blocks.storage)}
    )
    journal = started(out, expected, resume, disk_space(stream.model, config, plan))
    try:
        report = run(
            stream.blocks, tokens, config, heldout=heldout, problems=problems, journal=journal, cut=False, progress=progress
        )
        keep = report.keep if isinstance(report, StructuredReport) else {}
        passed = "removal" if keep else "weights"
        stream.save(out, journal, passed, keep, {**document(report), "fingerprint": journal.fingerprint}, overwrite)
        journal.remove()
    finally:
        journal.release()
    return report
