"""The pass that looks at every operator of the dense model, with the moments of what reaches it, and writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from gramian.adapters.models.block_lists import full_name
from gramian.adapters.models.layers import Layer, Site
from gramian.adapters.run.expert_moments import Collector, collector_of
from gramian.adapters.run.looking import Looking
from gramian.adapters.run.mixtures import Mixture
from gramian.adapters.run.naming import naming
from gramian.adapters.run.walk import Receive, Replay
from gramian.solvers import Moments

__all__ = ["DenseOperators"]


def alone(rows: list[Any]) -> list[Any]:
    """A row for every operator."""
    return rows


@dataclass(frozen=True, eq=False)
class DenseOperators(Looking):
    """Make something of every operator and the moments of its dense inputs, and write nothing to the model.

    stages: of each block, operators by full name that receive the same input. solve: `WeightLevels`, `UnitLevels`, or
    `saliencies`. fitted: how many batches there are. types: of rows. name: of the records. joined: what makes the rows of a
    block of what was made of its operators. mixture: of the domains, where there are several.
    """

    paths: tuple[str, ...]
    stages: tuple[tuple[tuple[str, ...], ...], ...]
    solve: Callable[[Layer, Moments], Any]
    fitted: int
    home: torch.device
    advance: Callable[[], object]
    types: Sequence[type]
    name: str
    joined: Callable[[list[Any]], list[Any]] = alone
    mixture: Mixture | None = None
    runs = True

    @property
    def stop(self) -> int:
        """After the last block with an operator."""
        return 1 + max(index for index, stages in enumerate(self.stages) if stages)

    def open(self, index: int, block: nn.Module) -> DenseBlock:
        """Begin with a block."""
        prefix = full_name(self.paths[index], "")
        stages = [[Layer.at(block, name.removeprefix(prefix), name) for name in stage] for stage in self.stages[index]]
        return DenseBlock(self, stages, [self.collector(stage) for stage in stages])

    def collector(self, stage: list[Layer]) -> Collector:
        """What gathers the inputs of a stage."""
        return collector_of(stage, (self.fitted,), False, home=self.home, mixture=self.mixture)


@dataclass(frozen=True, eq=False)
class DenseBlock:
    """The operators of one block by stage, and what is collected of each stage."""

    each: DenseOperators
    stages: list[list[Layer]]
    collectors: list[Collector] = field(default_factory=list)

    @property
    def taps(self) -> dict[Site, Receive]:
        """What the operators of a stage share is tapped at its first one."""
        return {stage[0].site: collector.receive for stage, collector in zip(self.stages, self.collectors)}

    @property
    def replayed(self) -> list[Site]:
        """Nothing: there is no other path."""
        return []

    def decide(self, replay: Replay, drifted: bool) -> list[Any]:
        """Solve stage by stage; the moments of a stage are free afterwards."""
        rows = []
        for stage in self.stages:
            collector = self.collectors.pop(0)
            collector.settle(None)
            for layer in stage:
                with naming(layer.name):
                    rows.append(self.each.solve(layer, collector.of(layer).calibration))
                self.each.advance()
        return self.each.joined(rows) if rows else rows
