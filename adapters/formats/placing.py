"""Where an exported model goes: a file by its suffix, else a directory; checked before any work, complete or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gramian.adapters.drafts import draft_beside, new_directory, sync
from gramian.adapters.files import check_output, check_result

__all__ = ["FORMATS", "check_place", "is_file", "made"]

FORMATS = ("gguf", "onnx", "compressed-tensors")


def is_file(out: Path, form: str) -> bool:
    """Whether `out` is to be one file: its name ends with the format's."""
    return out.suffix.lower() == f".{form}"


def check_place(out: Path, form: str, overwrite: bool) -> None:
    """Raise, before any work, if nothing of a format can be written at `out`.

    ValueError: a name that is no file of the format, where the format is one file. FileExistsError: something is there, and
    `overwrite` is False, or it is no export. OSError: it cannot be written."""
    if is_file(out, form):
        check_result(out)
        if out.exists() and not out.is_file():
            raise FileExistsError(f"{out} is a device or a pipe, where the {form} file is to be: choose another name")
        if out.exists() and not overwrite:
            raise FileExistsError(f"{out} exists: choose another name, or allow it to be replaced (--overwrite)")
        return
    if form == "gguf":
        raise ValueError(f"{out} does not end with .gguf, and a GGUF is one file with everything in it: choose such a name")
    check_output(out, overwrite)


@contextmanager
def made(out: Path, form: str, overwrite: bool) -> Iterator[Path]:
    """Make a directory to work in, beside `out`. When the context ends without an error, `out` is this directory, or, where it
    is a file, what the directory holds under its name; after an error `out` is as before, and the directory is gone."""
    if not is_file(out, form):
        with new_directory(out, overwrite) as draft:
            yield draft
        return
    with draft_beside(out) as draft:
        yield draft
        if not overwrite and out.exists():
            raise FileExistsError(f"{out} was not there when the work began and is now: nothing was changed")
        sync(draft / out.name)
        os.replace(draft / out.name, out)
        sync(out.parent)
