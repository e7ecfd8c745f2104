"""What models keep of the tokens that they have read, and what that is called."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from transformers import PreTrainedModel

__all__ = ["continued", "decoded", "next_logits"]


def cache_keyword(model: PreTrainedModel) -> str:
    """The keyword under which a model takes, and returns, its cache."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"  # before transformers 5.24


@torch.no_grad()
def next_logits(model: PreTrainedModel, rows: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:
    """The logits (n, vocabulary) of the token after rows (n, length), which follow what is in the cache, None for nothing; and
    the cache with them."""
    keyword = cache_keyword(model)
    last = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    answer: Any = model(input_ids=rows.to(model.device), use_cache=True, **{keyword: cache}, **last)
    return answer.logits[:, -1], getattr(answer, keyword)


def continued(model: PreTrainedModel, prompts: torch.Tensor) -> Iterator[torch.Tensor]:
    """The logits of the token after prompts (n, length), and after every further one that the likeliest is taken as: (n, 1,
    vocabulary) at every step, without an end, from a causal model with its cache."""
    rows, cache = prompts, None
    while True:
        logits, cache = next_logits(model, rows, cache)
        yield logits[:, None]
        rows = logits.argmax(dim=-1)[:, None]


@torch.no_grad()
def decoded(model: Any, prompts: torch.Tensor, start: int) -> Iterator[torch.Tensor]:
    """The same of a sequence-to-sequence model, whose encoder reads the prompts and whose decoder begins with a start token."""
    keyword, cache = cache_keyword(model), None
    read = model.get_encoder()(input_ids=prompts.to(model.device))
    rows = torch.full((len(prompts), 1), start, device=model.device)
    while True:
        answer = model(encoder_outputs=read, decoder_input_ids=rows, use_cache=True, **{keyword: cache})
        cache, logits = getattr(answer, keyword), answer.logits[:, -1:]
        yield logits
        rows = logits.argmax(dim=-1)
