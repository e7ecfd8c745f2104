"""Heads of encoders, which are loaded without them: they are kept as they are, and saved with the encoder.

An encoder that was trained to fill in words, or to classify, is pruned and measured as the encoder that it holds. Its head
works on the encoder's output, whose width never changes, so that it goes on with the pruned one.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from transformers import PreTrainedModel

from gramian.adapters.models.checkpoints import shards_of
from gramian.adapters.models.own_classes import stock_type

__all__ = ["head_of", "keep_head", "with_head"]

ATTRIBUTE = "_gramian_head"


def keep_head(model: PreTrainedModel, config: Any, folder: Path, unknown: set[str]) -> set[str]:
    """Let an encoder keep those tensors of a directory that are of the head of the class that it was saved as. Return their
    names; there are none where the unknown tensors are anything else."""
    owner = class_of(config)
    if not unknown or owner is None or type(model).base_model_prefix != owner.base_model_prefix or isinstance(model, owner):
        return set()
    with torch.device("meta"):
        whole = owner(deepcopy(config))
    if type(whole.base_model) is not stock_type(type(model)) or not unknown <= whole.state_dict().keys():
        return set()
    head: dict[str, torch.Tensor] = {}
    for file in shards_of(folder):
        with safe_open(folder / file, framework="pt") as opened:
            head |= {name: opened.get_tensor(name) for name in unknown & set(opened.keys())}
    setattr(model, ATTRIBUTE, (owner.__name__, head))
    return unknown


def head_of(model: PreTrainedModel) -> str | None:
    """The class whose head an encoder keeps, by its name; None where it keeps none."""
    kept: tuple[str, dict[str, torch.Tensor]] | None = getattr(model, ATTRIBUTE, None)
    return None if kept is None else kept[0]


def class_of(config: Any) -> type[PreTrainedModel] | None:
    """The library's class that a model was saved as, if it is one."""
    saved = getattr(config, "architectures", None) or []
    found = getattr(transformers, saved[0], None) if len(saved) == 1 and isinstance(saved[0], str) else None
    return found if isinstance(found, type) and issubclass(found, PreTrainedModel) else None


def with_head(model: PreTrainedModel, weights: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The tensors that are saved of a model, by name, and the class that they are of: its own, or the one whose head it keeps,
    in which the model is a part. weights: those of the model itself, in the dtype that they are stored in."""
    kept = getattr(model, ATTRIBUTE, None)
    if kept is None:
        return dict(weights), [type(model).__name__]
    owner, head = kept
    storage = next(weight.dtype for weight in weights.values() if weight.is_floating_point())
    inside = {f"{model.base_model_prefix}.{name}": weight for name, weight in weights.items()}
    return inside | {name: each.to(storage) if each.is_floating_point() else each for name, each in head.items()}, [owner]
