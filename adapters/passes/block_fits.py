"""What is left of a block, fitted as a whole to what the dense block answers: gradients through the block, zeros held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from gramian.adapters.passes.block_functions import BlockFunction
from gramian.adapters.run.forward import BlockCall

__all__ = ["BlockFit", "Fitted", "Losses", "Step", "energies", "scales_of"]

EPOCHS = 3  # over the windows that are fitted
PATIENCE = 2  # epochs without a lower loss on windows set aside, after which a fit ends
RATE = 7e-3  # the first step of a weight, relative to the root mean square of its parameter; it falls to zero
SMALLEST = 1e-3  # that root mean square at least: biases start at zero; of a token's length, relative to that of all
TINY = 1e-12  # Adam's epsilon, beside gradients of a loss that is 1 at the start

Step = tuple[torch.Tensor, torch.Tensor]  # what enters the block (windows, length, width), and what should leave it


@dataclass(frozen=True)
class Losses:
    """sum_t |S (b(x_t) - T_t)|^2 / |T_t|^2 over the windows that are fitted and those that are set aside."""

    fitted: float
    aside: float


@dataclass(frozen=True)
class Fitted:
    """What came of a fit: the losses of what was stored and of what is, the epoch that this is of, and how many there were."""

    before: Losses
    after: Losses
    epochs: int
    tried: int


class BlockFit:
    """argmin_V sum_t |S (b(x_t; V) - T_t)|^2 / |T_t|^2 over parameters V of a block b, zeros of those that have a mask held.

    Errors are relative to each token, as the norm that reads the answer next makes them, and by a diagonal S (`scales_of`) to
    each channel: a few tokens may be a hundred times as large as others, and most of their length is in one channel, on which
    little of what follows depends, and which would be all that is fitted.
    Adam makes a step for each of the given ones, in an order that is drawn anew, with a seed, in every epoch; the steps are
    relative to the size of each parameter and fall to zero. Weights are float32 at least while they are fitted, and every loss
    is that of what would be stored. An epoch counts where the loss on the windows that are fitted falls by it: else the weights
    go back, and steps are half as long from there on. What is best on windows set aside remains, which is the block as it was
    if no epoch is better; after `PATIENCE` epochs that are not, the fit ends.

    names: of the parameters, in the block. masks: by name, True where a weight may differ from zero. dtype: of the checkpoint.
    scales: the squares of S.
    """

    def __init__(
        self,
        block: nn.Module,
        call: BlockCall,
        names: Sequence[str],
        masks: Mapping[str, torch.Tensor],
        dtype: torch.dtype,
        scales: torch.Tensor,
        epochs: int = EPOCHS,
        rate: float = RATE,
    ) -> None:
        self.function, self.dtype, self.scales = BlockFunction(block, call, names), dtype, scales
        self.epochs, self.rate = epochs, rate
        self.masks = {name: mask for name, mask in masks.items() if name in names}
        self.stored = {name: block.get_parameter(name) for name in names}
        known = {name: torch.promote_types(each.dtype, torch.float32) for name, each in self.stored.items()}
        self.weights = {name: each.detach().to(known[name], copy=True) for name, each in self.stored.items()}

    def solve(self, fitted: Sequence[Step], aside: Sequence[Step]) -> Fitted:
        """Fit, and write what remains to the block, rounded."""
        before = last = best = Losses(self.loss(fitted), self.loss(aside))
        reached = found = self.copied()
        rate, optimiser, best_epoch, tried, waited = self.rate, self.optimiser(), 0, 0, 0
        while tried < self.epochs and waited < PATIENCE and last.fitted > 0:
            self.epoch(optimiser, fitted, tried, rate, before.fitted / len(fitted))
            tried, now = tried + 1, Losses(self.loss(fitted), self.loss(aside))
            if not now.fitted < last.fitted:
                rate, optimiser = rate / 2, self.optimiser(reached)
                continue
            last, reached, waited = now, self.copied(), waited + 1
            if now.aside < best.aside:
                best, found, best_epoch, waited = now, reached, tried, 0
        with torch.no_grad():
            for name, parameter in self.stored.items():
                self.weights[name].copy_(found[name])
                parameter.copy_(found[name].to(self.dtype))
        return Fitted(before, best, best_epoch, tried)

    def copied(self) -> dict[str, torch.Tensor]:
        """The weights as they are now."""
        return {name: each.detach().clone() for name, each in self.weights.items()}

    def optimiser(self, weights: Mapping[str, torch.Tensor] | None = None) -> torch.optim.Optimizer:
        """Adam, which has seen nothing yet. weights: those to go on from, where it is not those of now."""
        groups = []
        for name, each in self.weights.items():
            if weights is not None:
                each.detach().copy_(weights[name])
            kept = each.detach()[self.masks[name]] if name in self.masks else each.detach()
            size = float(kept.square().mean().sqrt()) if kept.numel() else 0.0
            groups.append({"params": [each.requires_grad_(True)], "size": max(size, SMALLEST)})
        return torch.optim.Adam(groups, eps=TINY)

    @torch.enable_grad()
    def epoch(self, optimiser: torch.optim.Optimizer, fitted: Sequence[Step], number: int, rate: float, unit: float) -> None:
        """Make a step for each of the given ones. unit: the loss that counts as 1. ValueError for a block without gradients."""
        order = torch.randperm(len(fitted), generator=torch.Generator().manual_seed(number)).tolist()
        for place, step in enumerate(order):
            remaining = 1 - (number + place / len(fitted)) / self.epochs
            for group in optimiser.param_groups:
                group["lr"] = rate * remaining * group["size"]
            optimiser.zero_grad()
            states, target = fitted[step]
            loss = self.squares(self.weights, states, target) / unit
            if not loss.requires_grad:
                raise ValueError("nothing that it answers has gradients, by which blocks are refitted: take refit='support'")
            loss.backward()
            for name, mask in self.masks.items():
                if (gradient := self.weights[name].grad) is not None:
                    gradient.mul_(mask)
            optimiser.step()

    @torch.no_grad()
    def loss(self, steps: Sequence[Step]) -> float:
        """The loss of the weights as they would be stored."""
        rounded = {name: each.to(self.dtype) for name, each in self.weights.items()}
        return sum(float(self.squares(rounded, *step, torch.float64)) for step in steps)

    def squares(
        self, weights: Mapping[str, torch.Tensor], states: torch.Tensor, target: torch.Tensor, dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """sum_t |S (b(x_t; V) - T_t)|^2 / |T_t|^2 of one step. dtype: in which it is summed up."""
        answer = self.function({name: each.to(self.stored[name].dtype) for name, each in weights.items()}, states)
        target = target.to(answer.device)
        squares = (answer.to(target.dtype) - target).square() * self.scales.to(target)
        return (squares.sum(-1, dtype=dtype) / energies(target)).sum()


def scales_of(steps: Sequence[Step]) -> torch.Tensor:
    """S_c^2, the usual share of a channel in |T_t|^2 over its own, on the mean over tokens, so that all channels of the targets
    count alike; one that is next to nothing counts no more than one of a thousandth of the usual size."""
    total = sum((target.double().square() / energies(target.double())[..., None]).flatten(0, -2).sum(0) for _, target in steps)
    assert isinstance(total, torch.Tensor)
    usual = total.mean()
    scales: torch.Tensor = usual / total.clamp(min=max(SMALLEST**2 * float(usual), torch.finfo(total.dtype).tiny))
    return scales.float()


def energies(target: torch.Tensor) -> torch.Tensor:
    """|T_t|^2 of every token, and of one that is next to nothing a part of the mean: it should not be all that counts."""
    found = target.square().sum(-1)
    return found.clamp(min=max(SMALLEST**2 * float(found.mean()), torch.finfo(found.dtype).tiny))
