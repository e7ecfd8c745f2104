"""What a model says of chosen tokens of windows: its logits, a few positions at a time.

With a vocabulary of 262 000 the logits of a window would be the memory peak, so the hidden states are computed once, and the
model's own head is given slices of those that are asked for. Where a model's logits are not made so, as a try on a few tokens
shows, they are made whole and then sliced.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from gramian.adapters.models.libraries import one_line
from gramian.adapters.models.stand_ins import replaced_forward
from gramian.adapters.models.tasks import kind_of, predictions, token_inputs, trunk_of

__all__ = ["LOGITS", "NextTokens", "check_causal", "first_predicted", "likelihoods", "own_logits"]

LOGITS = 2**22  # that exist at a time where the model makes them itself


@dataclass(frozen=True)
class NextTokens:
    """A model that predicts tokens of windows. sliced: whether its head may be given some of the hidden states."""

    model: PreTrainedModel
    sliced: bool

    @classmethod
    def of(cls, model: PreTrainedModel, few: torch.Tensor) -> NextTokens:
        """Try on a few tokens (1, length), length at least 2, how the logits of a model in evaluation mode can be made.

        ValueError: a model that predicts no tokens, or that cannot be run."""
        if kind_of(model.config) == "seq2seq":
            return cls(model, False)
        check_causal(model)
        try:
            inputs = token_inputs(model, few)
            expected = model(**inputs).logits
            answer = trunk_of(model)(**inputs)
        except (RuntimeError, TypeError) as error:  # of kernels that do not take its weights, or its shapes
            raise ValueError(f"{type(model).__name__} cannot be run on a few tokens: {one_line(error)}") from error
        hidden = answer.get("last_hidden_state")
        if hidden is None:
            return cls(model, False)
        made = own_logits(model, inputs, answer, hidden[:, 1:])
        tolerance = math.sqrt(torch.finfo(model.dtype).eps) * expected.abs().max()
        same = made.shape == expected[:, 1:].shape and not bool((made - expected[:, 1:]).abs().max() > tolerance)
        return cls(model, same)

    def logits(self, rows: torch.Tensor, predicted: torch.Tensor) -> Iterator[torch.Tensor]:
        """The logits of tokens of windows (n, length), float32 (some, vocabulary) at a time, in the order of the windows.

        predicted: which tokens, booleans (n, length): none before the number `first_predicted`."""
        at_a_time = max(1, LOGITS // self.model.config.get_text_config().vocab_size)
        if not self.sliced:
            logits, _ = predictions(self.model, self.model(**token_inputs(self.model, rows)), rows)
            chosen = logits[predicted[:, -logits.shape[1] :].to(logits.device)]
            for part in chosen.split(at_a_time):
                yield part.float()
            return
        inputs = token_inputs(self.model, rows)
        answer = trunk_of(self.model)(**inputs)
        states = answer.last_hidden_state[:, :-1]
        chosen = states[predicted[:, 1:].to(states.device)]
        for part in chosen.split(at_a_time):
            yield own_logits(self.model, inputs, answer, part[None])[0].float()


def likelihoods(predictor: NextTokens, rows: torch.Tensor, predicted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """log p of the tokens of windows that `predicted` names, float32 (tokens,), and whether each is the likeliest one."""
    found: list[torch.Tensor] = []
    likeliest: list[torch.Tensor] = []
    wanted = rows[predicted]
    done = 0
    for logits in predictor.logits(rows, predicted):
        target = wanted[done : done + len(logits)].to(logits.device)
        found.append(-torch.nn.functional.cross_entropy(logits, target, reduction="none"))
        likeliest.append(logits.argmax(dim=1) == target)
        done += len(logits)
    return torch.cat(found).cpu(), torch.cat(likeliest).cpu()


def first_predicted(model: PreTrainedModel, length: int) -> int:
    """The number of the first token of a window that a model predicts: the second, or the second half's first."""
    return length // 2 if kind_of(model.config) == "seq2seq" else 1


def own_logits(model: PreTrainedModel, inputs: dict[str, Any], answer: Any, hidden: torch.Tensor) -> torch.Tensor:
    """The model's own logits (n, t, vocabulary) of hidden states (n, t, width): its forward is given them in place of those
    that it would compute. answer: what the model without its head returned for the inputs."""
    part = dataclasses.replace(answer, last_hidden_state=hidden)
    with replaced_forward(trunk_of(model), answering(part)):
        logits: torch.Tensor = model(**inputs).logits
    return logits


def answering(answer: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """What makes a forward return this answer, whatever it is given."""
    return lambda _: lambda *args, **kwargs: answer


def check_causal(model: PreTrainedModel) -> None:
    """Raise ValueError for a model that does not predict the next token."""
    if kind_of(model.config) != "causal" or model.get_output_embeddings() is None or trunk_of(model) is model:
        raise ValueError(
            f"{type(model).__name__} has no language-model head that predicts the next token: perplexity needs a causal "
            "language model (AutoModelForCausalLM)"
        )
