"""The model inside what other libraries wrap around it."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from gramian.adapters.models.plain_modules import check_in_memory

__all__ = ["plain_model"]


def plain_model(model: Any) -> PreTrainedModel:
    """Return the model itself: out of `torch.compile`, `DataParallel` and `DistributedDataParallel`, whose weights are its own.

    ValueError: a model with adapters of PEFT, whose weights are apart from those that would be read; no model of transformers;
    one whose weights are not in memory.
    """
    while isinstance(model, nn.Module) and (inner := wrapped(model)) is not None:
        model = inner
    if isinstance(model, nn.Module) and any(of_peft(module) for module in model.modules()):
        raise ValueError(
            f"{type(model).__name__} has adapters of PEFT, which are apart from the weights that they change: merge them with "
            "model = model.merge_and_unload(), and give that"
        )
    if not isinstance(model, PreTrainedModel):
        raise ValueError(
            f"model is of type {type(model).__name__}, expected a PreTrainedModel of transformers: the first of the two that "
            "gramian.load returns"
        )
    check_in_memory(model)
    return model


def wrapped(model: nn.Module) -> nn.Module | None:
    """Return what a wrapper that leaves weights as they are is around; None for any other module."""
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        inner: nn.Module = model.module
        return inner
    return model._modules.get("_orig_mod")  # where `torch.compile` keeps it


def of_peft(module: nn.Module) -> bool:
    """Tell whether a class of the package `peft`, which need not be installed, is among a module's."""
    return any(each.__module__.partition(".")[0] == "peft" for each in type(module).__mro__)
