"""Files and directories of models that appear complete or not at all: each is written under another name beside its place,
and then renamed."""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

__all__ = ["Saved", "check_output", "check_result", "new_directory", "plain", "write_bytes", "write_json"]


def check_output(out: str | Path, overwrite: bool, adding: bool = False) -> None:
    """Raise, before any work, if a model cannot be saved at `out`, or if files cannot be added to it (`adding`).

    FileExistsError: `out` is a file or a directory that is not empty, and `overwrite` is False; or it is something other than
    a saved model, which a saved model would replace; or it is, or contains, the directory that the process runs in, which is
    never replaced. NotADirectoryError, PermissionError: its parent cannot be written.
    """
    out = Path(out).expanduser().resolve()
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
    parent = next(folder for folder in out.parents if folder.exists())
    if not parent.is_dir():
        raise NotADirectoryError(f"{out} cannot be created: {parent} is a file")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(f"{out} cannot be created: no permission to write in {parent}")


def check_result(path: Path | None) -> None:
    """Raise OSError, before any work, if a result cannot be written at `path`."""
    if path is not None and (path.is_dir() or not os.access(path.absolute().parent, os.W_OK | os.X_OK)):
        raise OSError(f"{path} cannot be written: it is a directory, or its directory is missing or read-only")


@contextmanager
def new_directory(out: Path, overwrite: bool) -> Iterator[Path]:
    """Make a directory to put a model into, beside `out`, which it replaces when the context ends without an error.

    After an error `out` is what it was before, and the new directory is gone. The context ends with FileExistsError if `out`
    is not empty by then and `overwrite` is False: `out` is kept, and so is the new directory, under a name that the error says.
    """
    draft, aside = (out.with_name(f".{out.name}.{secrets.token_hex(4)}.{what}") for what in ("new", "old"))
    try:
        draft.mkdir(parents=True)
        yield draft
        for file in draft.iterdir():  # safetensors makes its files private, so they are given the mode that any new file gets
            if file.is_file():
                shutil.copymode(draft / "config.json", file)
        if not overwrite and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
            kept = draft.rename(out.with_name(f"{out.name}.{secrets.token_hex(4)}"))
            raise FileExistsError(f"{out} was empty when the work began and is not now, so the result is in {kept}")
        replace(draft, out, aside)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def replace(draft: Path, out: Path, aside: Path) -> None:
    """Rename `draft` to `out`. What was at `out` is moved aside first, and moved back if the rename fails."""
    if not out.exists():
        draft.rename(out)
        return
    out.rename(aside)
    try:
        draft.rename(out)
    except BaseException:
        aside.rename(out)
        raise
    if aside.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Write or replace a file. After an OSError the file is what it was before."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        draft.write_bytes(content)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_json(path: Path, document: Any) -> None:
    """Write or replace a JSON file of plain numbers, strings, lists and dicts. Numbers that JSON does not have become the
    strings `inf`, `-inf` and `nan`."""
    write_bytes(path, (json.dumps(spelt(document), indent=2, allow_nan=False) + "\n").encode())


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
