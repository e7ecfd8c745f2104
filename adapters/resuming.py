"""Runs that can be interrupted: what is done is kept in a journal beside the output, and the same run goes on from there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.data.tokens import Tokens
from gramian.adapters.drafts import new_directory
from gramian.adapters.estimates.runs import disk_space
from gramian.adapters.files import check_space
from gramian.adapters.fingerprint import fingerprint
from gramian.adapters.kinds.preconditions import check_run
from gramian.adapters.pipeline import run
from gramian.adapters.removal.experts import Thinning
from gramian.adapters.removal.report import StructuredReport
from gramian.adapters.report import Report
from gramian.adapters.run.journal import Journal, differences, fingerprint_in, journal_of
from gramian.adapters.run.ranks import ranks_here
from gramian.adapters.run.shared_journal import SharedJournal
from gramian.adapters.run.streaming import Stream

__all__ = ["Finished", "journaled", "published", "started"]


class Finished(Exception):
    """The run is already finished; its message says so."""


def finished_as(out: Path, expected: Mapping[str, Any]) -> bool:
    """Whether a model at `out` is that of a finished run with this fingerprint."""
    try:
        document = json.loads((out / "gramian.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    found = document.get("fingerprint") if isinstance(document, Mapping) else None
    return isinstance(found, Mapping) and not differences(found, json.loads(json.dumps(expected)))


def started(out: Path, expected: Mapping[str, Any], resume: bool, space: int, problems: Path | None = None) -> Journal:
    """Begin the journal of a run that needs so many bytes of space, or go on with it.

    problems: where its problem files will be. OSError where the disk has no space for the journal and the result, or problem
    files are there already. `Finished`, with `resume`, where a run with this fingerprint has already written `out`.
    """
    ranks, described = ranks_here(), {**expected, "problems": problems is not None}
    if ranks.alone:
        return begun(Journal(journal_of(out), described), out, resume, space, problems)
    journal = SharedJournal(journal_of(out), described, ranks)
    if not ranks.first:
        if ranks.share(None):
            raise Finished(f"{out} is finished: it was written by this very run")
        return journal
    try:
        begun(journal, out, resume, space, problems)
    except Finished:
        ranks.share(True)
        raise
    ranks.share(False)
    return journal


def begun(journal: Journal, out: Path, resume: bool, space: int, problems: Path | None) -> Journal:
    """The journal, begun by the one process that writes it."""
    written = problems is not None and problems.is_dir() and any(problems.iterdir())
    if resume and finished_as(out.expanduser().resolve(), journal.fingerprint):
        if journal.problems.is_dir() and not written and fingerprint_in(journal.folder) == journal.fingerprint:
            with published(journal, problems):  # it was killed between the two
                pass
        journal.clear()
        raise Finished(f"{out} is finished: it was written by this very run")
    if written:
        raise FileExistsError(f"{problems} is not empty: choose an empty directory for problem files, or a new one")
    there = sum(file.stat().st_size for file in journal_of(out).rglob("*") if file.is_file()) if resume else 0
    check_space(out, space - there)
    journal.start()
    return journal


@contextmanager
def published(journal: Journal, problems: Path | None) -> Iterator[None]:
    """Let the problem files that a journal keeps appear in their directory, all at once, when the context ends well."""
    if problems is None:
        yield
        return
    with new_directory(problems.expanduser().resolve(), overwrite=False) as draft:
        for file in sorted(journal.problems.glob("*.safetensors")):
            try:
                os.link(file, draft / file.name)
            except OSError:  # it goes to another disk, or to one without links
                shutil.copyfile(file, draft / file.name)
        yield


def journaled(
    stream: Stream,
    tokens: Tokens,
    config: PruneConfig,
    *,
    out: Path,
    heldout: torch.Tensor | Tokens | None = None,
    recovery: Tokens | None = None,
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
        stream.blocks.digest, tokens, heldout, config, stream.blocks.place, {"dtype": str(stream.blocks.storage)}, recovery
    )
    journal = started(out, expected, resume, disk_space(stream.model, config, plan), problems)
    try:
        report = run(
            stream.blocks, tokens, config, heldout=heldout, recovery=recovery, problems=problems, journal=journal, cut=False,
            progress=progress,
        )  # fmt: skip
        keep = report.keep if isinstance(report, StructuredReport) else {}
        passed = "experts" if isinstance(plan, Thinning) else "removal" if keep else "weights"
        if ranks_here().first:
            with published(journal, problems):
                stream.save(
                    out, journal.read_alone(), passed, keep, {**document(report), "fingerprint": journal.fingerprint}, overwrite
                )
        journal.remove()
        ranks_here().share(None)  # until the model is there
    finally:
        journal.release()
    return report
