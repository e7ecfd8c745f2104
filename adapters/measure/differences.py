"""What a model and the dense one say of the same text, token by token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from transformers import PreTrainedModel

from gramian.adapters.measure.next_tokens import NextTokens, first_predicted
from gramian.progress import bar

__all__ = ["Compared", "buckets", "compared"]

FIRST_BUCKET = 16  # tokens in the first bucket of positions; every further one is as long as all before it


@dataclass(frozen=True)
class Compared:
    """Of every predicted token of n windows, (n, t) each, in float64.

    losses: -log p. dense_losses: the same of the dense model. divergence: KL(dense || model), the sum over the vocabulary of
    q log(q / p). agreement: 1 where both find the same token likeliest. The last three are None without a dense model. first:
    the place in its window of the first token that is predicted."""

    losses: np.ndarray
    dense_losses: np.ndarray | None
    divergence: np.ndarray | None
    agreement: np.ndarray | None
    first: int


@torch.no_grad()
def compared(
    model: PreTrainedModel, dense: PreTrainedModel | None, rows: torch.Tensor, *, batch: int = 1, progress: bool = True
) -> Compared:
    """Compare models in evaluation mode on windows (n, length). ValueError names a window whose losses are not finite."""
    models = [model] if dense is None else [model, dense]
    predictors = [NextTokens.of(each, rows[:1, :8]) for each in models]
    first = first_predicted(model, rows.shape[1])
    found: list[torch.Tensor] = []
    with bar(len(rows), "held-out text", "window", progress) as done:
        for start in range(0, len(rows), batch):
            chunk = rows[start : start + batch]
            predicted = torch.zeros(chunk.shape, dtype=torch.bool)
            predicted[:, first:] = True
            parts = list(compared_parts(predictors, chunk, predicted))
            figures = torch.cat(parts, dim=1).cpu().double().view(-1, len(chunk), chunk.shape[1] - first)
            check_finite(models, figures, start)
            found.append(figures)
            done.update(len(chunk))
    columns: list[np.ndarray] = [each.numpy() for each in torch.cat(found, dim=1)]
    if dense is None:
        return Compared(columns[0], None, None, None, first)
    return Compared(columns[0], columns[1], columns[2], columns[3], first)


def compared_parts(predictors: list[NextTokens], rows: torch.Tensor, predicted: torch.Tensor) -> Iterator[torch.Tensor]:
    """The figures of some tokens at a time, (1, tokens) or (4, tokens) in the order of `Compared`."""
    wanted, done = rows[predicted], 0
    for slices in zip(*(each.logits(rows, predicted) for each in predictors), strict=True):
        logs = [each.to(slices[0].device).log_softmax(dim=1) for each in slices]
        target = wanted[done : done + len(logs[0]), None].to(logs[0].device)
        losses = [-each.gather(1, target).squeeze(1) for each in logs]
        done += len(target)
        if len(logs) == 1:
            yield torch.stack(losses)
            continue
        ours, theirs = logs
        # A token that the dense model rules out adds nothing, whatever the other says of it.
        terms = torch.where(theirs.isneginf(), 0, theirs.exp() * (theirs - ours))
        agreed = (ours.argmax(dim=1) == theirs.argmax(dim=1)).to(terms.dtype)
        yield torch.stack([*losses, terms.sum(dim=1), agreed])


def check_finite(models: list[PreTrainedModel], figures: torch.Tensor, first: int) -> None:
    """Raise ValueError, naming the model and the window, for losses (figures, windows, t) that are not finite."""
    for model, name, losses in zip(models, ("the model", "the dense model"), figures):
        good = losses.isfinite().all(dim=1)
        if not good.all():
            raise ValueError(
                f"the losses of {name}, {type(model).__name__}, are NaN or infinite at window "
                f"{first + int(good.int().argmin())}: its weights are damaged, or its activations overflow in "
                f"{str(model.dtype).removeprefix('torch.')} (try float32)"
            )


def buckets(first: int, length: int) -> list[tuple[int, int]]:
    """Ranges of places [start, end) that are predicted in a window, each as long as all before it but for the last, from the
    first that is predicted."""
    ends = [FIRST_BUCKET]
    while ends[-1] < length:
        ends.append(2 * ends[-1])
    edges = sorted({first, *(end for end in ends if first < end < length), length})
    if len(edges) > 2 and edges[-1] - edges[-2] < FIRST_BUCKET:  # the window's last token, say, after a begin token
        del edges[-2]
    return list(pairwise(edges))
