"""Which operators of a block add to the stream of hidden states, found by disturbing what they return.

    plain   y is added to the stream, times a constant: the block's output moves by c d when y moves by d
    normed  y, or what it is added to, goes through a norm first, whose output is added or is the stream itself: gemma's norms
            after attention and MLP, BERT's after both

Everything in between is read off one run of a short window, so that no family has to be known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gramian.adapters.models.discovery import calls_of, is_operator
from gramian.adapters.models.stand_ins import replaced_forward
from gramian.adapters.run.forward import Call

__all__ = ["Entry", "entries_of"]

CLOSE = 0.02  # of what was disturbed: half precision is farther off than rounding, another function farther still


@dataclass(frozen=True)
class Entry:
    """An operator that adds to the stream. path: inside the block. norm: the path of a norm that its output goes through, or
    None. centred: whether that norm subtracts means. gain: (width,) or a number, by which what enters the stream is multiplied,
    beside 1 / s of the norm, with s the size of what enters that."""

    path: str
    norm: str | None
    centred: bool
    gain: torch.Tensor

    def size(self, entering: torch.Tensor) -> torch.Tensor:
        """s (..., 1) of what enters the norm, by which it divides."""
        return size_of(entering, self.centred)


@torch.no_grad()
def entries_of(block: nn.Module, call: Call, hidden: torch.Tensor) -> tuple[Entry, ...]:
    """Find the operators of a block that add to the stream, those that are called last first. hidden: what enters the block."""
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    with ExitStack() as stack:
        for name, module in block.named_modules():
            if name and calls_of(module) == 1:
                stack.enter_context(noting(name, module, seen))
        before = call(block, hidden)
    found = []
    size = (hidden.shape[-1], hidden.numel())  # some blocks run their operators on flat tokens
    wide = {name: pair for name, pair in seen.items() if (pair[1].shape[-1], pair[1].numel()) == size}
    disturbed: dict[str, torch.Tensor | None] = {}

    def factor(name: str) -> torch.Tensor | None:
        """c where the block's output moves by c d when that of a module moves by d."""
        if name not in disturbed:
            moved = disturbance(wide[name][1])
            with replaced_forward(block.get_submodule(name), adding(moved)):
                disturbed[name] = proportion(call(block, hidden) - before, moved)
        return disturbed[name]

    for name in reversed(list(wide)):
        module = block.get_submodule(name)
        if not is_operator(module):
            continue
        if (straight := factor(name)) is not None:
            found.append(Entry(name, None, False, straight))
            continue
        for other in wide:
            if is_operator(block.get_submodule(other)) or (form := norm_of(block.get_submodule(other), *wide[other])) is None:
                continue
            after = factor(other)
            reach = entering_factor(block, call, hidden, name, other, wide[name][1]) if after is not None else None
            if after is not None and reach is not None:
                found.append(Entry(name, other, form[0], form[1] * after * reach))
                break
    return tuple(found)


def entering_factor(
    block: nn.Module, call: Call, hidden: torch.Tensor, name: str, norm: str, output: torch.Tensor
) -> torch.Tensor | None:
    """c where what enters a norm moves by c d when the output of an operator moves by d."""
    moved, seen = disturbance(output), dict[str, tuple[torch.Tensor, torch.Tensor]]()
    with noting("before", block.get_submodule(norm), seen):
        call(block, hidden)
    with noting("after", block.get_submodule(norm), seen), replaced_forward(block.get_submodule(name), adding(moved)):
        call(block, hidden)
    return proportion(seen["after"][0] - seen["before"][0], moved)


def norm_of(module: nn.Module, given: torch.Tensor, answer: torch.Tensor) -> tuple[bool, torch.Tensor] | None:
    """Whether a module that returns g (x - m) / s + b subtracts means m, and g (width,); None where it does something else."""
    if given.shape != answer.shape or not given.is_floating_point():
        return None
    shift = module(torch.zeros_like(given))
    if float((module(2 * given) - answer).abs().max()) > CLOSE * float(answer.abs().max()):
        return None
    rows, outputs = given.flatten(0, -2).double(), (answer - shift).flatten(0, -2).double()
    for centred in (False, True):
        units = (rows - rows.mean(-1, keepdim=True) if centred else rows) / size_of(rows, centred)
        gain = (units * outputs).sum(0) / units.square().sum(0)
        if float((units * gain - outputs).norm()) <= CLOSE * float(outputs.norm()) and bool((gain != 0).all()):
            return centred, gain
    return None


def size_of(rows: torch.Tensor, centred: bool) -> torch.Tensor:
    """The root mean square of every row, around its mean where it is centred."""
    rows = rows - rows.mean(-1, keepdim=True) if centred else rows
    return rows.square().mean(-1, keepdim=True).sqrt()


def disturbance(output: torch.Tensor) -> torch.Tensor:
    """Numbers of the size of an output, the same every time."""
    noise = torch.randn(output.shape, generator=torch.Generator().manual_seed(0)).to(output)
    return noise * output.float().square().mean().sqrt().clamp(min=1e-3).to(output.dtype)


def proportion(change: torch.Tensor, moved: torch.Tensor) -> torch.Tensor | None:
    """c where change = c moved, and not 0; else None."""
    change, moved = change.double().flatten(), moved.double().flatten()
    found = (change * moved).sum() / moved.square().sum()
    apart = (change - found * moved).norm()
    return found if float(apart) <= CLOSE * float((found * moved).norm()) and float(found.abs()) > 1e-6 else None


def adding(moved: torch.Tensor) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a forward return more than it does."""
    return lambda own: lambda *args, **kwargs: own(*args, **kwargs) + moved


@contextmanager
def noting(name: str, module: nn.Module, seen: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> Iterator[None]:
    """Note what a module that is called with one tensor alone and returns one was given and returned."""

    def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], answer: Any) -> None:
        given = (*args, *kwargs.values())
        if len(given) == 1 and isinstance(given[0], torch.Tensor) and isinstance(answer, torch.Tensor):
            seen[name] = (given[0].detach(), answer.detach())

    handle = module.register_forward_hook(note, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
