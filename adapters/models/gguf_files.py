"""GGUF files, which are read once for a model, its configuration and its tokeniser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

__all__ = ["read_once"]


@contextmanager
def read_once() -> Iterator[None]:
    """Read every GGUF file once while the block is under way, although the library opens it for every part of a model.

    A vocabulary of 262 thousand tokens takes its reader 17 seconds each time, and a third of that where slices of the file are
    plain arrays of numpy, without what `memmap` adds to each. The class is exchanged, since the library takes no reader.
    """
    import gguf

    library: Any = gguf
    usual: Any = library.GGUFReader
    readers: dict[tuple[str, str], Any] = {}

    class Reader(usual):  # type: ignore[misc]
        """The same, with slices that are plain."""

        @property
        def data(self) -> np.ndarray:
            """The bytes of the file."""
            return self.plain

        @data.setter
        def data(self, mapped: np.ndarray) -> None:
            self.plain = np.asarray(mapped)

    def reader(path: Any, mode: str = "r") -> Any:
        """Open a file, or return it as it was opened before."""
        key = str(path), mode
        if key not in readers:
            readers[key] = Reader(path, mode)
        return readers[key]

    library.GGUFReader = reader
    try:
        yield
    finally:
        library.GGUFReader = usual
