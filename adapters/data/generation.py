"""Calibration text sampled from the model itself, where there is no other."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gramian.adapters.data.context import begin_token, context_of
from gramian.adapters.data.tokens import Tokens
from gramian.adapters.models.caches import next_logits
from gramian.adapters.models.modes import eval_mode
from gramian.adapters.models.tasks import kind_of
from gramian.progress import Bar, bar

__all__ = ["check_sampling", "going_on", "sampled_tokens"]

WINDOWS_PER_BATCH = 32
TOKENS_PER_BATCH = 16384  # at most, since what a model keeps of them grows with them


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
    vocabulary, begin = model.config.get_text_config().vocab_size, begin_token(model, tokenizer)
    generator, batches = torch.Generator().manual_seed(seed), []
    with eval_mode(model), bar(samples * (width - 1), "sampling", "token", progress) as shown:
        most = windows_at_once(width)
        for count in [min(most, samples - done) for done in range(0, samples, most)]:
            first = torch.randint(vocabulary, (count, 1), generator=generator)
            begun = first if begin is None else torch.full((count, 1), begin)
            batches.append(gone_on(model, begun, width, generator, shown))
    return Tokens(torch.cat(batches), "self", seed)


@torch.no_grad()
def going_on(
    model: PreTrainedModel, windows: torch.Tensor, count: int, prompt: int, *, seed: int, progress: bool = True
) -> torch.Tensor:
    """w_t ~ p(. | w_0, ..., w_(t-1)) for t >= prompt: `count` windows, as long as those given (n, length), that begin as parts
    of these do and that the model goes on with at temperature 1.

    Every window gives as many prompts as another, or one more, which begin at places evenly apart. Where all windows begin with
    the begin token of the model's configuration, every prompt has it, too, before `prompt` tokens of its own.
    """
    begin = begin_token(model, None)
    begins = begin is not None and bool((windows[:, 0] == begin).all())
    own, prompt, width = prompt, prompt + begins, windows.shape[1]
    turns = -(-count // len(windows))
    starts = torch.linspace(int(begins), width - own, turns + 1)[:-1].long().tolist()
    prompts = torch.cat([torch.cat([windows[:, :begins], windows[:, start : start + own]], dim=1) for start in starts])[:count]
    generator = torch.Generator().manual_seed(seed)
    with eval_mode(model), bar(count * (width - prompt), "sampling", "token", progress) as shown:
        return torch.cat([gone_on(model, each, width, generator, shown) for each in prompts.split(windows_at_once(width))])


def windows_at_once(width: int) -> int:
    """How many windows of so many tokens are sampled at a time."""
    return max(1, min(WINDOWS_PER_BATCH, TOKENS_PER_BATCH // width))


def gone_on(model: PreTrainedModel, begun: torch.Tensor, width: int, generator: torch.Generator, shown: Bar) -> torch.Tensor:
    """Windows (n, width) that begin with the given tokens (n, k), every further one drawn from the model's distribution."""
    windows, cache = [begun], None
    for _ in range(width - begun.shape[1]):
        logits, cache = next_logits(model, windows[-1], cache)
        windows.append(drawn(logits[:, : model.config.get_text_config().vocab_size], generator))
        shown.update(len(begun))
    return torch.cat(windows, dim=1)


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
    """Draw a token for every row of logits (n, vocabulary): the first at which the sum of probabilities, in float64, exceeds a
    uniform number. The result is (n, 1), on the CPU."""
    if not bool(torch.isfinite(logits).all()):
        raise ValueError("the model's logits hold NaN or Inf, so no text can be sampled from it")
    exact = torch.promote_types(logits.dtype, torch.float32)
    logits = logits.to(exact)
    odds = (logits - logits.amax(dim=-1, keepdim=True)).exp().cpu()  # on a GPU sums come in no certain order
    sums = odds.cumsum(dim=-1, dtype=torch.float64)
    level = torch.rand((len(logits), 1), generator=generator, dtype=torch.float64) * sums[:, -1:]
    return torch.searchsorted(sums, level, right=True).clamp(max=logits.shape[-1] - 1)
