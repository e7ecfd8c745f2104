"""Text of datasets on the hub, read as a stream."""

from __future__ import annotations

import io
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from gramian.adapters.data.windows import pieces_of, token_ids
from gramian.progress import bar

__all__ = ["read_dataset"]


def read_dataset(source: str, tokenizer: PreTrainedTokenizerBase, enough: int) -> list[int]:
    """Read token ids of a dataset's `text` column, its rows a blank line apart, as a stream until there are `enough`.

    ValueError: a malformed name, rows without the column. ImportError: the package `datasets` is not installed; what is called
    so in the current directory is not it. OSError: it cannot be read.
    """
    name, config, split = [*source.removeprefix("hf:").split(":"), "", ""][:3]
    if not name or source.count(":") > 3:
        raise ValueError(f"malformed calibration source {source!r}: expected hf:DATASET[:CONFIG][:SPLIT]")
    with installed_alone():
        try:
            from datasets import load_dataset
        except ImportError as error:
            raise ImportError(f"{source} needs the datasets package: pip install 'gramian[datasets]'") from error
        try:
            rows = load_dataset(name, config or None, split=split or "train", streaming=True)
            with bar(enough, f"reading {name}", "token") as shown:
                texts = (text_of(row) + "\n\n" for row in rows)
                pieces = (piece for text in texts for piece in pieces_of(io.StringIO(text), len(text)))
                return token_ids(pieces, tokenizer, enough, shown.update)
        except Exception as error:  # a dataset's reader and the network raise anything, and the user gets one line
            kind = ValueError if isinstance(error, ValueError) else OSError
            raise kind(f"dataset {source} cannot be read: {textwrap.shorten(str(error), 300)}") from error


def text_of(row: dict[str, Any]) -> str:
    """The text of a row."""
    if "text" not in row:
        raise ValueError(f"its columns are {sorted(row)}, expected one named 'text'")
    text: str = row["text"]
    return text


@contextmanager
def installed_alone() -> Iterator[None]:
    """Import what is installed while the context is open, and nothing from the current directory, which may be anybody's."""
    before, here = sys.path[:], Path.cwd()
    sys.path[:] = [entry for entry in before if entry and Path(entry).resolve() != here.resolve()]
    try:
        yield
    finally:
        sys.path[:] = before
