"""Texts of one length with what a model should answer to each: a class, a number, or another text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch

__all__ = ["IGNORED", "Examples", "Rows"]

IGNORED = -100  # among labels: nothing is predicted there


@dataclass(frozen=True, eq=False)
class Examples:
    """Texts of one length, without padding, each with its label.

    ids: (n, length). labels: (n,), the class of each text or a number for it; or (n, t), the tokens of another text, where
    nothing is predicted at `IGNORED`. types: (n, length), which of two joined texts a token is of; None where tokenisers do not
    tell.
    """

    ids: torch.Tensor
    labels: torch.Tensor
    types: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, some: slice) -> Examples:
        """Some of the texts."""
        return Examples(self.ids[some], self.labels[some], None if self.types is None else self.types[some])

    def split(self, count: int) -> list[Examples]:
        """Parts of at most `count` texts, in order."""
        return [self.part(slice(first, first + count)) for first in range(0, len(self), count)]


Rows: TypeAlias = torch.Tensor | Examples  # what a model is called with: windows (n, length), or texts with labels
