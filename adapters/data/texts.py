"""The windows that a run reads: for calibration, held out for errors, and for perplexity."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gramian.adapters.data.context import usual_length
from gramian.adapters.data.domains import split_samples
from gramian.adapters.data.generation import check_sampling
from gramian.adapters.data.mixing import mixed, paired
from gramian.adapters.data.sources import builtin_text, calibration
from gramian.adapters.data.tokens import Tokens, check_windows, windows_of
from gramian.adapters.data.windows import file_windows, text_windows

__all__ = ["Texts", "heldout_windows", "read_texts"]

MOST_EVALUATED = 8  # windows that perplexity before and after is measured on, which takes seconds for each, twice
LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Texts:
    """Calibration tokens, windows held out for layer errors, and windows for perplexity with their source; of texts with labels
    `Tokens`, and all that are held out are evaluated. recovery: windows of their own for what makes up for removed units."""

    calibration: Tokens
    heldout: torch.Tensor | Tokens | None
    evaluated: torch.Tensor | Tokens | None
    evaluated_source: str
    recovery: Tokens | None = None


def read_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    source: str | Mapping[str, float],
    samples: int,
    length: int | None,
    seed: int,
    heldout: int,
    evaluate: Path | None = None,
    planned: bool = False,
    recovery: tuple[str, int] | None = None,
) -> Texts:
    """Read calibration windows and held-out windows, and log how many of each.

    The built-in text has a part for each; of any other source the last of the windows drawn are held out. Perplexity is
    measured on the text `evaluate` where it is given, else on the held-out windows. length: that of `usual_length` where it is
    None. planned: only the windows' shapes matter, so no text is sampled from the model. recovery: the source of windows of
    their own, and how many of them. source: with several and their weights, `samples` are split among them by weight, and
    `heldout` windows are held out of each.
    """
    if length is None:
        length = usual_length(model, tokenizer)
    if not isinstance(source, str):
        return domain_texts(model, tokenizer, source, samples, length, seed, heldout, evaluate)
    vocabulary = model.config.get_text_config().vocab_size
    own = None if recovery is None else recovery_windows(model, tokenizer, *recovery, length, seed)
    evaluated: torch.Tensor | Tokens | None = (
        None if evaluate is None else file_windows(evaluate, tokenizer, length, MOST_EVALUATED * length)[:MOST_EVALUATED]
    )
    evaluated_source = f"held out of {source}" if evaluate is None else str(evaluate)
    LOG.info("%s: %d windows to calibrate, %d held out", source, samples, heldout)
    if planned and source == "self":
        width = check_sampling(model, tokenizer, length)
        shaped = Tokens(torch.zeros((samples, width), dtype=torch.int64), source, seed)
        check_windows(model, shaped.windows, "calibration windows")
        if evaluated is None and heldout:
            evaluated = shaped.windows.new_zeros((min(heldout, MOST_EVALUATED), width))
        return Texts(shaped, None, evaluated, evaluated_source, own)
    apart = source == "builtin" and heldout > 0
    drawn = calibration(
        source, tokenizer, samples=samples + (0 if apart else heldout), length=length, seed=seed, vocabulary=vocabulary,
        model=model,
    )  # fmt: skip
    rest: torch.Tensor | Tokens | None = None
    if drawn.labels is not None:
        drawn, rest = drawn.part(slice(samples)), drawn.part(slice(samples, None)) if heldout else None
        check_windows(model, drawn.windows, "calibration windows")
        return Texts(drawn, rest, rest if evaluated is None else evaluated, evaluated_source, own)
    if apart and tokenizer is not None:
        rest = heldout_windows(tokenizer, length, heldout)
    elif heldout:
        rest = drawn.windows[samples:]
        drawn = Tokens(drawn.windows[:samples], drawn.source, drawn.seed)
    check_windows(model, drawn.windows, "calibration windows")
    if evaluated is None and isinstance(rest, torch.Tensor):
        evaluated = rest[:MOST_EVALUATED]
    return Texts(drawn, rest, evaluated, evaluated_source, own)


def domain_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    weights: Mapping[str, float],
    samples: int,
    length: int,
    seed: int,
    heldout: int,
    evaluate: Path | None,
) -> Texts:
    """The same windows of several domains; where no other text is given, perplexity is measured on those held out of each."""
    counts = split_samples(weights, samples)
    read = {
        name: read_texts(model, tokenizer, name, max(1, count), length, seed, heldout, evaluate)
        for name, count in counts.items()
    }
    calibration = mixed({name: each.calibration for name, each in read.items()}, weights, "calibration windows")
    apart = {name: windows_of(each.heldout) for name, each in read.items() if each.heldout is not None}
    alike = dict.fromkeys(apart, 1.0)
    rest = paired(calibration, mixed(apart, alike, "held-out windows"), None) if apart else None
    evaluated = next(iter(read.values())).evaluated
    source = str(evaluate)
    if evaluate is None:
        first = {name: each.part(slice(MOST_EVALUATED)) for name, each in apart.items()}
        evaluated = mixed(first, alike, "held-out windows") if first else None
        source = f"held out of {' and '.join(weights)}"
    return Texts(calibration, rest, evaluated, source)


def recovery_windows(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, source: str, samples: int, length: int, seed: int
) -> Tokens:
    """Draw the windows that what makes up for removed units is fitted on."""
    LOG.info("%s: %d windows for recovery", source, samples)
    vocabulary = model.config.get_text_config().vocab_size
    drawn = calibration(source, tokenizer, samples=samples, length=length, seed=seed, vocabulary=vocabulary, model=model)
    check_windows(model, drawn.windows, "recovery windows")
    return drawn


def heldout_windows(tokenizer: PreTrainedTokenizerBase, length: int, count: int) -> torch.Tensor:
    """The first windows of the built-in text that no calibration reads. ValueError where there are fewer."""
    windows = text_windows(builtin_text("heldout"), tokenizer, length)
    if len(windows) < count:
        raise ValueError(
            f"the built-in text has {len(windows)} held-out windows of {length} tokens, fewer than the {count} requested: "
            "hold out fewer, or use a smaller length"
        )
    return windows[:count]
