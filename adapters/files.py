"""Outputs: checked before any work, written complete or not at all, and known by their digests."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from gramian.adapters.drafts import ADDED, begun, ended, names_beside, recover, sync

__all__ = [
    "PAGE", "REPORT", "STDOUT", "Saved", "check_files", "check_output", "check_result", "check_space", "plain", "streams",
    "write_bytes", "write_json", "write_report",
]  # fmt: skip

STDOUT = Path("-")  # as the file of a result
REPORT = "gramian.json"
PAGE = "report.html"  # the same for a person; nothing loads it, so that a model loads without it


def check_output(out: str | Path, overwrite: bool, adding: bool = False) -> None:
    """Raise, before any work, if a model cannot be saved at `out`, or if files cannot be added to it (`adding`).

    What an earlier run left half done is put right first (`recover`).

    FileExistsError: `out` is a file or a directory that is not empty, and `overwrite` is False; or it is something other than
    a saved model, which a saved model would replace; or it is, or contains, the directory that the process runs in, which is
    never replaced. NotADirectoryError, PermissionError: its parent cannot be written. OSError: its name is no UTF-8 or too
    long for the file system, with what is added to it for a moment; links in a circle.
    """
    out = followed(Path(out))
    check_name(out, 0 if adding else ADDED)
    if not adding:
        recover(out)
    if Path.cwd().is_relative_to(out) or Path.home().is_relative_to(out):
        raise FileExistsError(f"{out} is or contains the current or home directory: choose a new directory")
    if not overwrite and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
        raise FileExistsError(
            f"{out} exists and is not empty: choose another, or allow it to be replaced (--overwrite, overwrite=True)"
        )
    if out.exists() and not (out.is_dir() and (adding or not any(out.iterdir()) or (out / "config.json").is_file())):
        raise FileExistsError(f"{out} is not a saved model, so overwriting does not replace it: choose another")
    if not adding and os.path.ismount(out):
        raise FileExistsError(f"{out} is a mount point, which nothing can replace: choose a directory inside it")
    parent = existing(out)
    if not parent.is_dir():
        raise NotADirectoryError(f"{out} cannot be created: {parent} is a file")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(f"{out} cannot be created: no permission to write in {parent}")


def check_result(path: Path | None) -> None:
    """Raise OSError, before any work, if a result cannot be written at `path`; STDOUT always can."""
    if path is None or path == STDOUT:
        return
    if streams(path):
        if not os.access(path, os.W_OK):
            raise PermissionError(f"{path} cannot be written: no permission")
        return
    path = followed(path)
    check_name(path, ADDED)
    recover(path)
    if path.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise OSError(f"{path} cannot be written: it is a directory, or its directory is missing or read-only")


def check_space(out: Path, needed: int) -> None:
    """Raise OSError, before any work, if the disk that `out` goes to has fewer than `needed` bytes left."""
    free = shutil.disk_usage(existing(followed(out))).free
    if free < needed:
        raise OSError(f"{needed} bytes are needed, but only {free} are free on the disk of {out}")


def check_name(path: Path, added: int) -> None:
    """Raise OSError for an absolute path whose names are not UTF-8, or are too long for the file system where the last of them
    has `added` more bytes."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise OSError(f"{str(path)!r} cannot be written: its name is not UTF-8") from error
    longest = os.pathconf(existing(path), "PC_NAME_MAX") if hasattr(os, "pathconf") else 255
    for name, more in [(path.name, added), *((folder.name, 0) for folder in path.parents)]:
        if (length := len(os.fsencode(name))) + more > longest:
            room = f" and {more} more are needed beside it" if more else ""
            raise OSError(f"{name[:20]}... is too long: it has {length} bytes{room}, of {longest} at most")


def existing(path: Path) -> Path:
    """The nearest folder above an absolute path that is there."""
    return next(folder for folder in path.parents if os.path.exists(folder))  # False, and no error, for a name too long


def followed(path: Path) -> Path:
    """The absolute path of what `path` names, at the end of its links. OSError where they go in a circle."""
    found = Path(os.path.realpath(path.expanduser()))
    if os.path.islink(found):
        raise OSError(f"{path} is a link that leads to itself")
    return found


def streams(path: Path) -> bool:
    """Whether `path` is a device, a pipe or a socket, which is written into and never replaced."""
    return os.path.exists(path) and not path.is_file() and not path.is_dir()


def write_bytes(path: Path, content: bytes) -> None:
    """Write or replace a file, at the end of links. After an OSError the file is what it was before. What is written to a
    device or a pipe goes into it."""
    if streams(path):
        with os.fdopen(os.open(path, os.O_WRONLY), "wb") as stream:
            stream.write(content)
        return
    path = followed(path)
    key = begun(path)
    draft, _ = names_beside(path, key)
    try:
        draft.write_bytes(content)
        sync(draft)
        os.replace(draft, path)
        sync(path.parent)
    finally:
        draft.unlink(missing_ok=True)
        ended(key)


def write_json(path: Path, document: Any) -> None:
    """Write or replace a JSON file of plain numbers, strings, lists and dicts, or print it where the path is STDOUT. Numbers
    that JSON does not have become the strings `inf`, `-inf` and `nan`."""
    text = json.dumps(spelt(document), indent=2, allow_nan=False) + "\n"
    if path != STDOUT:
        write_bytes(path, text.encode())
    elif sys.stdout is not None:  # None where the process was started without
        sys.stdout.write(text)


def write_report(draft: Path, document: Mapping[str, Any]) -> None:
    """Write `gramian.json` into a directory that is complete but for it: the document, and `files`, the SHA-256 of every other
    file by its name, but for the page that shows the document."""
    paths = sorted(path for path in draft.rglob("*") if path.is_file() and path not in (draft / REPORT, draft / PAGE))
    write_json(draft / REPORT, {**document, "files": {path.relative_to(draft).as_posix(): sha256(path) for path in paths}})


def check_files(folder: Path) -> None:
    """Raise ValueError for a file of a saved model that is missing or not what its `gramian.json` says. Directories without
    one, or one without `files`, say nothing."""
    report = folder / REPORT
    if not report.is_file():
        return
    try:
        document = json.loads(report.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{report} is damaged: {error}; without this file the model loads unchecked") from error
    files = document.get("files") if isinstance(document, dict) else None
    for name, digest in files.items() if isinstance(files, dict) else ():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ValueError(f"{report} lists {name!r} among the `files` of its directory, which is outside: remove it there")
        path = folder / name
        wrong = "missing" if not path.is_file() else "not the file that was saved" if sha256(path) != digest else ""
        if wrong:
            raise ValueError(f"{path} is {wrong}: save the model again, or remove {name!r} from `files` in {report}")


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Saved(Protocol):
    """A report that is saved beside a model."""

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, for JSON."""


def plain(report: Mapping[str, Any] | Saved) -> dict[str, Any]:
    """A report as a document that `write_json` writes."""
    return dict(report) if isinstance(report, Mapping) else report.to_dict()


def spelt(document: Any) -> Any:
    """Return the document with strings in place of numbers that are not finite."""
    if isinstance(document, Mapping):
        return {key: spelt(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [spelt(value) for value in document]
    return str(document) if isinstance(document, float) and not math.isfinite(document) else document
