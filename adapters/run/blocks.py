"""Where the blocks of a model live: in memory, in memory with a device that they visit, or (`streaming`) in a checkpoint."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Any, Protocol

import torch
from torch import nn

from gramian.adapters.devices import release_cached, usable_device
from gramian.adapters.models.block_lists import run_paths

__all__ = ["Blocks", "InMemory", "Offloaded", "module_at", "put", "tie"]


class Blocks(Protocol):
    """The blocks of a model in the order in which they run. A block is worked on between `acquire` and `commit`.

    model: the model that they belong to. paths: their full names. place: the device on which they are worked on. elsewhere:
    whether a block is there for its turn only, so that one block at a time can be worked on, and nothing can run the whole
    model.
    """

    model: Any
    paths: tuple[str, ...]
    place: torch.device
    elsewhere: bool

    def acquire(self, index: int) -> nn.Module:
        """Bring a block to where it is worked on."""

    def commit(self, index: int) -> None:
        """Give the block back, with what was written to it."""

    def __enter__(self) -> Blocks: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None: ...


class InMemory:
    """Blocks that are where they are worked on. A model that does not run block by block is one block, of the empty path."""

    elsewhere = False

    def __init__(self, model: Any) -> None:
        self.model = model
        self.paths = run_paths(model)
        self.place: torch.device = next(model.parameters()).device

    def __enter__(self) -> InMemory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return None

    def acquire(self, index: int) -> nn.Module:
        """The block."""
        return module_at(self.model, self.paths[index])

    def commit(self, index: int) -> None:
        """Nothing is to be done."""


class Offloaded:
    """Blocks that visit a device one at a time, for models larger than its memory.

    ValueError: a device that cannot be used, a model that does not run block by block, a block whose weights are not in memory.
    """

    elsewhere = True

    def __init__(self, model: Any, device: str | torch.device) -> None:
        self.model, self.place = model, usable_device(device)
        self.paths = run_paths(model)
        if self.paths == ("",):
            raise ValueError(f"{type(model).__name__} does not run block by block: no single block can visit {device}")
        self.present = ExitStack()

    def __enter__(self) -> Offloaded:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self.present.__exit__(kind, error, trace)

    def acquire(self, index: int) -> nn.Module:
        """Bring the block to the device."""
        block = module_at(self.model, self.paths[index])
        home = next(block.parameters()).device
        if home.type == "meta":
            raise ValueError(f"a block has no weights in memory, so it cannot visit {self.place}: load the model on the CPU")
        self.present.callback(self.take_home, block, home)
        block.to(self.place)
        return block

    def take_home(self, block: nn.Module, home: torch.device) -> None:
        """Bring the block back to where it was."""
        block.to(home)
        release_cached(self.place)

    def commit(self, index: int) -> None:
        """Bring the block home with what was written to it."""
        self.present.close()


def module_at(model: nn.Module, path: str) -> nn.Module:
    """The module of a path, the model itself at the empty one."""
    return model.get_submodule(path) if path else model


def put(model: nn.Module, name: str, value: torch.Tensor) -> None:
    """Put a tensor where the model has a parameter or a buffer of that name, or where a module can have a parameter."""
    path, _, leaf = name.rpartition(".")
    module = module_at(model, path)
    if leaf in module._parameters:
        module._parameters[leaf] = nn.Parameter(value, requires_grad=False)
    else:
        module._buffers[leaf] = value


def tie(model: nn.Module, name: str, other: str) -> None:
    """Let a model have one parameter under two names."""
    path, _, leaf = name.rpartition(".")
    module_at(model, path)._parameters[leaf] = model.get_parameter(other)
