"""Another way to fit a block as a whole: linear least squares by conjugate gradients, of some weights at a time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from gramian.adapters.passes.block_fits import SMALLEST, BlockFit, Fitted, Losses, Step, energies

Weights = dict[str, torch.Tensor]


class GaussNewton(BlockFit):
    """argmin_D sum_t |S (J_t D - T_t + b(x_t; V))|^2 / |T_t|^2 over changes D of some weights, J_t the derivative of b(x_t; V).

    `steps` of conjugate gradients, by products with J_t and its transpose, from D = 0, in units of each parameter's size. Where
    the block is linear in these weights, as in those that add to the stream without a norm behind them, and in `up_proj` for
    given gates, that is least squares itself. A step that does not lower the loss on the windows that are fitted is halved, up
    to three times, and what is best on windows set aside remains.

    parts: expressions for the weights that are fitted at a time, one after the other.
    """

    def __init__(self, *given: Any, parts: Sequence[str] = ("",), steps: int = 8) -> None:
        super().__init__(*given)
        self.parts, self.steps = parts, steps
        self.sizes = {name: max(float(self.kept(name).square().mean().sqrt()), SMALLEST) for name in self.weights}

    def kept(self, name: str) -> torch.Tensor:
        """The weights of a parameter that may differ from zero."""
        return self.weights[name][self.masks[name]] if name in self.masks else self.weights[name]

    @torch.no_grad()
    def solve(self, fitted: Sequence[Step], aside: Sequence[Step]) -> Fitted:
        """Fit, and write what remains to the block, rounded."""
        before = last = best = Losses(self.loss(fitted), self.loss(aside))
        found, best_part = self.copied(), 0
        for number, part in enumerate(self.parts):
            names = [name for name in self.weights if re.search(part, name)]
            start, change, length = self.copied(), self.change(names, fitted), 1.0
            for _ in range(4):
                for name in names:
                    self.weights[name].copy_(start[name] + length * self.sizes[name] * change[name])
                if (now := Losses(self.loss(fitted), self.loss(aside))).fitted < last.fitted:
                    break
                length /= 2
            else:
                self.put(start)
                continue
            last = now
            if now.aside < best.aside:
                best, found, best_part = now, self.copied(), number + 1
        self.put(found)
        for name, parameter in self.stored.items():
            parameter.copy_(found[name].to(self.dtype))
        return Fitted(before, best, best_part, len(self.parts))

    def put(self, weights: Weights) -> None:
        for name, each in weights.items():
            self.weights[name].copy_(each)

    def change(self, names: Sequence[str], fitted: Sequence[Step]) -> Weights:
        """D, each in units of its parameter's size."""
        nothing = {name: torch.zeros_like(self.weights[name]) for name in names}

        def answer(change: Weights, states: torch.Tensor) -> torch.Tensor:
            moved = {name: each * self.masks.get(name, 1.0) * self.sizes[name] for name, each in change.items()}
            return self.function({name: each + moved.get(name, 0.0) for name, each in self.weights.items()}, states)

        parts = [self.scales.sqrt() * energies(target).rsqrt()[..., None] for _, target in fitted]

        def back(residuals: Sequence[torch.Tensor]) -> Weights:
            total = {name: each.clone() for name, each in nothing.items()}
            for (states, _), part, residual in zip(fitted, parts, residuals):
                _, transposed = torch.func.vjp(lambda change, states=states: answer(change, states), nothing)
                for name, each in transposed(part * residual)[0].items():
                    total[name] += each
            return total

        def forth(change: Weights) -> list[torch.Tensor]:
            with sdpa_kernel(SDPBackend.MATH):  # the others have no derivative in forward mode
                moved = [torch.func.jvp(lambda each, x=x: answer(each, x), (nothing,), (change,))[1] for x, _ in fitted]
            return [part * each for part, each in zip(parts, moved)]

        residuals = [part * (target - answer(nothing, states)) for (states, target), part in zip(fitted, parts)]
        change, slope = dict(nothing), back(residuals)
        direction, size = slope, inner(slope, slope)
        for _ in range(self.steps):
            moved = forth(direction)
            length = size / max(sum(float(each.square().sum()) for each in moved), 1e-300)
            change = {name: each + length * direction[name] for name, each in change.items()}
            residuals = [one - length * other for one, other in zip(residuals, moved)]
            slope, before = back(residuals), size
            size = inner(slope, slope)
            direction = {name: each + size / before * direction[name] for name, each in slope.items()}
        return change


def inner(one: Weights, other: Weights) -> float:
    return sum(float((each * other[name]).sum()) for name, each in one.items())
