"""Two models that are judged on the same items."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gramian.adapters.data.context import context_of

__all__ = ["Pair"]

Measured = TypeVar("Measured")


@dataclass(frozen=True)
class Pair:
    """A model and the dense one, None without it, both in evaluation mode, and what is the same for every figure of them."""

    model: PreTrainedModel
    dense: PreTrainedModel | None
    tokenizer: PreTrainedTokenizerBase | None
    rows: torch.Tensor
    seed: int
    shown: bool

    def both(self, measure: Callable[[PreTrainedModel], Measured]) -> tuple[Measured, Measured | None]:
        """What `measure` gives of the model and of the dense one, None without it."""
        return measure(self.model), None if self.dense is None else measure(self.dense)

    def fits(self, length: int) -> bool:
        """Whether windows of so many tokens fit in the context of every model."""
        contexts = [context_of(each) for each in (self.model, self.dense) if each is not None]
        return all(most is None or length <= most for most in contexts)
