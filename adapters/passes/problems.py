"""The pass that writes problem files, whose decision changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from gramian.adapters.data.problem_files import write_problem
from gramian.adapters.models.block_lists import full_name
from gramian.adapters.models.layers import Layer, Site
from gramian.adapters.run.expert_moments import Collector, collector_of
from gramian.adapters.run.looking import Looking
from gramian.adapters.run.walk import Receive, Replay

__all__ = ["WriteProblems"]


@dataclass(frozen=True, eq=False)
class WriteProblems(Looking):
    """One file for every operator, from the dense model's activations; the moments of one block exist at a time.

    paths: of the blocks. stages: of each block, operators that receive the same input. names: the operators that are written.
    folder: where the files go. metadata: what every file says. batches: how many are run.
    """

    paths: tuple[str, ...]
    stages: tuple[tuple[tuple[str, ...], ...], ...]
    names: frozenset[str]
    folder: Path
    metadata: Mapping[str, str]
    batches: int
    advance: Callable[[], object]
    name = "problems"
    runs = True
    types: Sequence[type] = ()

    @property
    def stop(self) -> int:
        """After the last block with an operator that is written."""
        return 1 + max(
            index for index, path in enumerate(self.paths) if any(name.startswith(full_name(path, "")) for name in self.names)
        )

    def open(self, index: int, block: nn.Module) -> BlockOfProblems:
        """Begin with a block: layers of one stage share their input, and so their moments, unless they are packed experts."""
        stages = []
        for stage in self.stages[index]:
            named = {full_name(self.paths[index], operator): operator for operator in stage}
            layers = [Layer.at(block, path, name) for name, path in named.items() if name in self.names]
            if layers:
                stages.append(layers)
        return BlockOfProblems(self, index, stages, [collector_of(layers, (self.batches,), keep=False) for layers in stages])


@dataclass(frozen=True, eq=False)
class BlockOfProblems:
    """The operators of one block by stage."""

    each: WriteProblems
    index: int
    stages: list[list[Layer]]
    collectors: list[Collector]

    @property
    def taps(self) -> dict[Site, Receive]:
        """What the operators of a stage share is tapped at its first one."""
        return {layers[0].site: collector.receive for layers, collector in zip(self.stages, self.collectors)}

    @property
    def replayed(self) -> list[Site]:
        """Nothing: there is no other path."""
        return []

    def decide(self, replay: Replay, drifted: bool) -> list[None]:
        """Write the files."""
        for layers, collector in zip(self.stages, self.collectors):
            collector.settle(None)
            for layer in layers:
                found = collector.of(layer)
                moments = found.calibration
                metadata = {"operator": layer.name, "layer": str(self.index), **self.each.metadata, **found.counts}
                file = self.each.folder / f"{layer.name}.safetensors"
                write_problem(file, layer.problem(moments), tokens=moments.tokens, metadata=metadata)
                self.each.advance()
        return []
