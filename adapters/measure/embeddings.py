"""Embeddings of texts by models that predict no next token, and how near pruned models are to dense ones."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from gramian.adapters.data.tokens import TokensLike, check_windows, samples_of, windows_of
from gramian.adapters.models.modes import eval_mode
from gramian.adapters.models.tasks import kind_of, token_inputs
from gramian.adapters.models.wrappers import plain_model

__all__ = ["cosines", "embed", "mean_cosine", "neighbours_kept"]


@torch.no_grad()
def embed(model: PreTrainedModel, windows: TokensLike) -> torch.Tensor:
    """mean_t h_t over the tokens t of every window (n, length), with h the last hidden states: (n, width) in float32.

    The hidden states of an encoder are its own, as sentence encoders are used; those of a sequence-to-sequence model are the
    decoder's, which depend on both stacks. windows: in any form that `windows_of` takes. ValueError is raised for windows that
    the model cannot read, and where `plain_model` raises it.
    """
    model, given = plain_model(model), windows_of(windows)
    check_windows(model, given.windows)
    found = []
    with eval_mode(model):
        for rows in samples_of(given):
            answer = model(**token_inputs(model, rows), output_hidden_states=True)
            states = answer.decoder_hidden_states if kind_of(model.config) == "seq2seq" else answer.hidden_states
            found.append(states[-1][0].float().mean(dim=0).cpu())
    return torch.stack(found)


def mean_cosine(before: torch.Tensor, after: torch.Tensor) -> float:
    """mean over rows of <a, b> / (|a| |b|), which is 1 where pruning changed nothing but lengths.

    ValueError is raised where the shapes differ."""
    return cosines(before, after).mean().item()


def cosines(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """<a, b> / (|a| |b|) of every row, (n,) in float64; ValueError is raised where the shapes differ."""
    if before.shape != after.shape:
        raise ValueError(
            f"embeddings are {tuple(before.shape)} and {tuple(after.shape)}: embed the same windows by both models"
        )
    return torch.nn.functional.cosine_similarity(before.double(), after.double())


def neighbours_kept(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Whether each of n >= 2 texts (n, width) has the same nearest other text, by cosine, before and after: (n,)."""
    return neighbours(before) == neighbours(after)


def neighbours(embeddings: torch.Tensor) -> torch.Tensor:
    """The number of the nearest other text, (n,)."""
    unit = torch.nn.functional.normalize(embeddings.double(), dim=1)
    return (unit @ unit.T).fill_diagonal_(-torch.inf).argmax(dim=1)
