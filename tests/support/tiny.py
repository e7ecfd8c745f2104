"""What tests of tiny language models share: the models of `tiny_models`, pruned, and compared bit for bit."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tiny_models import (
    BEGIN,
    END,
    FAMILIES,
    HELDOUT,
    LENGTH,
    SHAPES,
    VOCABULARY,
    WINDOWS,
    random_model,
    some_windows,
    tiny_model,
    tiny_tokenizer,
)
from torch import nn

from gramian.adapters import Report, prune
from gramian.adapters.models.unit_groups import unit_groups_of

__all__ = [
    "BEGIN",
    "END",
    "FAMILIES",
    "HELDOUT",
    "LENGTH",
    "QUICK",
    "SHAPES",
    "VOCABULARY",
    "WINDOWS",
    "names_of",
    "parameters",
    "random_model",
    "run",
    "same",
    "some_windows",
    "tensors",
    "tiny_model",
    "tiny_tokenizer",
]

QUICK = {"max_lambdas": 3, "inner_steps": 8, "warm_start": "wanda"}  # options of FISTAPruner


def run(model: Any, **arguments: Any) -> Report:
    arguments = {"tokens": WINDOWS, "progress": False} | arguments
    if "pattern" in arguments:
        arguments["sparsity"] = arguments.pop("pattern")
    return prune(model, arguments.pop("tokens"), **arguments)


def parameters(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def same(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor], names: Iterable[str] | None = None) -> bool:
    """Bit for bit, NaN included."""
    names = before if names is None else names
    return all(before[name].contiguous().view(torch.uint8).equal(after[name].contiguous().view(torch.uint8)) for name in names)


def names_of(model: nn.Module, kind: str) -> list[str]:
    """Consumers of attention (their units are wide) or of feed-forward modules."""
    return [name for name, unit_group in unit_groups_of(model).items() if (unit_group.size > 1) == (kind == "heads")]


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")
