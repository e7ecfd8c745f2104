"""Greedy continuations of prompts by two models, and how long they are the same."""

from __future__ import annotations

from itertools import islice

import numpy as np
import torch
from transformers import PreTrainedModel

from gramian.adapters.models.caches import continued
from gramian.progress import bar

__all__ = ["agreement_lengths", "greedy"]

PROMPTS = 16  # that are continued at a time


def greedy(model: PreTrainedModel, prompts: torch.Tensor, count: int, *, progress: bool = True) -> torch.Tensor:
    """The likeliest token, `count` times, after prompts (n, length): (n, count). End tokens end nothing.

    The model is causal and in evaluation mode."""
    found = []
    vocabulary = model.config.get_text_config().vocab_size
    with bar(len(prompts) * count, "continuations", "token", progress) as done:
        for chunk in prompts.split(PROMPTS):
            tokens = []
            for logits in islice(continued(model, chunk), count):
                tokens.append(logits[..., :vocabulary].argmax(dim=-1))
                done.update(len(chunk))
            found.append(torch.cat(tokens, dim=1).cpu())
    return torch.cat(found)


def agreement_lengths(one: torch.Tensor, other: torch.Tensor) -> np.ndarray:
    """How many tokens of continuations (n, count) are equal before the first that differ, (n,)."""
    lengths: np.ndarray = (one == other).long().cumprod(dim=1).sum(dim=1).numpy()
    return lengths
