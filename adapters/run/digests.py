"""SHA-256 of the tensors of a model."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

__all__ = ["add_tensor", "weights_digest"]


def weights_digest(model: Any, storage: torch.dtype) -> str:
    """SHA-256 of all tensors of a model, tied ones once, in the dtype that they are stored in."""
    digest, seen = hashlib.sha256(), set()
    for name, value in model.state_dict(keep_vars=True).items():
        if id(value) not in seen:
            seen.add(id(value))
            value = value.detach()
            add_tensor(digest, name, value.to(storage) if value.is_floating_point() else value)
    return digest.hexdigest()


def add_tensor(digest: Any, name: str, value: torch.Tensor) -> None:
    """Add a tensor, with its name, shape and dtype, to a digest."""
    digest.update(f"{name} {tuple(value.shape)} {value.dtype} ".encode())
    digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
