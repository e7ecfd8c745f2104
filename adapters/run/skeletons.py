"""Models without the memory of their parameters.

Torch has no way to say that for one thread alone, but calls hooks wherever a parameter is registered. The hook here stands for
good, and does something only in a thread that is building a skeleton: whatever other threads build meanwhile, or afterwards,
has its parameters.
"""

from __future__ import annotations

import threading
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from transformers import PreTrainedModel

from gramian.adapters.models.own_classes import built_class, is_own
from gramian.adapters.models.tasks import auto_class

__all__ = ["skeleton"]


class Building(threading.local):
    """Whether this thread builds a skeleton."""

    skeleton = False


BUILDING = Building()


def without_memory(module: nn.Module, name: str, parameter: nn.Parameter) -> nn.Parameter | None:
    """Stand in for a parameter of a skeleton; None leaves any other as it is."""
    if not BUILDING.skeleton or parameter.is_meta:
        return None
    return nn.Parameter(parameter.detach().to("meta"), requires_grad=False)


register_module_parameter_registration_hook(without_memory)  # type: ignore[arg-type]


def skeleton(config: Any, dtype: Any) -> PreTrainedModel:
    """Build the model in eval mode, with its buffers as they are computed and its parameters without memory."""
    BUILDING.skeleton = True
    try:
        own: Any = built_class(config) if is_own(config) else None
        model: PreTrainedModel = (
            auto_class(config).from_config(config, dtype=dtype, trust_remote_code=False)
            if own is None
            else own._from_config(config, dtype=dtype)
        )
    finally:
        BUILDING.skeleton = False
    model.requires_grad_(False)
    model.train(False)
    return model
