"""How the working tree runs a case: as the baseline does, but for what has another name or form now.

A renamed setting, value or flag is entered in `renamed` alone. Where the call itself changed, the function that is taken over
from `baseline` is replaced by one that makes the new call; what it takes and what it returns stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from golden import baseline
from golden.baseline import (
    Settings,
    captured,
    curvature,
    embeddings,
    head_distances,
    kernel_change,
    load,
    perplexity,
    sampled,
    save,
    shrunk,
    written,
)
from golden.renamed import RENAMED

__all__ = [
    "captured",
    "command",
    "curvature",
    "embeddings",
    "head_distances",
    "kernel_change",
    "load",
    "perplexity",
    "prune",
    "remove",
    "sampled",
    "save",
    "shrunk",
    "stream",
    "written",
]


def prune(model: Any, tokens: torch.Tensor, heldout: torch.Tensor | None, settings: Settings) -> dict[str, Any]:
    return baseline.prune(model, tokens, heldout, present_settings(settings))


def remove(model: Any, tokens: torch.Tensor, heldout: torch.Tensor | None, settings: Settings) -> dict[str, Any]:
    return baseline.remove(model, tokens, heldout, present_settings(settings))


def stream(source: Path, out: Path, tokens: torch.Tensor, heldout: torch.Tensor | None, settings: Settings) -> dict[str, Any]:
    return baseline.stream(source, out, tokens, heldout, present_settings(settings))


def command(arguments: Sequence[str]) -> int:
    return baseline.command(present_arguments(arguments))


def present_settings(settings: Settings) -> dict[str, Any]:
    """Settings, options of methods among them, by their names of today."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            value = present_settings(value)
        elif isinstance(value, str):
            value = RENAMED.choices.get(name, {}).get(value, value)
        found[RENAMED.settings.get(name, name)] = value
    return found


def present_arguments(arguments: Sequence[str]) -> list[str]:
    """A command line by its flags of today."""
    flags = {flag_of(old): flag_of(new) for old, new in RENAMED.settings.items()} | dict(RENAMED.flags)
    choices = {flag_of(name): values for name, values in RENAMED.choices.items()}
    found: list[str] = []
    for before, argument in zip(["", *arguments], arguments):
        renamed = flags.get(argument, choices.get(before, {}).get(argument, argument))
        if renamed is not None:
            found.append(renamed)
    return found


def flag_of(setting: str) -> str:
    return f"--{setting.replace('_', '-')}"
