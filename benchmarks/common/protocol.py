"""The fixed protocol on which pruned models are compared: model, texts, windows.

FOLDER holds wikitext2.valid.txt (calibration), wikitext2.test.raw.txt and ptb.test.txt (test). The model is gemma-3-270m from
the `demo` extra, rounded once to bfloat16 and run in float32. Every text is tokenised whole and cut into consecutive
windows, each after a begin token. The first 32 windows of 512 tokens calibrate, and the next 8 measure held-out errors.
Perplexity is measured on the first 16 windows of 1024 tokens of WikiText-2 and on the first 12 of PTB.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gramian.adapters import prune
from gramian.adapters.data.tokens import Tokens
from gramian.adapters.data.windows import text_windows
from gramian.adapters.measure.likelihood import perplexity
from gramian.adapters.models.loading import load

TEXTS = {"wikitext2": ("wikitext2.test.raw.txt", 16), "ptb": ("ptb.test.txt", 12)}


@dataclass(frozen=True)
class Protocol:
    """model and tokenizer as loaded; calibration and held-out windows of 512 tokens; test windows of 1024 by text."""

    model: Any
    tokenizer: Any
    calibration: Tokens
    heldout: torch.Tensor
    windows: dict[str, torch.Tensor]
    folder: Path

    @classmethod
    def load(cls, folder: Path) -> Protocol:
        model, tokenizer = load("demo")
        calibration = text_windows((folder / "wikitext2.valid.txt").read_text(), tokenizer, 512)
        windows = {
            text: text_windows((folder / file).read_text(), tokenizer, 1024)[:count] for text, (file, count) in TEXTS.items()
        }
        tokens = Tokens(calibration[:32], source="wikitext2.valid.txt", seed=None)
        return cls(model, tokenizer, tokens, calibration[32:40], windows, folder)

    def drawn(self, count: int, length: int) -> Tokens:
        """The first `count` windows of another length of the calibration text."""
        windows = text_windows((self.folder / "wikitext2.valid.txt").read_text(), self.tokenizer, length)
        return Tokens(windows[:count], source="wikitext2.valid.txt", seed=None)

    def apart(self, text: str, length: int) -> torch.Tensor:
        """Windows of a test text behind those that perplexity is measured on."""
        file, _ = TEXTS[text]
        windows = text_windows((self.folder / file).read_text(), self.tokenizer, length)
        return windows[-(-self.windows[text][:, 1:].numel() // length) :]

    def pruned(self, keywords: Mapping[str, Any]) -> tuple[Any, Any]:
        """A copy of the model, pruned by the calibration windows, and the report, which is printed."""
        model = copy.deepcopy(self.model)
        report = prune(model, self.calibration, heldout=self.heldout, **keywords)
        print(report, flush=True)
        return model, report

    def evaluate(self, model: Any, texts: tuple[str, ...], losses: Path, name: str) -> dict[str, float]:
        """Perplexity by text. Per-token losses are saved in the folder `losses`, for paired comparisons."""
        values = {}
        for text in texts:
            result = perplexity(model, self.windows[text], batch=2)
            values[text] = result.value
            torch.save(result.losses, losses / f"{name} {text}.pt")
        return values


def bytes_held(work: Callable[[], object]) -> int:
    """The most memory that work holds at a time beside what is there when it begins, by torch's profiler."""
    with torch.profiler.profile(profile_memory=True) as profile:
        work()
    held = most = 0
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most
