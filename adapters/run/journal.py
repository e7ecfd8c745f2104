"""The journal of a run: what it has done so far, block by block, in a directory beside its output, so that it can go on.

    OUT.journal/run.json                      which run it is: its fingerprint
    OUT.journal/weights-00003.safetensors     what the pass `weights` wrote to block 3, and its rows of the report
    OUT.journal/problems/                     problem files of operators, until they appear with the result
    OUT.journal/levels/                       operators at several levels, among which a search chooses

The module needs neither torch nor transformers, so that a journal that stands in the way is reported at once.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gramian.adapters.drafts import discard
from gramian.adapters.files import write_json
from gramian.adapters.tensor_files import read_tensors, tensor_names, write_tensors

__all__ = ["Journal", "Record", "blocks_done", "differences", "fingerprint_in", "journal_of", "refuse_journal"]

RUN, PROBLEMS, LEVELS = "run.json", "problems", "levels"
RECORD = re.compile(r"(\w+)-(\d{5,})\.safetensors")


@dataclass(frozen=True, eq=False)
class Record:
    """What one pass did at one block.

    rows: in JSON's terms (`Packer`), with their arrays. tensors: what was written to the model, by name, and kinds: the dtype
    of each, which numpy may not have."""

    rows: Any
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    tensors: Mapping[str, np.ndarray] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)


class Journal:
    """A journal that one process writes.

    folder: its directory. fingerprint: what the run depends on, by name, in JSON's terms. OSError where it cannot be written;
    BlockingIOError where another process writes it.
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, Any]) -> None:
        self.folder, self.fingerprint = folder, json.loads(json.dumps(fingerprint))
        self.lock: int | None = None

    def start(self) -> None:
        """Begin a journal, or go on with the one that is there, which has to be of this run.

        ValueError, naming what differs, for a journal of another run.
        """
        found = fingerprint_in(self.folder)
        if found is not None and (other := differences(found, self.fingerprint)):
            raise ValueError(
                f"{self.folder} is the journal of another run: {'; '.join(other)}. Repeat that run to go on with it, or "
                "remove it (--overwrite, overwrite=True)"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        self.hold()
        for rest in self.folder.iterdir():
            draft = rest.name.startswith(".")  # of a process that was killed
            if draft or (found is None and self.holds(rest.name)):  # of a journal whose removal was interrupted
                discard(rest)
        if found is None:
            write_json(self.folder / RUN, self.fingerprint)

    @staticmethod
    def holds(name: str) -> bool:
        """Whether a journal has entries of this name, beside the one that says which run it is of."""
        return name in (PROBLEMS, LEVELS) or RECORD.fullmatch(name) is not None

    @property
    def problems(self) -> Path:
        """Where problem files are kept until the run ends."""
        return self.folder / PROBLEMS

    @property
    def levels(self) -> Path:
        """Where operators at several levels are kept while they are searched."""
        return self.folder / LEVELS

    def hold(self) -> None:
        """Keep other processes from writing the journal, where the system can do that."""
        with suppress(ImportError):
            import fcntl

            self.lock = os.open(self.folder, os.O_RDONLY)
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                os.close(self.lock)
                self.lock = None
                raise BlockingIOError(f"{self.folder} is being written by another process: wait for it to end") from error

    def release(self) -> None:
        """Let other processes write the journal, which is removed where it holds nothing yet."""
        if self.lock is not None and not any(RECORD.fullmatch(entry.name) for entry in self.folder.iterdir()):
            shutil.rmtree(self.folder, ignore_errors=True)
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None

    def clear(self) -> None:
        """Remove what is left of the journal of this run, which is finished; another run's is not ours to remove."""
        if self.folder.is_dir() and fingerprint_in(self.folder) in (None, self.fingerprint):
            self.hold()
            self.remove()

    def remove(self) -> None:
        """Remove the journal of a run that is finished."""
        (self.folder / RUN).unlink(missing_ok=True)  # without it the rest is no journal, whatever is interrupted here
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None

    def read_alone(self) -> Journal:
        """The same journal, for one process that only reads it."""
        return Journal(self.folder, self.fingerprint)

    def finished(self, name: str) -> set[int]:
        """The numbers of the blocks that a pass has finished."""
        found = (RECORD.fullmatch(entry.name) for entry in self.folder.iterdir())
        return {int(match[2]) for match in found if match and match[1] == name}

    def path(self, name: str, index: int) -> Path:
        """The file of one pass at one block."""
        return self.folder / f"{name}-{index:05}.safetensors"

    def write(self, name: str, index: int, record: Record) -> None:
        """Keep what a pass did at a block."""
        tensors = {f"tensor/{key}": value for key, value in record.tensors.items()}
        arrays = {f"array/{key}": np.asarray(value) for key, value in record.arrays.items()}
        metadata = {"rows": json.dumps(record.rows), "kinds": json.dumps(dict(record.kinds))}
        write_tensors(self.path(name, index), {**tensors, **arrays}, metadata)

    def read(self, name: str, index: int) -> Record:
        """What a pass did at a block; ValueError for a damaged file."""
        path = self.path(name, index)
        names, metadata = tensor_names(path)
        found = read_tensors(path, names)
        parts = {
            part: {key.removeprefix(f"{part}/"): value for key, value in found.items() if key.startswith(f"{part}/")}
            for part in ("tensor", "array")
        }
        try:
            return Record(json.loads(metadata["rows"]), parts["array"], parts["tensor"], json.loads(metadata["kinds"]))
        except (KeyError, ValueError) as error:
            raise ValueError(f"{path} is a damaged record of a journal: remove {self.folder} to begin again") from error


def journal_of(out: Path) -> Path:
    """The directory of the journal of a run that is saved at `out`."""
    out = out.expanduser().resolve()
    return out.with_name(f"{out.name}.journal")


def blocks_done(out: Path) -> int:
    """How many blocks, counted for every pass, the journal of a run at `out` holds."""
    folder = journal_of(out)
    return sum(RECORD.fullmatch(entry.name) is not None for entry in folder.iterdir()) if folder.is_dir() else 0


def fingerprint_in(folder: Path) -> dict[str, Any] | None:
    """The fingerprint of a journal; None where there is none, and ValueError where it cannot be read."""
    if not (folder / RUN).is_file():
        return None
    try:
        found: dict[str, Any] = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{folder / RUN} cannot be read: remove {folder} to begin again") from error
    return found


def refuse_journal(out: Path, resume: bool, overwrite: bool) -> None:
    """See to what stands where the journal of a run at `out` goes, before any work.

    FileExistsError: a directory that is no journal; a journal, unless `resume`, or `overwrite`, which removes it, or it holds
    nothing yet. BlockingIOError: another process writes the one that would be removed.
    """
    folder = journal_of(out)
    if not folder.exists():
        return
    strange = [entry.name for entry in folder.iterdir()] if folder.is_dir() else [folder.name]
    strange = [name for name in strange if name != RUN and not Journal.holds(name) and not name.startswith(".")]
    if strange:
        raise FileExistsError(f"{folder} is where the journal of the run goes, but holds {strange[0]}: choose another output")
    if resume:
        return
    if (folder / RUN).is_file() and not overwrite and (done := blocks_done(out)):
        raise FileExistsError(
            f"{folder} is the journal of a run that did not end ({done} blocks are done): go on with it (--resume, "
            "resume=True), or begin again (--overwrite, overwrite=True, removes it)"
        )
    rest = Journal(folder, {})
    rest.hold()
    rest.remove()


def differences(before: Mapping[str, Any], after: Mapping[str, Any], place: str = "") -> list[str]:
    """What differs between two fingerprints, in words."""
    found = []
    for name in dict.fromkeys([*before, *after]):
        one, two, path = before.get(name), after.get(name), f"{place}{name}"
        if isinstance(one, Mapping) and isinstance(two, Mapping):
            found += differences(one, two, f"{path}.")
        elif one != two:
            found.append(f"{path} was {one!r} and is {two!r}")
    return found
