"""Figures of an evaluation on text: likelihood, agreement with the dense model, continuations, embeddings."""

from __future__ import annotations

import numpy as np

from gramian.adapters.data.context import context_of
from gramian.adapters.evaluation.figures import Figure, paired
from gramian.adapters.evaluation.pairs import Pair
from gramian.adapters.measure.continuations import agreement_lengths, greedy
from gramian.adapters.measure.differences import buckets, compared
from gramian.adapters.measure.embeddings import cosines, embed, neighbours_kept
from gramian.progress import bar

__all__ = ["continuation_figures", "embedding_figures", "text_figures"]

PROMPT = 32  # tokens of a window that are continued, at most half of it
CONTINUED = 32  # tokens that follow a prompt


def text_figures(pair: Pair) -> list[Figure]:
    """Perplexity, also by position, and beside the dense model divergence and agreement; an item is a window."""
    found = compared(pair.model, pair.dense, pair.rows, progress=pair.shown)

    def perplexity(part: str, name: str, columns: slice) -> Figure:
        theirs = None if found.dense_losses is None else found.dense_losses[:, columns].mean(axis=1)
        return paired(part, name, found.losses[:, columns].mean(axis=1), theirs, pair.seed, perplexity=True)

    figures = [perplexity("text", "perplexity", slice(None))]
    for name, values in (
        ("KL(dense || model), nats per token", found.divergence),
        ("top-1 agreement with the dense model", found.agreement),
    ):
        if values is not None:
            figures.append(paired("text", name, values.mean(axis=1), None, pair.seed))
    for start, end in buckets(found.first, pair.rows.shape[1]):
        columns = slice(start - found.first, end - found.first)
        figures.append(perplexity("positions", f"perplexity, tokens {start} to {end - 1} of the window", columns))
    return figures


def continuation_figures(pair: Pair) -> list[Figure]:
    """How long greedy continuations of the first tokens of every window are those of the dense model."""
    prompts = pair.rows[:, : max(1, min(PROMPT, pair.rows.shape[1] // 2))]
    contexts = [most for each in (pair.model, pair.dense) if each is not None and (most := context_of(each)) is not None]
    count = max(1, min([CONTINUED, *(most - prompts.shape[1] for most in contexts)]))
    ours, theirs = pair.both(lambda each: greedy(each, prompts, count, progress=pair.shown))
    assert theirs is not None  # these are figures of two models
    lengths = agreement_lengths(ours, theirs).astype(np.float64)
    rows = {
        f"equal tokens before the first other one, of {count}": lengths,
        f"share of {count} tokens before the first other one": lengths / count,
        f"continuations of {count} tokens that are the same": (lengths == count).astype(np.float64),
    }
    return [paired("continuations", name, values, None, pair.seed) for name, values in rows.items()]


def embedding_figures(pair: Pair) -> list[Figure]:
    """How far embeddings of windows move, and whether their nearest neighbours stay."""
    with bar(2, "embeddings", "model", pair.shown) as done:
        ours, theirs = pair.both(lambda each: embed(each, pair.rows))
        done.update(2)
    assert theirs is not None
    rows = {
        "cosine of embeddings": cosines(theirs, ours),
        "nearest neighbours that stay": neighbours_kept(theirs, ours).double(),
    }
    return [paired("embeddings", name, values.numpy(), None, pair.seed) for name, values in rows.items()]
