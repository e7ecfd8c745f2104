"""Forward passes block by block: the hidden states between blocks, and the other arguments that each block is called with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gramian.adapters.devices import release_cached
from gramian.adapters.models.families import blocks_of
from gramian.adapters.models.layers import Site
from gramian.adapters.models.stacks import walks_by_block
from gramian.adapters.models.tasks import token_inputs
from gramian.adapters.run.hooks import watch

__all__ = ["TOKENS_PER_BATCH", "BlockCall", "Call", "ModelCall", "batches_of", "enter", "inputs_of", "run_block"]

TOKENS_PER_BATCH = 2048


def batches_of(windows: torch.Tensor) -> list[torch.Tensor]:
    """Split windows (n, length) into batches of about `TOKENS_PER_BATCH` tokens, at least one window each."""
    return list(torch.split(windows, max(1, TOKENS_PER_BATCH // windows.shape[1])))


@dataclass(frozen=True)
class BlockCall:
    """Arguments of one block after the hidden states: masks, rotary tables, positions.

    They are kept by batch size and length, because windows without padding differ in nothing else, and follow the block to
    its device.
    """

    by_shape: Mapping[tuple[int, int], tuple[tuple[Any, ...], dict[str, Any]]]

    def __call__(self, block: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
        args, kwargs = self.by_shape[hidden.shape[0], hidden.shape[1]]
        device = next(block.parameters()).device
        following: torch.Tensor = block(hidden.to(device), *moved(args, device), **moved(kwargs, device))
        return following


@dataclass(frozen=True)
class ModelCall:
    """A whole model as its only block: windows go in, and since nothing follows, they come out."""

    model: Any

    def __call__(self, block: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
        self.model(**token_inputs(self.model, hidden))
        return hidden


Call = BlockCall | ModelCall


def moved(value: Any, device: torch.device) -> Any:
    """Move tensors, also those inside tuples, lists and dicts, to a device; anything else is returned as it is."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: moved(each, device) for key, each in value.items()}
    return type(value)(moved(each, device) for each in value) if type(value) in (tuple, list) else value


@torch.no_grad()
def enter(model: Any, batches: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], Sequence[Call]]:
    """Compute the hidden states that enter the first block, one tensor per batch of token windows, and the call of every block.

    The model itself runs, with its embedding, positions and masks as it makes them, but with its blocks replaced by
    identities, and without a cache, which would grow with every replay. Into a model that does not run block by block the
    windows themselves enter.
    """
    if not walks_by_block(model):
        return list(batches), [ModelCall(model)]
    blocks = blocks_of(model)
    seen: list[dict[tuple[int, int], tuple[tuple[Any, ...], dict[str, Any]]]] = [{} for _ in blocks]
    hidden: list[torch.Tensor] = []
    device = next(model.parameters()).device
    with ExitStack() as stack:
        for index, block in enumerate(blocks):
            stack.enter_context(bypass(block, seen[index], hidden if index == 0 else None))
        for rows in batches:
            model.base_model(input_ids=rows.to(device), use_cache=False)
    return hidden, [BlockCall(calls) for calls in seen]


@contextmanager
def bypass(
    block: Any,
    calls: dict[tuple[int, int], tuple[tuple[Any, ...], dict[str, Any]]],
    hidden: list[torch.Tensor] | None,
) -> Iterator[None]:
    """Let `block` return its input while the context is open, and note its other arguments in `calls`."""

    def identity(states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        calls.setdefault((states.shape[0], states.shape[1]), (args, kwargs))
        if hidden is not None:
            hidden.append(states)
        return states

    own = vars(block).get("forward")  # libraries that dispatch modules to devices set it on the instance
    block.forward = identity
    try:
        yield
    finally:
        del block.forward  # the class's own method is visible again
        if own is not None:
            block.forward = own


class Reached(Exception):
    """Raised out of a block once the module of interest has been called: the rest of the block is not needed."""


@torch.no_grad()
def run_block(
    block: nn.Module,
    call: Call,
    hidden: list[torch.Tensor],
    receivers: Mapping[Site, Callable[[int, Any], None]] | Mapping[nn.Module, Callable[[int, Any], None]] | None = None,
) -> list[torch.Tensor]:
    """Compute the outputs of `block` for every batch, each on the device that the batch came from.

    receivers: functions by module inside the block; `receivers[module](batch index, inputs)` sees what flows into the module,
    and for a packed parameter what was `Routed` to its experts.
    """
    outputs: list[torch.Tensor] = []

    def relay(receive: Callable[[int, Any], None]) -> Callable[[Any], None]:
        return lambda inputs: receive(len(outputs), inputs)

    with ExitStack() as hooks:
        for site, receive in (receivers or {}).items():
            hooks.enter_context(watch(site, relay(receive)))
        for states in hidden:
            outputs.append(call(block, states).to(states.device))
    release_cached(next(block.parameters()).device)
    return outputs


@torch.no_grad()
def inputs_of(site: Site, block: nn.Module, call: Call, hidden: list[torch.Tensor]) -> Iterator[Any]:
    """Yield what flows into one module inside `block`, or what is `Routed` to the experts of a packed parameter, batch by
    batch, None for a batch of which nothing reaches it; nothing past that module is computed."""
    found: list[Any] = []

    def receive(inputs: Any) -> None:
        found.append(inputs)
        raise Reached

    with watch(site, receive):
        for states in hidden:
            try:
                call(block, states)
            except Reached:
                pass
            yield found.pop() if found else None
