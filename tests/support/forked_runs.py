"""Command lines run in forked processes, which need not import anything, and which may be killed, limited, or changed first."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import RLock

from tqdm.std import tqdm

from gramian.adapters.cli import pruning  # noqa: F401 - imported once, and not in every process
from gramian.adapters.cli.main import main
from gramian.adapters.run.journal import RECORD, journal_of
from gramian.proofs.kit.strategies import normal_layer  # noqa: F401

GIB = 2**30
tqdm.set_lock(RLock())  # before any process is forked


def forked(
    arguments: list[str],
    first: Callable[[], object] = lambda: None,
    *,
    run: Callable[[list[str]], int] = main,
    memory: int | None = None,
    log: str = "log",
) -> int:
    """The process that runs a command line. first: what is done in it before. run: what runs it. memory: the bytes that it may
    take beyond those that it has. Its stderr, and what it prints, go to the file `log`."""
    sys.stdout.flush()
    if process := os.fork():
        return process
    code = 99
    try:
        tqdm.set_lock(RLock())  # tqdm's own is shared by processes: whoever is killed with it in hand stops all others for good
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a shell
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where nohup began the tests
        if memory is not None:
            import resource

            taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (taken + memory, taken + memory))
        first()
        try:
            code = run(arguments)
        except SystemExit as stop:
            code = int(stop.code or 0)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        import traceback

        with suppress(OSError, ValueError):
            traceback.print_exc()
            sys.stderr.flush()
    finally:
        os._exit(code)


def ended(process: int, seconds: float = 300) -> int | None:
    """The exit code of a process, minus the signal that ended it; None for one that had to be killed after so many seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(2e-3)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None


def digests(folder: Path) -> Mapping[str, str]:
    """The SHA-256 of the files of a directory, but for those that say how long the run took."""
    files = [file for file in folder.iterdir() if file.name not in ("gramian.json", "report.html")]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def records(out: Path) -> int:
    """How many blocks the journal of a run holds."""
    folder = journal_of(out)
    return sum(RECORD.fullmatch(file.name) is not None for file in folder.iterdir()) if folder.is_dir() else 0
