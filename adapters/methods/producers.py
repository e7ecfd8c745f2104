"""Producers refitted before their module is pruned, so that the pruned model passes on what the dense one would have."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from gramian.adapters.models.layers import Layer
from gramian.adapters.run.mixtures import Mixture
from gramian.adapters.run.moments import MomentCollector
from gramian.adapters.run.ranks import Shares
from gramian.solvers import refit
from gramian.solvers.backend._xp import namespace

__all__ = ["ProducerRefit"]


class ProducerRefit:
    """V = argmin |X* V^T - X W^T|^2 + damping sum_j G_jj |V_j - W_j|^2 for every producer of a module.

    X* is what the blocks pruned so far deliver, X what the dense ones deliver (Greedy Output Approximation, the first level
    of Algorithms 2 to 4; the second level is the compensation of the consumer, with the inputs that follow). Biases are on
    both sides, and cancel.

    Each level is optimal for its own target, but the two together need not be, not even compared with unchanged producers,
    because a softmax or an activation lies between them. A refit can therefore be undone. producers: layers that share one
    input. collector: the moments of that input. outcome: the moments of what reaches the consumer from the producers.
    """

    def __init__(
        self,
        producers: list[Layer],
        consumer: str,
        parts: tuple[int, ...],
        damping: float,
        dtype: torch.dtype,
        shares: Shares = Shares(),
        mixture: Mixture | None = None,
    ) -> None:
        self.producers, self.damping, self.dtype = producers, damping, dtype
        self.collector = MomentCollector(producers[0].name, parts, keep=True, shares=shares, mixture=mixture)
        self.outcome = MomentCollector(consumer, parts, keep=True, shares=shares, mixture=mixture)
        self.before: list[torch.Tensor] = []

    def refit(self, star: Iterable[torch.Tensor]) -> None:
        """Write the weights, rounded. star: X*, batch by batch; X is what `collector` has kept."""
        self.collector.settle(star)
        moments = self.collector.moments[0]
        self.before = [layer.weight.clone() for layer in self.producers]
        for layer in self.producers:
            problem = layer.problem(moments)
            whole = namespace(problem.anchor).ones_like(problem.anchor) > 0
            layer.assign(refit(problem.damped(self.damping * problem.diagonal), whole).weights, self.dtype)

    def undo(self) -> None:
        """Write back the weights that the producers had before `refit`."""
        for layer, weight in zip(self.producers, self.before):
            layer.weight.copy_(weight)
