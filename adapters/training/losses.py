"""What training minimises, at some positions of windows, from hidden states: logits exist for a few positions at a time.

    next token     CE = log sum_v exp(s_v) - s_w              s: logits of the model, w: the token that comes
    distillation   KL = sum_v p_v (log p_v - log q_v)         q = softmax(s), p = softmax(t), t: logits of the teacher
    both           (1 - b) CE + b KL,  with derivative  q - (1 - b) [v = w] - b p  by s

Of a vocabulary of 262,144 tokens the logits of 1024 positions are a gigabyte, and training would hold several of such tensors.
Here a chunk of positions goes through the head, its derivative by the hidden states comes back at once, and the next chunk's
logits take the place of its own, so that nothing is computed twice. The head itself is not trained.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from gramian.adapters.models.discovery import short_window
from gramian.adapters.models.stand_ins import replaced_forward
from gramian.adapters.models.tasks import token_inputs, trunk_of

__all__ = ["Head", "Losses", "Trunk", "head_of", "losses_at", "mean_loss"]

LOGITS = 2**26  # of a chunk, 256 positions of the largest vocabularies: once in float32, three times where there is a teacher


@dataclass
class Head:
    """logits(hidden (n, width)) -> (n, vocabulary), and memory for some positions of them that is used again and again: new
    pages of a gigabyte take longer each time than what is computed on them."""

    logits: Callable[[torch.Tensor], torch.Tensor]
    vocabulary: int
    kept: tuple[torch.Tensor, ...] = ()

    def room(self, rows: int, count: int, device: torch.device) -> tuple[torch.Tensor, ...]:
        """Return `count` float32 tensors (rows, vocabulary) of any content, the same until more is asked for."""
        if len(self.kept) < count or len(self.kept[0]) < rows or self.kept[0].device != device:
            self.kept = ()  # before there are others
            self.kept = tuple(torch.empty((rows, self.vocabulary), device=device) for _ in range(count))
        return tuple(each[:rows] for each in self.kept[:count])


class Losses(NamedTuple):
    """Sums over positions, float64 (): of CE, and of KL, which is 0 where there is no teacher."""

    next_token: torch.Tensor
    distillation: torch.Tensor


class Trunk(nn.Module):
    """The model without its head: the last hidden states (windows, k, width) at k chosen positions (windows, k) of windows."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, rows: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Run the blocks."""
        states: torch.Tensor = trunk_of(self.model)(**token_inputs(self.model, rows)).last_hidden_state
        return states.gather(1, positions[:, :, None].expand(-1, -1, states.shape[2]))


@torch.no_grad()
def head_of(model: PreTrainedModel, dtype: torch.dtype | None = None) -> Head:
    """The way from last hidden states (n, width) to logits: the output embedding where that is all, else the model's own
    forward, run with given states in place of those of its blocks. ValueError for a model whose logits come in another way.

    dtype: of the products, where precision is mixed. An embedding is kept in it: since it is not trained, it would else be cast
    anew for every chunk of positions.
    """
    few = short_window(model)[:1]
    answer, inputs = trunk_of(model)(**token_inputs(model, few)), token_inputs(model, few)
    embedding: Any = model.get_output_embeddings()

    def own(hidden: torch.Tensor) -> torch.Tensor:
        part = dataclasses.replace(answer, last_hidden_state=hidden[None])
        with replaced_forward(trunk_of(model), lambda _: lambda *args, **kwargs: part):
            made: torch.Tensor = model(**inputs).logits[0]
        return made

    hidden, expected = answer.last_hidden_state[0], model(**inputs).logits[0].float()
    tolerance = torch.finfo(model.dtype).eps ** 0.5 * expected.abs().max()
    for way in (embedding, own):
        for most in (1, len(hidden)):  # states of another number than the tokens have to be taken
            made = way(hidden[:most]).float()
            if made.shape != expected[:most].shape or (made - expected[:most]).abs().max() > tolerance:
                break
        else:
            lower = dtype is not None and way is embedding and bare(model.get_output_embeddings())
            return Head(in_dtype(embedding, dtype) if lower else way, expected.shape[1])
    raise ValueError(
        f"{type(model).__name__} makes its logits of more than the last hidden states: train it with transformers.Trainer and "
        "callbacks=[gramian.HoldZeros(model)]"
    )


def bare(module: nn.Module) -> bool:
    """Whether a module is a linear layer in memory whose forward nothing replaces or hooks."""
    hooked = "forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks
    return type(module) is nn.Linear and not hooked and not module.weight.is_meta


def in_dtype(embedding: nn.Linear, dtype: torch.dtype | None) -> Callable[[torch.Tensor], torch.Tensor]:
    """An output embedding whose weights are in a dtype."""
    weight = embedding.weight.detach().to(dtype)
    bias = None if embedding.bias is None else embedding.bias.detach().to(dtype)
    return lambda hidden: functional.linear(hidden.to(dtype), weight, bias)


class ThroughHead(torch.autograd.Function):
    """A number and its derivative by the hidden states, which were computed together."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, value: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        """Return the number."""
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Return the derivative."""
        (slope,) = ctx.saved_tensors
        return slope * given[0], None, None


def mean_loss(
    head: Head, hidden: torch.Tensor, target: torch.Tensor, taught: tuple[Head, torch.Tensor] | None, blend: float
) -> torch.Tensor:
    """Mean over positions of (1 - b) CE + b KL, which can be differentiated by the hidden states.

    hidden: (n, width). target: the tokens that come, (n,). taught: the teacher's head and its hidden states at the same
    positions. blend: b, which is 0 without a teacher.
    """
    slope = torch.empty_like(hidden)
    found = losses_at(head, hidden.detach(), target, taught, blend, slope)
    value = ((1 - blend) * found.next_token + blend * found.distillation) / len(hidden)
    loss: torch.Tensor = ThroughHead.apply(hidden, value.to(torch.float32), slope.div_(len(hidden)))  # type: ignore[no-untyped-call]
    return loss


def losses_at(
    head: Head,
    hidden: torch.Tensor,
    target: torch.Tensor,
    taught: tuple[Head, torch.Tensor] | None,
    blend: float = 0.0,
    slope: torch.Tensor | None = None,
) -> Losses:
    """Sum CE and KL over positions, chunk by chunk. slope: where the derivative of (1 - b) CE + b KL goes, if it is wanted."""
    sums = Losses(*(torch.zeros((), dtype=torch.float64, device=hidden.device) for _ in range(2)))
    for some in torch.arange(len(hidden)).split(max(1, LOGITS // head.vocabulary)):
        chunk = slice(int(some[0]), int(some[-1]) + 1)
        given = hidden[chunk].detach().requires_grad_(slope is not None)
        with torch.set_grad_enabled(slope is not None):
            made = head.logits(given)
        with torch.no_grad():
            logits, *others = head.room(len(given), 1 if taught is None else 3, hidden.device)
            logits.copy_(made)
            if taught is not None:
                others[0].copy_(taught[0].logits(taught[1][chunk]))
            add_losses(sums, logits, target[chunk], others, blend, slope is not None)
        if slope is not None:
            (slope[chunk],) = torch.autograd.grad(made, given, logits.to(made.dtype))
    return sums


def add_losses(
    sums: Losses, logits: torch.Tensor, target: torch.Tensor, others: Sequence[torch.Tensor], blend: float, derive: bool
) -> None:
    """Add the losses of logits (n, vocabulary), which become their derivative where that is wanted. others: the teacher's
    logits, and as much memory again, both of which are used up; empty without a teacher."""
    logits.sub_(logits.amax(1, keepdim=True))
    wanted = logits.gather(1, target[:, None]).squeeze(1)
    cross = torch.zeros_like(wanted)
    if others:
        apart, shares = others
        apart.sub_(apart.amax(1, keepdim=True))
        total = torch.exp(apart, out=shares).sum(1)  # shares: p times their sum
        # sum_v p_v (t_v - s_v), both relative to their largest
        cross = apart.sub_(logits).mul_(shares).sum(1) / total - total.log()
    normal = logits.exp_().sum(1)
    sums.next_token.add_((normal.log() - wanted).double().sum())
    if others:
        sums.distillation.add_((cross + normal.log()).double().sum())
    if not derive:
        return
    logits.div_(normal[:, None])
    if others:
        logits.sub_(shares.mul_((blend / total)[:, None]))
    logits[torch.arange(len(target), device=target.device), target] -= 1 - blend
