"""What a block is given and what it returns: hidden states alone, or among other things."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

__all__ = ["Answer", "Arguments", "alike"]


@dataclass(frozen=True)
class Arguments:
    """What a block is called with beside the hidden states: masks, rotary tables, positions. name: the keyword by which it is
    given the hidden states, empty where they are its first argument."""

    others: tuple[Any, ...]
    keywords: Mapping[str, Any]
    name: str = ""

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[torch.Tensor, Arguments]:
        """Tell hidden states, the first tensor, from the rest. ValueError for a call without any tensor."""
        if args and isinstance(args[0], torch.Tensor):
            return args[0], cls(args[1:], dict(kwargs))
        for name, value in kwargs.items():
            if isinstance(value, torch.Tensor):
                return value, cls(args, {key: each for key, each in kwargs.items() if key != name}, name)
        raise ValueError("it is given no hidden states")

    def run(self, block: Any, hidden: torch.Tensor) -> Any:
        """Call a block, on its device, with the hidden states and the rest."""
        device = next(block.parameters()).device
        hidden, others, keywords = hidden.to(device), moved(self.others, device), moved(dict(self.keywords), device)
        return block(*others, **{self.name: hidden}, **keywords) if self.name else block(hidden, *others, **keywords)


class Answer(NamedTuple):
    """The form of what a block returns: the hidden states (kind None), or a tuple or list of `length` entries in which they
    are the one at `place`."""

    kind: type | None = None
    place: int = 0
    length: int = 1

    @classmethod
    def of(cls, answer: Any, hidden: torch.Tensor) -> Answer:
        """Read the form off an answer: hidden states have the shape of what the block was given. ValueError: none have."""
        if isinstance(answer, torch.Tensor) and answer.shape == hidden.shape:
            return cls()
        if type(answer) in (tuple, list):
            for place, each in enumerate(answer):
                if isinstance(each, torch.Tensor) and each.shape == hidden.shape:
                    return cls(type(answer), place, len(answer))
        raise ValueError(f"it returns a {type(answer).__name__} without hidden states like those that it is given")

    def states(self, answer: Any) -> torch.Tensor:
        """The hidden states of an answer."""
        states: torch.Tensor = answer if self.kind is None else answer[self.place]
        return states

    def filled(self, states: torch.Tensor) -> Any:
        """An answer of this form with these hidden states, and with nothing else."""
        if self.kind is None:
            return states
        return self.kind(states if place == self.place else None for place in range(self.length))


def alike(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Tell whether two tensors hold the same numbers, bit for bit, NaN among them."""
    if first is second:
        return True
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    second = second.to(first.device)
    return bool(((first == second) | (first.isnan() & second.isnan())).all())


def moved(value: Any, device: torch.device) -> Any:
    """Move tensors, also those inside tuples, lists and dicts, to a device; anything else is returned as it is."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: moved(each, device) for key, each in value.items()}
    return type(value)(moved(each, device) for each in value) if type(value) in (tuple, list) else value
