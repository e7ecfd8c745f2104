"""What the passes of one run share: where the blocks live, the settings, the journal, copies of what was there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.models.examples import Rows
from gramian.adapters.models.loading import storage_dtype
from gramian.adapters.passes.searched import Search
from gramian.adapters.report import BlockReport
from gramian.adapters.run.blocks import Blocks
from gramian.adapters.run.journal import Journal
from gramian.adapters.run.mixtures import Mixture
from gramian.adapters.run.ranks import Ranks, Shares
from gramian.adapters.run.undo import Originals
from gramian.adapters.run.walk import Pass, walk
from gramian.progress import Bar, bar, say

__all__ = ["Run", "say_refused", "without_refits"]


@dataclass(frozen=True, eq=False)
class Run:
    """One run.

    journal: where it keeps what it has done. originals: copies of what it overwrites, for a run that fails; one with a journal
    goes on from there and needs none. progress: whether bars are shown. ranks: the processes that share it.
    mixture: of the domains of its batches, if there are several.
    """

    blocks: Blocks
    config: PruneConfig
    journal: Journal | None = None
    originals: Originals | None = None
    progress: bool = True
    ranks: Ranks = Ranks()
    mixture: Mixture | None = None

    @property
    def model(self) -> PreTrainedModel:
        """The model, whose weights change in place."""
        model: PreTrainedModel = self.blocks.model
        return model

    def bar(self, total: int, unit: str) -> AbstractContextManager[Bar]:
        """A bar of the method over so many units."""
        return bar(total, self.config.method, unit, shown=self.progress)

    def keep(self, names: Sequence[str]) -> None:
        """Copy these operators, which are written to next."""
        if self.originals is not None:
            self.originals.keep(names)

    def shares(self, calibrating: int, heldout: int = 0) -> Shares:
        """Which process runs which of so many batches."""
        return Shares(self.ranks, (calibrating, heldout))

    def written(self, each: Pass, batches: Sequence[Rows], shares: Shares = Shares()) -> list[Any]:
        """Walk a pass that writes to the model, of which copies are made before, and return all its rows."""
        worked = self.blocks if self.originals is None else self.originals.before(self.blocks, each.written)
        found = walk(
            each, worked, batches, jobs=self.config.jobs, journal=self.journal, storage=storage_dtype(self.model), shares=shares
        )
        return [row for block in found for row in block]

    def search(self, windows: torch.Tensor, heldout: torch.Tensor) -> Search:
        """What a search of budgets is given."""
        minutes = self.config.own("search_minutes")
        return Search(self.blocks, windows, heldout, minutes, self.journal, self.keep, self.progress)


def say_refused(refused: Mapping[str, str], what: str) -> None:
    """Say of operators that they remain as they are, and why, once for each reason."""
    for reason in dict.fromkeys(refused.values()):
        names = [name for name, each in refused.items() if each == reason]
        say(f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''} {what}: {reason}")


def without_refits(rows: Sequence[Any]) -> tuple[list[Any], tuple[BlockReport, ...]]:
    """The rows of operators or modules, and those of blocks that were refitted."""
    blocks = tuple(row for row in rows if isinstance(row, BlockReport))
    return [row for row in rows if not isinstance(row, BlockReport)], blocks
