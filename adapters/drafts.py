"""What is written beside its place under another name, and appears there complete or not at all.

    .OUT.PID.XXXXXXXX.new     what the process PID writes, until it is OUT
    OUT.PID.XXXXXXXX.old      what was OUT, for a moment, where the system cannot exchange two names in one step

What a process that was killed leaves of these is put right by `recover`. What is renamed is on the disk before.
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

__all__ = [
    "ADDED", "begun", "discard", "draft_beside", "ended",
    "names_beside", "new_directory", "new_files", "recover", "sync", "withdraw",
]  # fmt: skip

ADDED = len("..4294967295.00000000.new")  # bytes of the longest name beside an output, without the output's own
IN_USE: dict[str, Path] = {}  # what the drafts of this process are to be, by PID.XXXXXXXX
LOG = logging.getLogger(__name__)


@contextmanager
def new_directory(out: Path, overwrite: bool) -> Iterator[Path]:
    """Make a directory to put a model into, beside `out`, which it replaces when the context ends without an error.

    After an error `out` is what it was before, and the new directory is gone. The context ends with FileExistsError if `out`
    is not empty by then and `overwrite` is False: `out` is kept, and so is the new directory, under a name that the error says.
    If the process is killed, `out` is what it was before or the new directory, at once or after `recover`.
    """
    recover(out)
    key = begun(out)
    draft, aside = names_beside(out, key)
    try:
        draft.mkdir(parents=True)
        yield draft
        for path in sorted(draft.rglob("*")):
            if path.is_file() and path.parent == draft and (draft / "config.json").is_file():
                shutil.copymode(draft / "config.json", path)  # safetensors makes its files private, unlike any other new file
            sync(path)
        sync(draft)
        if not overwrite and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
            kept = draft.rename(out.with_name(f"{out.name}.{secrets.token_hex(4)}"))
            raise FileExistsError(f"{out} was empty when the work began and is not now, so the result is in {kept}")
        replace(draft, out, aside)
        sync(out.parent)
    finally:
        discard(draft)
        ended(key)


@contextmanager
def new_files(out: Path) -> Iterator[Path]:
    """Make a directory to put files into, beside the directory `out`, which has them all when the context ends well.

    A directory that is empty or not there is replaced at once. Into one that holds other files they are moved one by one: if
    the process is killed then, some of them are there, each of them whole.
    """
    if not (out.is_dir() and any(out.iterdir())):
        with new_directory(out, overwrite=False) as draft:
            yield draft
        return
    with draft_beside(out) as draft:
        yield draft
        for file in sorted(draft.iterdir()):
            os.replace(file, out / file.name)
        sync(out)


@contextmanager
def draft_beside(out: Path) -> Iterator[Path]:
    """Make a directory to work in, beside `out`, which is gone when the context ends, and removed after kills too."""
    recover(out)
    key = begun(out)
    draft, _ = names_beside(out, key)
    try:
        draft.mkdir()
        yield draft
    finally:
        discard(draft)
        ended(key)


def begun(out: Path) -> str:
    """A new key for what this process writes beside `out`."""
    key = f"{os.getpid()}.{secrets.token_hex(4)}"
    IN_USE[key] = out
    return key


def ended(key: str) -> None:
    """Nothing is under a key any more."""
    IN_USE.pop(key, None)


def names_beside(out: Path, key: str) -> tuple[Path, Path]:
    """The names of a draft of `out`, and of what `out` was before."""
    return out.with_name(f".{out.name}.{key}.new"), out.with_name(f"{out.name}.{key}.old")


def replace(draft: Path, out: Path, aside: Path) -> None:
    """Rename `draft` to `out`. What was at `out` is then at `draft`, or after an error still where it was."""
    if not out.exists():
        draft.rename(out)
    elif not exchange(draft, out):
        out.rename(aside)
        try:
            draft.rename(out)
        finally:
            aside.rename(draft if out.exists() else out)


def exchange(one: Path, two: Path) -> bool:
    """Exchange two names in one step; False where the system or the file system cannot, or refuses."""
    first, second, swap = os.fsencode(one), os.fsencode(two), 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS
    here = -100  # AT_FDCWD
    calls = {"linux": ("renameat2", (here, first, here, second, swap)), "darwin": ("renamex_np", (first, second, swap))}
    if sys.platform not in calls:
        return False
    name, arguments = calls[sys.platform]
    function = getattr(ctypes.CDLL(None), name, None)  # not every C library has it
    return function is not None and function(*arguments) == 0


def recover(out: Path) -> None:
    """Put right what runs for `out` that were killed have left: the old model goes back where no model is, and the rest goes.

    What processes that still run have beside `out` is left alone."""
    try:
        names = os.listdir(out.parent)
    except OSError:  # there is no such folder yet, or it cannot be read
        return
    form = re.compile(rf"\.?{re.escape(out.name)}\.((\d+)\.[0-9a-f]{{8}})\.(?:new|old)")
    for key in sorted({found[1] for name in names if (found := form.fullmatch(name)) and not runs(found[1], int(found[2]))}):
        put_right(out, key)


def put_right(out: Path, key: str) -> None:
    """Remove what is under one key beside `out`, or put it back where there is nothing at `out`; say what was there."""
    draft, aside = names_beside(out, key)
    if os.path.lexists(draft):
        LOG.info("removing %s, which a run that was killed has left", draft)
    discard(draft)
    if aside.exists():
        LOG.info("%s is %s, which a run that was killed had renamed", aside, "removed" if out.exists() else f"{out} again")
        # the name of a draft is never taken for something whole, so that the removal can be cut short
        aside.rename(draft if out.exists() else out)
        sync(out.parent)
        discard(draft)


def withdraw() -> None:
    """Remove what this process is writing beside its outputs, which are then what they were, before it ends at once."""
    LOG.disabled = True  # there is nobody to tell
    for key, out in list(IN_USE.items()):
        put_right(out, key)


def runs(key: str, process: int) -> bool:
    """Whether the process that a draft is of still runs. A draft with the number of this process may be of one before it."""
    if process == os.getpid():
        return key in IN_USE
    if os.name == "nt":  # where every signal ends a process, and none only asks
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is another user's
        return True
    return True


def discard(path: Path) -> None:
    """Remove a file or a directory, as far as possible, where there is one."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def sync(path: Path) -> None:
    """Bring a file or the names in a directory to the disk. OSError for a file; not every system can do it for directories."""
    folder = path.is_dir()
    with suppress(OSError) if folder else nullcontext():
        number = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
        try:
            os.fsync(number)
        finally:
            os.close(number)
