"""Tokenisers of unknown origin are tried in a process of their own before they are used in this one.

The library that runs them is fast and compiled: a regular expression of theirs that backtracks for ever, or a rule that makes a
text a thousand times longer, cannot be interrupted, and memory that runs out ends the process. A trial is bounded in both.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import tokenizers

__all__ = ["check_tokenizer", "trial"]

SECONDS = 60.0  # for a piece of text, of which a million characters take a second, or for a vocabulary
MEMORY = 4 * 2**30
PROBE = "The 3 quick brown foxes jumped over 1234567890 lazy dogs, didn't they?  \n\n" * 3
# A tokeniser without words. A vocabulary takes seconds to read, and cannot make a text longer than its rules have made it.
EMPTY = {"type": "BPE", "vocab": {}, "merges": [], "fuse_unk": False, "byte_fallback": False}
SOUND: set[bytes] = set()  # digests of files that have been tried
# One thread and one heap: others would only reserve memory, which the limit counts.
QUIET = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}


def check_tokenizer(file: Path) -> None:
    """Raise ValueError, naming it, for a `tokenizer.json` that cannot be read, or cannot tokenise a line, within bounds."""
    if not file.is_file():
        return
    content = file.read_bytes()
    digest = hashlib.sha256(content).digest()
    if digest in SOUND:
        return
    with tried(content, str(file)) as attempt:
        attempt(PROBE)
    SOUND.add(digest)


@contextmanager
def trial(tokenizer: Any, name: str) -> Iterator[Callable[[str], None]]:
    """A function that raises ValueError for a text that the rules of a tokeniser cannot take within bounds.

    name: how the message calls the tokeniser. Tokenisers that the compiled library does not run are not tried."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, tokenizers.Tokenizer):
        yield lambda text: None
        return
    rules = {part: stated(getattr(backend, part)) for part in ("normalizer", "pre_tokenizer")}
    if rules == {"normalizer": None, "pre_tokenizer": None}:
        yield lambda text: None
        return
    document = {"version": "1.0", "added_tokens": [], **rules, "model": EMPTY}
    with tried(json.dumps(document).encode(), name) as attempt:
        yield attempt


def stated(part: Any) -> Any:
    """A part of a tokeniser in JSON's terms."""
    return None if part is None else json.loads(part.__getstate__())


@contextmanager
def tried(document: bytes, name: str) -> Iterator[Callable[[str], None]]:
    """A process that holds a tokeniser, and the function that gives it texts. Errors are those of `trial`."""
    child, library = Path(__file__).with_name("tokenizer_child.py"), Path(tokenizers.__file__).parents[1]
    with subprocess.Popen(
        [sys.executable, "-I", str(child), str(library), str(MEMORY), str(SECONDS)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, **QUIET},
    ) as process:  # fmt: skip
        try:
            answered(process, document, name)
            yield lambda text: answered(process, text.encode(errors="replace"), name)
        finally:
            process.kill()
            with suppress(OSError):  # what is not written yet has no reader
                process.communicate()


def answered(process: subprocess.Popen[bytes], piece: bytes, name: str) -> None:
    """Give a piece to the process, and wait until it is done with it."""
    assert process.stdin is not None and process.stdout is not None
    with suppress(BrokenPipeError):  # the process has ended, and says why
        process.stdin.write(len(piece).to_bytes(8, "little") + piece)
        process.stdin.flush()
    answer = process.stdout.readline()
    if answer == b"\n":
        return
    if answer:
        raise ValueError(f"{name} cannot tokenise: {answer.decode(errors='replace').strip()[:300]}")
    if process.wait() == 1:
        raise ValueError(f"{name} takes more than {SECONDS:g} seconds for {len(piece)} bytes")
    raise ValueError(
        f"{name} ends the process that runs it ({process.wait()}), or needs more than {MEMORY >> 30} GiB of memory"
    )
