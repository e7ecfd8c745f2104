"""How far a model's output is from what it was: from hidden states after its last block, at some positions of every window."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch

from gramian.adapters.models.block_lists import blocks_of
from gramian.adapters.models.discovery import answers_of
from gramian.adapters.models.modes import eval_mode
from gramian.adapters.models.stand_ins import replaced_forward
from gramian.adapters.models.tasks import kind_of, token_inputs, trunk_of

__all__ = ["MEASURES", "Ending", "mean_over", "predicts_tokens"]

ROWS = 2**24  # logits that exist at a time, of every copy


class Ending:
    """What a model makes of the hidden states that leave its last block: logits at some positions, or last hidden states.

    windows: (n, length). positions: how many of all windows, spread evenly. predicts: whether it is logits. Where a model's
    head takes the hidden states from elsewhere than the trunk, logits are made of all positions.
    """

    def __init__(self, model: Any, windows: torch.Tensor, positions: int, predicts: bool) -> None:
        self.model, self.predicts, self.sliced = model, predicts, True
        each = max(1, min(windows.shape[1], positions // len(windows)))
        # The last position of every stretch: a prediction from a single token says little.
        self.positions = torch.arange(1, each + 1) * windows.shape[1] // each - 1

    def outputs(self, rows: torch.Tensor, leaving: torch.Tensor) -> torch.Tensor:
        """The outputs (tokens, vocabulary or width) for windows whose last block returned `leaving` (rows, length, width), with
        gradients where that has them."""
        with torch.set_grad_enabled(leaving.requires_grad):
            return self.made(rows, leaving)

    def made(self, rows: torch.Tensor, leaving: torch.Tensor) -> torch.Tensor:
        """The same, with gradients as they are enabled."""
        inputs = token_inputs(self.model, rows)
        trunk = trunk_of(self.model)
        with ExitStack() as stack:
            for block, answer in zip(blocks_of(self.model), answers_of(self.model), strict=True):
                stack.enter_context(replaced_forward(block, answering(answer.filled(leaving))))
            if self.predicts and not self.sliced:
                logits: torch.Tensor = self.model(**inputs).logits
                return logits[:, self.positions.to(leaving.device)].flatten(0, -2)
            ended = trunk(**inputs)
        states: torch.Tensor = ended[0][:, self.positions.to(leaving.device)]
        if self.predicts:
            calls: list[object] = []
            with replaced_forward(trunk, answering(dataclasses.replace(ended, last_hidden_state=states), calls)):
                states = self.model(**inputs).logits
            if not calls:  # its head asks a part of the trunk, and those were its own logits
                self.sliced = False
                return self.made(rows, leaving)
        return states.flatten(0, -2)

    @torch.no_grad()
    def check(self, rows: torch.Tensor, leaving: torch.Tensor) -> None:
        """See to it that these are the model's own outputs. ValueError for a model whose output is not made of those hidden
        states alone."""
        with eval_mode(self.model):
            whole = (self.model if self.predicts else trunk_of(self.model))(**token_inputs(self.model, rows))
        expected = (whole.logits if self.predicts else whole[0])[:, self.positions.to(leaving.device)].flatten(0, -2)
        tolerance = torch.finfo(expected.dtype).eps ** 0.5 * float(expected.abs().max())
        for self.sliced in (True, False):
            found = self.outputs(rows, leaving)
            if found.shape == expected.shape and float((found - expected).abs().max()) <= tolerance:
                return
        raise ValueError(
            f"the output of {type(self.model).__name__} does not follow from what leaves its last block, so that what "
            "a block is worth cannot be judged by it"
        )


def predicts_tokens(model: Any) -> bool:
    """Whether a model has logits of the next token."""
    return kind_of(model.config) == "causal" and model.get_output_embeddings() is not None and trunk_of(model) is not model


def answering(answer: Any, calls: list[object] | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """What makes a forward return this answer, whatever it is given. calls: grows with every call."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        if calls is not None:
            calls.append(answer)
        return answer

    return lambda _: forward


def divergences(dense: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    """KL(p_t | q_t) in nats of every row t, p and q the softmax of logits (n, vocabulary)."""
    p, q = (each.float().log_softmax(-1) for each in (dense, found))
    return (p.exp() * (p - q)).sum(-1, dtype=torch.float64)


def angles(dense: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    """arccos of the cosine of every pair of rows, as 2 arcsin(|a - b| / 2) of unit vectors, which loses no digits at 0."""
    a, b = (torch.nn.functional.normalize(each.double(), dim=-1) for each in (dense, found))
    chord: torch.Tensor = (a - b).norm(dim=-1)
    return 2 * (chord / 2).clamp(max=1).arcsin()


def distances(dense: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    """|h_t - g_t|^2 / |h_t|^2 of every pair of rows, where zero over zero is zero."""
    energy, apart = dense.double().square().sum(-1), (dense.double() - found.double()).square().sum(-1)
    return torch.where(apart > 0, apart / energy, torch.zeros_like(apart))


MEASURES = {"output": divergences, "finercut": angles, "hidden": distances}


def mean_over(measure: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], dense: torch.Tensor, found: torch.Tensor) -> float:
    """The mean over rows, a few at a time, as logits of a large vocabulary are many."""
    some = max(1, ROWS // dense.shape[-1])
    return float(torch.cat([measure(*pair) for pair in zip(dense.split(some), found.split(some))]).mean())
