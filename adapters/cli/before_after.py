"""What pruning cost: a model is measured before and after on the same windows, and the two are compared."""

from __future__ import annotations

import math
from typing import Any

import torch
from transformers import PreTrainedModel

from gramian.adapters.data.domains import Domains
from gramian.adapters.data.texts import Texts
from gramian.adapters.data.tokens import Tokens, windows_of
from gramian.adapters.measure.answers import Answers, answered
from gramian.adapters.measure.embeddings import embed, mean_cosine
from gramian.adapters.measure.likelihood import Perplexity, paired_difference, perplexity
from gramian.adapters.models.tasks import kind_of
from gramian.tables import table

__all__ = ["measured_by"]


def measured_by(model: PreTrainedModel, read: Texts) -> tuple[Any, Any, str]:
    """What a model is measured by before and after, how the two are compared, and what the report calls that."""
    if read.calibration.labels is not None:
        return answered, compare_answers, "answers"
    return (
        (perplexity, compare, "perplexity") if kind_of(model.config) == "causal" else (embed, compare_embeddings, "embeddings")
    )


def compare(dense: Perplexity, pruned: Perplexity, read: Texts) -> tuple[dict[str, Any], str]:
    """Perplexity before and after, as figures for the report and as text for a person."""
    assert read.evaluated is not None
    evaluated = windows_of(read.evaluated)
    count, length = evaluated.windows.shape
    difference, error = paired_difference(pruned, dense)
    domains = {} if evaluated.domains is None else {"domains": by_domain(dense, pruned, evaluated.domains)}
    figures = {
        "dense": dense.value,
        "pruned": pruned.value,
        **domains,
        "difference_nats": difference,
        "standard_error": error,
        "source": read.evaluated_source,
        "windows": count,
        "context": length,
        "sha256": Tokens(evaluated.windows, "").digest,
        "nats_by_window": {"dense": by_window(dense, count), "pruned": by_window(pruned, count)},
    }
    each = domains.get("domains", {})
    rows = [
        [name, f"{value:.2f}", *(f"{pair[name]:.2f}" for pair in each.values())]
        for name, value in (("dense", dense.value), ("pruned", pruned.value))
    ]
    shown = table(["model", "perplexity", *(f"on {name}" for name in each)], rows)
    where = f"on {count} windows of {length} tokens, {read.evaluated_source}"
    return figures, f"{shown}\n{where}; {difference:+.3f} +- {error:.3f} nats per token"


def by_domain(dense: Perplexity, pruned: Perplexity, domains: Domains) -> dict[str, dict[str, float]]:
    """Perplexity before and after on the windows of every domain, and their paired difference in nats per token."""
    found = {}
    for number, name in enumerate(domains.names):
        if places := domains.of(number):
            before, after = (each.losses.view(len(domains.places), -1)[places].flatten() for each in (dense, pruned))
            pair = [Perplexity(math.exp(each.double().mean().item()), each) for each in (before, after)]
            difference, error = paired_difference(pair[1], pair[0])
            values = {"dense": pair[0].value, "pruned": pair[1].value}
            found[name] = {**values, "difference_nats": difference, "standard_error": error}
    return found


def by_window(found: Perplexity, count: int) -> list[float]:
    """The mean loss of every window, by which runs on the same windows can be compared later."""
    means: list[float] = found.losses.double().view(count, -1).mean(dim=1).tolist()
    return means


def compare_embeddings(dense: torch.Tensor, pruned: torch.Tensor, read: Texts) -> tuple[dict[str, Any], str]:
    """Mean cosine of held-out windows' embeddings before and after, as figures for the report and as text for a person."""
    assert isinstance(read.evaluated, torch.Tensor)
    cosine, (count, length) = mean_cosine(dense, pruned), read.evaluated.shape
    figures = {"mean_cosine": cosine, "source": read.evaluated_source, "windows": count, "length": length}
    return figures, f"mean cosine {cosine:.4f} of embeddings before and after, {count} windows, {read.evaluated_source}"


def compare_answers(dense: Answers, pruned: Answers, read: Texts) -> tuple[dict[str, Any], str]:
    """Loss and accuracy on held-out texts with labels before and after, as figures for the report and as text for a person."""
    rows = (("dense", dense), ("pruned", pruned))
    figures: dict[str, Any] = {name: {"loss": each.loss, "accuracy": each.accuracy} for name, each in rows}
    figures |= {"source": read.evaluated_source, "texts": len(dense.losses)}
    shown = [[name, f"{each.loss:.4f}", "" if each.accuracy is None else f"{each.accuracy:.4f}"] for name, each in rows]
    return figures, f"{table(['model', 'loss', 'accuracy'], shown)}\non {len(dense.losses)} texts, {read.evaluated_source}"
