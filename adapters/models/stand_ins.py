"""What stands in, for a while, for weights that are not in memory, and for the forward method of a module."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

__all__ = ["kind_of_block", "lent", "replaced_forward"]


@contextmanager
def lent(module: nn.Module, apart: Collection[nn.Module]) -> Iterator[None]:
    """Give a module's tensors without memory zeros, and vectors ones, while the context is open; those of the modules `apart`
    remain as they are. Zeros take no memory until they are written to."""
    without = {id(inner) for each in apart for inner in each.modules()}
    borrowed: list[tuple[dict[str, Any], str, torch.Tensor]] = []
    for inner in module.modules():
        if id(inner) in without:
            continue
        kinds: tuple[dict[str, Any], ...] = (inner._parameters, inner._buffers)
        for tensors in kinds:
            for name, value in tensors.items():
                if value is not None and value.is_meta:
                    borrowed.append((tensors, name, value))
    if not borrowed:  # nor is anything to be put back
        yield
        return
    stand_ins: dict[int, torch.Tensor] = {}  # a tensor under two names remains one
    for tensors, name, value in borrowed:
        made = stand_ins.get(id(value))
        if made is None:
            fill = torch.ones if value.ndim == 1 and value.is_floating_point() else torch.zeros
            made = fill(value.shape, dtype=value.dtype, device="cpu")
            stand_ins[id(value)] = made = nn.Parameter(made, False) if isinstance(value, nn.Parameter) else made
        tensors[name] = made
    try:
        yield
    finally:
        for tensors, name, value in borrowed:
            tensors[name] = value


@contextmanager
def replaced_forward(module: Any, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Let a module run `around(its own forward)` while the context is open."""
    own = vars(module).get("forward")  # libraries that dispatch modules to devices set it on the instance
    module.forward = around(module.forward)
    try:
        yield
    finally:
        del module.forward  # the class's own method is visible again
        if own is not None:
            module.forward = own


def kind_of_block(block: nn.Module) -> Hashable:
    """What blocks of one kind have in common: classes, shapes and flags of their modules, but not their numbers."""
    kind: list[Hashable] = []
    for name, module in block.named_modules():
        shapes = tuple((leaf, weight.shape) for leaf, weight in module.named_parameters(recurse=False))
        flags = tuple((key, value) for key, value in vars(module).items() if isinstance(value, bool | str))
        kind.append((name, type(module), shapes, flags))
    return tuple(kind)
