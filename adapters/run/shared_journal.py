"""A journal of several processes: the first of them writes it, and the others are told what it holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gramian.adapters.run.journal import Journal, Record
from gramian.adapters.run.ranks import Ranks

__all__ = ["SharedJournal"]


class SharedJournal(Journal):
    """The journal as every process of a group sees it. All of them ask for what it holds, in the same order."""

    def __init__(self, folder: Path, fingerprint: Mapping[str, Any], ranks: Ranks) -> None:
        super().__init__(folder, fingerprint)
        self.ranks = ranks

    def start(self) -> None:
        """Begin it, or go on with it."""
        if self.ranks.first:
            super().start()

    def release(self) -> None:
        """Let other runs write it."""
        if self.ranks.first:
            super().release()

    def remove(self) -> None:
        """Remove it."""
        if self.ranks.first:
            super().remove()

    def finished(self, name: str) -> set[int]:
        """The numbers of the blocks that a pass has finished."""
        return self.ranks.share(super().finished(name) if self.ranks.first else None)

    def write(self, name: str, index: int, record: Record) -> None:
        """Keep what a pass did at a block."""
        if self.ranks.first:
            super().write(name, index, record)

    def read(self, name: str, index: int) -> Record:
        """What a pass did at a block."""
        return self.ranks.share(super().read(name, index) if self.ranks.first else None)
