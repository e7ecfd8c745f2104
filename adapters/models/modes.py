"""The mode that modules run in, training or evaluation, which is set for a while and put back module by module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["eval_mode"]


@contextmanager
def eval_mode(model: torch.nn.Module) -> Iterator[None]:
    """Run a model without dropout and the like, and with answers by name, while the context is open; then every module is in
    the mode it was in. Where a configuration asks for tuples, the library's own models cannot read each other's answers."""
    training = [module for module in model.modules() if module.training]
    configs: list[Any] = [
        module.config for module in model.modules() if getattr(getattr(module, "config", None), "return_dict", 1) is False
    ]
    model.train(False)
    for config in configs:
        config.return_dict = True
    try:
        yield
    finally:
        for module in training:
            module.training = True
        for config in configs:
            config.return_dict = False
