"""A block as a function of hidden states and of some of its parameters."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import nn

from gramian.adapters.run.forward import BlockCall

__all__ = ["BlockFunction"]


class Called(nn.Module):
    """A block as a function of hidden states alone."""

    def __init__(self, block: nn.Module, call: BlockCall) -> None:
        super().__init__()
        self.block, self.call = block, call

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.call(self.block, hidden)


class BlockFunction:
    """b(x; V): what a block answers to hidden states x with these tensors V in place of some of its parameters.

    The block itself is not changed, and of its parameters only V can have gradients. names: of those, in the block.
    """

    def __init__(self, block: nn.Module, call: BlockCall, names: Collection[str]) -> None:
        self.called = Called(block, call)
        self.others = {f"block.{name}": each.detach() for name, each in block.named_parameters() if name not in names}

    def __call__(self, weights: Mapping[str, torch.Tensor], states: torch.Tensor) -> torch.Tensor:
        given = {f"block.{name}": each for name, each in weights.items()}
        answer: torch.Tensor = torch.func.functional_call(self.called, {**self.others, **given}, (states,))
        return answer
