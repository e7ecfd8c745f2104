"""Weights as they were before a run, for a run that fails: an error in the last block must not cost the blocks before it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from gramian.adapters.models.mixtures import mixed_at
from gramian.adapters.run.blocks import Blocks, module_at

__all__ = ["Originals", "restored_after_errors"]


class Originals:
    """Copies of the parameters that passes write to, on the CPU, made when a block is taken for its turn.

    They are kept in the storage dtype where it holds their numbers exactly, as it does for models that `load` has read, and
    else in their own.
    """

    def __init__(self, model: Any, storage: torch.dtype) -> None:
        self.model, self.storage = model, storage
        self.kept: dict[str, dict[str, tuple[nn.Parameter, torch.Tensor] | None]] = {}
        self.mixed: dict[str, tuple[int, dict[str, torch.Tensor | None]]] = {}  # numbers of experts, and buffers

    def keep(self, names: Iterable[str]) -> None:
        """Copy the parameters of operators, unless there are copies."""
        names = list(names)
        for name in names:
            if (module := mixed_at(self.model, name)) is not None:
                self.mixed.setdefault(name, (module.num_experts, dict(module._buffers)))
        for path, leaf in (found for name in names for found in self.places(name)):
            kept = self.kept.setdefault(path, {})
            if leaf not in kept:
                parameter = module_at(self.model, path)._parameters[leaf]
                kept[leaf] = None if parameter is None else (parameter, self.copied(parameter.detach()))

    def places(self, name: str) -> list[tuple[str, str]]:
        """The modules and the names of an operator's parameters: all of a module, or the one that packs a numbered operator."""
        try:
            return [(name, leaf) for leaf in module_at(self.model, name)._parameters]
        except AttributeError:
            path, _, leaf = name.rpartition(".")[0].rpartition(".")
            return [(path, leaf)]

    def copied(self, value: torch.Tensor) -> torch.Tensor:
        """A copy on the CPU, as small as it can be without a change."""
        small = value.to(self.storage) if value.is_floating_point() else value
        exact = small.dtype == value.dtype or bool((small.to(value.dtype) == value).all())
        return (small if exact else value).to("cpu", copy=True)

    @torch.no_grad()
    def restore(self) -> None:
        """Give every operator its parameters back: the same objects, with the numbers that they had."""
        for name, leaves in self.kept.items():
            parameters = module_at(self.model, name)._parameters
            for leaf, original in leaves.items():
                if original is not None:
                    parameter, value = original
                    parameter.copy_(value.to(parameter.dtype))
                    parameters[leaf] = parameter
                else:
                    parameters[leaf] = None
        for name, (count, buffers) in self.mixed.items():
            module: Any = module_at(self.model, name)
            module.num_experts = count
            module._buffers.update(buffers)
        self.kept.clear()
        self.mixed.clear()

    def before(self, blocks: Blocks, written: Callable[[int], Iterable[str]]) -> Blocks:
        """The same blocks, of which copies are made before they are handed out. written: the operators that are written to."""
        return Copied(blocks, written, self)


class Copied:
    """Blocks that are copied, as far as they will be written to, before they are worked on."""

    def __init__(self, blocks: Blocks, written: Callable[[int], Iterable[str]], originals: Originals) -> None:
        self.blocks, self.written, self.originals = blocks, written, originals
        self.model, self.paths, self.place, self.elsewhere = blocks.model, blocks.paths, blocks.place, blocks.elsewhere

    def __enter__(self) -> Copied:
        return self

    def __exit__(self, *_: object) -> bool | None:
        return None

    def acquire(self, index: int) -> nn.Module:
        """Copy what will be written to, and bring the block."""
        self.originals.keep(self.written(index))
        return self.blocks.acquire(index)

    def commit(self, index: int) -> None:
        """Give the block back."""
        self.blocks.commit(index)


@contextmanager
def restored_after_errors(originals: Originals) -> Iterator[Originals]:
    """Whatever ends the context before its time, an interruption too, leaves the model with the weights that it had."""
    try:
        yield originals
    except BaseException:
        originals.restore()
        raise
