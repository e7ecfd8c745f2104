"""Perplexity on given tokens, and whether two models differ on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel

from gramian.adapters.data.tokens import TokensLike, check_windows, plain_windows
from gramian.adapters.measure.next_tokens import LOGITS, check_causal, own_logits
from gramian.adapters.models.libraries import one_line
from gramian.adapters.models.modes import eval_mode
from gramian.adapters.models.tasks import token_inputs, trunk_of
from gramian.adapters.models.wrappers import plain_model
from gramian.progress import bar

__all__ = ["Perplexity", "paired_difference", "perplexity"]

VOCABULARY = 2048  # entries whose logits exist at a time: few enough to be in the cache still when they are summed


@dataclass(frozen=True)
class Perplexity:
    """value = exp(mean of losses), where losses are negative log-likelihoods in nats, float32 of shape (tokens,)."""

    value: float
    losses: torch.Tensor

    @property
    def tokens(self) -> int:
        """The number of tokens predicted."""
        return self.losses.numel()

    def __repr__(self) -> str:
        """One line: the value and the number of tokens."""
        return f"Perplexity({self.value:.4g}, {self.tokens} tokens)"


def perplexity(model: PreTrainedModel, windows: TokensLike, *, batch: int = 1, progress: bool = True) -> Perplexity:
    """exp(-mean log p(w_t | w_0, ..., w_(t-1))) over t = 1, 2, ... of every window.

    Logits exist only for a slice of the vocabulary at a time, because with a large vocabulary they would be the memory peak.
    Where they are more than one linear map of the last hidden states, capped or not, the model makes them itself, for a few
    positions at a time.

    Parameters
    ----------
    model : PreTrainedModel
        A causal language model, which may be compiled or in a `DataParallel`.
    windows : Tokens, tensor, array, nested lists, mapping or iterable
        Windows of token ids, integers of shape (n, length) with length at least 2 and no padding: what `calibration` returns, a
        tensor, an array or nested lists, a mapping with `input_ids` such as a tokeniser returns, or an iterable of such windows
        or batches, such as a `DataLoader` or a `datasets.Dataset`.
    batch : int
        The number of windows that go through the model at a time.
    progress : bool
        Whether it is shown how many windows are done.

    Returns
    -------
    Perplexity
        The value, and the loss of every predicted token, (n (length - 1),), window by window.

    Raises
    ------
    ValueError
        For windows of another shape, with padding, or of several lengths; tokens outside the vocabulary, windows longer than
        the model's context, a batch below 1; a model that is no causal language model, or that has adapters of PEFT. Naming the
        window, losses that are not finite; and a mean loss whose exponential is not.

    Examples
    --------
    A model whose logits are all equal finds every token of its vocabulary equally likely:

    >>> import torch
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> import gramian
    >>> sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 24}
    >>> model = LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=1, num_attention_heads=2))
    >>> _ = torch.nn.init.zeros_(model.lm_head.weight)
    >>> gramian.perplexity(model, torch.arange(32).reshape(2, 16), progress=False)
    Perplexity(32, 30 tokens)
    """
    model, rows = plain_model(model), plain_windows(windows)
    check_causal(model)
    check_windows(model, rows)
    if batch < 1:
        raise ValueError(f"batch is {batch}, must be at least 1")
    losses = []
    with bar(len(rows), "perplexity", "window", progress) as done, eval_mode(model), torch.no_grad():
        losses_of = _way(model, rows[:1, :8])
        for first, chunk in zip(range(0, len(rows), batch), rows.split(batch)):
            losses.append(losses_of(chunk).cpu())
            _check_finite(model, losses[-1].view(len(chunk), -1), first)
            done.update(len(chunk))
    joined = torch.cat(losses)
    mean = joined.double().mean()
    if mean.exp().isinf():
        raise ValueError(
            f"the mean loss of {type(model).__name__} is {mean.item():.4g} nats, whose exponential is too large for a number: "
            "equal logits would have the logarithm of the vocabulary's size, so its weights are damaged"
        )
    return Perplexity(mean.exp().item(), joined)


def paired_difference(a: Perplexity, b: Perplexity) -> tuple[float, float]:
    """mean over tokens of loss_a - loss_b in nats, and its standard error, for losses on the same tokens.

    A negative mean says that `a` predicts better, and it is clear when it exceeds two standard errors. ValueError is raised
    where the numbers of tokens differ.
    """
    if a.tokens != b.tokens:
        raise ValueError(f"losses are of {a.tokens} and {b.tokens} tokens: evaluate both models on the same windows")
    difference = a.losses.double() - b.losses.double()
    return difference.mean().item(), difference.std().item() / math.sqrt(a.tokens)


def _way(model: PreTrainedModel, few: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """The first way of computing losses that makes the model's own logits on a few tokens: from slices of its output embedding,
    by itself from slices of the hidden states, or by itself from all of them. ValueError for a model that cannot be run."""
    try:
        expected = model(**token_inputs(model, few)).logits.float()
    except (RuntimeError, TypeError) as error:  # of kernels that do not take its weights, or its shapes
        raise ValueError(f"{type(model).__name__} cannot be run on a few tokens: {one_line(error)}") from error
    head, hidden = _Head.of(model), _answer(model, few).get("last_hidden_state")
    tolerance = math.sqrt(torch.finfo(model.dtype).eps) * expected.abs().max()

    def same(logits: torch.Tensor) -> bool:
        return logits.shape == expected.shape and not bool((expected - logits.float()).abs().max() > tolerance)

    if head is not None and hidden is not None and same(head.logits(hidden)):
        return lambda chunk: _sliced_losses(model, head, chunk)
    if hidden is not None and same(torch.cat(list(_own_logits(model, few, 3)), dim=1)):
        return lambda chunk: _own_losses(model, chunk, max(1, LOGITS // (len(chunk) * expected.shape[-1])))
    return lambda chunk: _own_losses(model, chunk, 0)


class _Head(NamedTuple):
    """logits = cap tanh(embedding(h) / cap), the cap only where the model has one."""

    embedding: torch.nn.Linear
    cap: float | None

    @classmethod
    def of(cls, model: PreTrainedModel) -> _Head | None:
        """The head of a model, if it is of this form at all."""
        embedding = model.get_output_embeddings()
        if not isinstance(embedding, torch.nn.Linear):
            return None
        return cls(embedding, getattr(model.config.get_text_config(), "final_logit_softcapping", None))

    def logits(self, hidden: torch.Tensor, entries: slice = slice(None)) -> torch.Tensor:
        """The logits of some entries of the vocabulary, float32."""
        bias = self.embedding.bias
        logits = torch.nn.functional.linear(hidden, self.embedding.weight[entries], None if bias is None else bias[entries])
        logits = logits.float()
        return logits if self.cap is None else logits.div_(self.cap).tanh_().mul_(self.cap)

    def losses(self, hidden: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """log sum_v exp(logits_v) - logits_target at every position, (n,).

        Slices of the vocabulary are summed relative to the largest logit so far."""
        most = torch.full(target.shape, -math.inf, device=hidden.device)
        total, wanted = torch.zeros_like(most), torch.zeros_like(most)
        for first in range(0, len(self.embedding.weight), VOCABULARY):
            logits = self.logits(hidden, slice(first, first + VOCABULARY))
            place = target - first
            inside = (place >= 0) & (place < logits.shape[1])
            picked = logits.gather(1, place.clamp(0, logits.shape[1] - 1)[:, None]).squeeze(1)
            wanted = torch.where(inside, picked, wanted)
            higher = torch.maximum(most, logits.amax(1))
            total = total * torch.exp(most - higher) + logits.sub_(higher[:, None]).exp_().sum(1)
            most = higher
        return most + total.log() - wanted


def _answer(model: PreTrainedModel, chunk: torch.Tensor) -> Any:
    """What the model without its head returns, the last hidden states (windows, length, width) among it."""
    return trunk_of(model)(**token_inputs(model, chunk))


def _sliced_losses(model: PreTrainedModel, head: _Head, chunk: torch.Tensor) -> torch.Tensor:
    """The losses of all predicted tokens of some windows, (windows (length - 1),), by slices of the vocabulary."""
    hidden = _answer(model, chunk).last_hidden_state[:, :-1].flatten(0, 1)
    target = chunk[:, 1:].flatten().to(hidden.device)
    return head.losses(hidden, target)


def _own_losses(model: PreTrainedModel, chunk: torch.Tensor, positions: int) -> torch.Tensor:
    """The same from logits that the model makes itself, of so many positions at a time, all at once where that is 0."""
    some = _own_logits(model, chunk, positions) if positions else iter([model(**token_inputs(model, chunk)).logits])
    losses: list[torch.Tensor] = []
    first = 0
    for logits in some:
        target = chunk[:, 1 + first : 1 + first + logits.shape[1]].to(logits.device)
        logits = logits[:, : target.shape[1]].float()  # what follows the last token is unknown
        losses.append(torch.nn.functional.cross_entropy(logits.transpose(1, 2), target, reduction="none"))
        first += target.shape[1]
    return torch.cat(losses, dim=1).flatten()


def _own_logits(model: PreTrainedModel, chunk: torch.Tensor, positions: int) -> Iterator[torch.Tensor]:
    """The model's own logits, (windows, positions, vocabulary) at a time, from hidden states that are computed once."""
    answer, inputs = _answer(model, chunk), token_inputs(model, chunk)
    for hidden in answer.last_hidden_state.split(positions, dim=1):
        yield own_logits(model, inputs, answer, hidden)


def _check_finite(model: PreTrainedModel, losses: torch.Tensor, first: int) -> None:
    """Raise ValueError, naming the window, unless losses (windows, length - 1) of windows from number `first` are finite."""
    good = losses.isfinite().all(dim=1)
    if not good.all():
        dtype = str(model.dtype).removeprefix("torch.")
        raise ValueError(
            f"the losses of {type(model).__name__} are NaN or infinite at window {first + int(good.int().argmin())}, so there "
            f"is no perplexity: its weights are damaged, or its activations overflow in {dtype} (try float32)"
        )
