"""How well a model answers texts that have labels: its loss, and how often it is right."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from gramian.adapters.data.tokens import TokensLike, check_windows, samples_of, windows_of
from gramian.adapters.models.examples import Examples
from gramian.adapters.models.modes import eval_mode
from gramian.adapters.models.tasks import check_labels, predictions, token_inputs
from gramian.adapters.models.wrappers import plain_model

__all__ = ["Answers", "answered"]


@dataclass(frozen=True, eq=False)
class Answers:
    """losses: of every text, (n,), the mean over its labels of -log p, or the squared error of a number. right: for every text
    the part of its labels that had the largest logit, (n,), None for numbers."""

    losses: torch.Tensor
    right: torch.Tensor | None

    @property
    def loss(self) -> float:
        """The mean over texts."""
        return float(self.losses.mean())

    @property
    def accuracy(self) -> float | None:
        """The mean over texts."""
        return None if self.right is None else float(self.right.mean())

    def __repr__(self) -> str:
        right = "" if self.accuracy is None else f", accuracy {self.accuracy:.4f}"
        return f"Answers({len(self.losses)} texts, loss {self.loss:.4f}{right})"


@torch.no_grad()
def answered(model: PreTrainedModel, texts: TokensLike) -> Answers:
    """-log p(label | text), and whether the label has the largest logit, for every text with labels, in float64.

    texts: with labels, in any form that `windows_of` takes. ValueError: windows without labels, labels that the model does not
    predict, tokens that it cannot read, a loss that is not finite."""
    model, given = plain_model(model), windows_of(texts, "texts")
    if given.labels is None:
        raise ValueError("the texts have no labels, so that nothing says which answers are right: give mappings with labels")
    check_windows(model, given.windows, "texts")
    check_labels(model, given.labels)
    losses, right = [], []
    with eval_mode(model):
        for rows in samples_of(given):
            assert isinstance(rows, Examples)
            logits, targets = predictions(model, model(**token_inputs(model, rows)), rows)
            if targets.is_floating_point():
                losses.append(((logits.double().squeeze(-1) - targets.double()) ** 2).mean().cpu())
                continue
            losses.append(torch.nn.functional.cross_entropy(logits.double(), targets).cpu())
            right.append((logits.argmax(dim=-1) == targets).double().mean().cpu())
    found = Answers(torch.stack(losses), torch.stack(right) if right else None)
    if not bool(torch.isfinite(found.losses).all()):
        raise ValueError(f"the loss of {type(model).__name__} is not finite on the texts")
    return found
