"""The mode that modules run in, training or evaluation, which is set for a while and put back module by module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["eval_mode"]


@contextmanager
def eval_mode(model: torch.nn.Module) -> Iterator[None]:
    """Run a model without dropout and the like while the context is open; then every module is in the mode it was in."""
    training = [module for module in model.modules() if module.training]
    model.train(False)
    try:
        yield
    finally:
        for module in training:
            module.training = True
