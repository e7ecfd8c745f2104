"""Calibration text sampled from the model itself, where there is no other."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gramian.adapters.data.context import begin_token, context_of
from gramian.adapters.data.tokens import Tokens
from gramian.adapters.models.caches import cache_keyword
from gramian.adapters.models.modes import eval_mode
from gramian.adapters.models.tasks import kind_of
from gramian.progress import bar

__all__ = ["check_sampling", "sampled_tokens"]

WINDOWS_PER_BATCH = 16


@torch.no_grad()
def sampled_tokens(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    samples: int,
    length: int,
    seed: int,
    progress: bool = True,
) -> Tokens:
    """w_t ~ p(. | w_0, ..., w_(t-1)): draw windows from the model's own distribution at temperature 1; w_0 is its begin token.

    Shapes are those of text: (samples, length + 1) with a begin token; without one the first of `length` tokens is drawn from
    the whole vocabulary. A window goes on after an end token. The same seed gives the same windows on the same machine.
    Source: Greedy Output Approximation, Section 4.2 (self-generation). ValueError: that of `check_sampling`, and for
    logits that are not finite.
    """
    width = check_sampling(model, tokenizer, length)
    keyword = cache_keyword(model)
    config = model.config.get_text_config()
    begin, generator = begin_token(model, tokenizer), torch.Generator().manual_seed(seed)
    batches = []
    with eval_mode(model), bar(samples * (width - 1), "sampling", "token", progress) as shown:
        for count in [min(WINDOWS_PER_BATCH, samples - done) for done in range(0, samples, WINDOWS_PER_BATCH)]:
            first = torch.randint(config.vocab_size, (count, 1), generator=generator)
            windows, cache = [first if begin is None else torch.full((count, 1), begin)], None
            while len(windows) < width:
                made: Any = model(input_ids=windows[-1].to(model.device), use_cache=True, **{keyword: cache})
                cache = getattr(made, keyword)
                windows.append(drawn(made.logits[:, -1, : config.vocab_size], generator))
                shown.update(count)
            batches.append(torch.cat(windows, dim=1))
    return Tokens(torch.cat(batches), "self", seed)


def check_sampling(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, length: int) -> int:
    """Return the length of windows, a begin token included. ValueError: a model that does not continue text, a begin token that
    it does not know, windows longer than its context."""
    if kind_of(model.config) != "causal":
        raise ValueError(
            f"{type(model).__name__} does not continue text, so none can be sampled from it: calibrate on a text or token file"
        )
    config, begin = model.config.get_text_config(), begin_token(model, tokenizer)
    if begin is not None and not 0 <= begin < config.vocab_size:
        raise ValueError(
            f"the begin token {begin} is outside the model's vocabulary of {config.vocab_size}: set bos_token_id in its "
            "configuration, or calibrate on a token file"
        )
    width, context = length + (begin is not None), context_of(model)
    if context is not None and width > context:
        raise ValueError(
            f"windows of {width} tokens, a begin token included, do not fit in the model's context of {context}: use a "
            "smaller length"
        )
    return width


def drawn(logits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw a token for every row of logits (n, vocabulary); the result is (n, 1)."""
    if not bool(torch.isfinite(logits).all()):
        raise ValueError("the model's logits hold NaN or Inf, so no text can be sampled from it")
    return torch.multinomial(logits.double().softmax(dim=-1).cpu(), 1, generator=generator)
