"""One block at a time on a device, for models larger than its memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType

import torch
from torch import nn

from gramian.adapters.devices import release_cached, usable_device

__all__ = ["Placement"]


class Placement:
    """Where blocks of a model are worked on, one at a time: on `device`, or in their place where that is None.

    `take(block)` brings a block to the device, and takes the one before it home with what was written to it; so does the end
    of the context. ValueError: a device that cannot be used, a block whose weights are not in memory.
    """

    def __init__(self, device: str | torch.device | None = None) -> None:
        self.device = None if device is None else usable_device(device)
        self.present = ExitStack()

    def __enter__(self) -> Placement:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self.present.__exit__(kind, error, trace)

    def take(self, block: nn.Module) -> None:
        """Bring a block to the device, and the one before it home."""
        self.present.close()
        self.present.enter_context(self.visit(block))

    @contextmanager
    def visit(self, block: nn.Module) -> Iterator[None]:
        """Keep a block on the device while the context is open."""
        if self.device is None:
            yield
            return
        home = next(block.parameters()).device
        if home.type == "meta":
            raise ValueError(f"a block has no weights in memory, so it cannot visit {self.device}: load the model on the CPU")
        try:
            block.to(self.device)
            yield
        finally:
            block.to(home)
            release_cached(self.device)
