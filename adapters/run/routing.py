"""What reaches packed experts: the products with the slices of one parameter are seen while the experts run one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from gramian.adapters.models.experts import Packed, all_at_once, eager_experts

__all__ = ["Routed", "forced", "watch_experts"]

FROM_THE_RIGHT = ("matmul", "__matmul__", "mm")


@dataclass(frozen=True)
class Routed:
    """What reached the experts of one parameter in one call. entered: the tokens that entered the experts module (n, hidden).
    inputs: by number, the rows (n_e, p) with which an expert's matrix was multiplied, of those that any token was routed to."""

    entered: torch.Tensor
    inputs: Mapping[int, torch.Tensor]


class Products(TorchFunctionMode):
    """Sees every product with a slice of one parameter."""

    def __init__(self, packed: Packed) -> None:
        super().__init__()
        self.packed = packed
        self.found: dict[int, list[torch.Tensor]] = {}

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        if name == "bmm" and args[1] is self.packed.parameter:
            for place, each in enumerate(args[0]):
                self.note(place, routed_rows(each))
        elif name == "linear" or name in FROM_THE_RIGHT:
            rows, weight = (*args, *kwargs.values())[:2]
            if isinstance(weight, torch.Tensor) and weight.ndim == 2:
                number = self.packed.number_of(weight if name == "linear" else weight.T)
                if number is not None:
                    self.note(number, rows.reshape(-1, rows.shape[-1]))
        return function(*args, **kwargs)

    def note(self, number: int, rows: torch.Tensor) -> None:
        """Keep what an expert multiplies, unless that is nothing."""
        if rows.shape[0]:
            self.found.setdefault(number, []).append(rows.detach())


def routed_rows(rows: torch.Tensor) -> torch.Tensor:
    """The rows that are not zero, as those of tokens are that are not routed to an expert."""
    return rows[rows.any(dim=-1)]


@contextmanager
def watch_experts(packed: Packed, receive: Callable[[Routed], None]) -> Iterator[None]:
    """Call `receive` with what reached the experts at the end of every call of their module while the context is open.

    RuntimeError: the module multiplied its tokens with something else than slices of the parameter.
    """
    module = packed.module
    own, run = vars(module).get("forward"), module.forward

    def seen(*args: Any, **kwargs: Any) -> Any:
        entered = (args[0] if args else next(iter(kwargs.values()))).detach()
        entered = entered.reshape(-1, entered.shape[-1])
        entered = routed_rows(entered) if all_at_once(module) else entered
        with Products(packed) as products:
            result = run(*args, **kwargs)
        if not products.found and entered.shape[0]:
            raise RuntimeError(f"{type(module).__name__} does not multiply its tokens with slices of {packed.leaf}")
        receive(Routed(entered, {number: torch.cat(products.found[number]) for number in sorted(products.found)}))
        return result

    module.forward = seen
    try:
        with eager_experts(module):
            yield
    finally:
        del module.forward  # the class's own method is visible again
        if own is not None:
            module.forward = own


@torch.no_grad()
def forced(packed: Packed, number: int, tokens: torch.Tensor) -> torch.Tensor:
    """What would reach an expert's matrix, (n, p), if tokens (n, hidden) that entered its module were all routed to it."""
    found: list[Routed] = []
    index = torch.full((len(tokens), 1), number, device=tokens.device)
    with watch_experts(packed, found.append):
        if all_at_once(packed.module):
            apart = tokens.new_zeros(packed.count, *tokens.shape)
            apart[number] = tokens
            packed.module(apart.flatten(0, 1))
        else:
            packed.module(tokens, index, tokens.new_ones(len(tokens), 1))
    return found[0].inputs[number]
