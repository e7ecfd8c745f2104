"""The pass that zeroes weights: every operator is given its problem, and the solution is written back and evaluated."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from gramian.adapters.data.problem_files import write_problem
from gramian.adapters.devices import solver_array
from gramian.adapters.models.block_lists import full_name
from gramian.adapters.models.experts import Packed
from gramian.adapters.models.layers import Layer, Site
from gramian.adapters.report import OperatorReport
from gramian.adapters.run.expert_moments import Collector, collector_of
from gramian.adapters.run.moments import Gathered, MomentCollector
from gramian.adapters.run.naming import naming
from gramian.adapters.run.ranks import Shares, divided
from gramian.adapters.run.walk import Receive, Replay
from gramian.solvers import Pattern, Support, certify
from gramian.solvers.support.damped import CalibrationSplit, DampedMethod

__all__ = ["ZeroWeights"]


@dataclass(frozen=True, eq=False)
class ZeroWeights:
    """argmin_V 1/2 |X* V^T - X W^T|_F^2 over V of a pattern, for every operator of a block in turn.

    The target of a packed expert is its own output, on the tokens that are routed to it on the path that is followed, whatever
    that of other operators is.

    paths: of the blocks. stages: of each block, operators that receive the same input, or the experts of one parameter, in
    order. patterns: by full name, of the operators to be pruned. follows, target, target_blend: see `PruneConfig`. parts: how
    many batches are fitted, and how many choose the damping; the rest are held out for the report. dtype: of the checkpoint, to
    which weights are rounded before they are evaluated. home: the device on which hidden states are kept. problems: an empty
    directory for problem files, if any. shares: of the batches, where other processes run some; they then share the operators
    of a block too, or of a stage where the next one's inputs follow from it.
    """

    paths: tuple[str, ...]
    stages: tuple[tuple[tuple[str, ...], ...], ...]
    patterns: Mapping[str, Pattern]
    solve: DampedMethod
    follows: str
    target: str
    target_blend: float
    parts: tuple[int, ...]
    dtype: torch.dtype
    home: torch.device
    advance: Callable[[], object]
    problems: Path | None = None
    shares: Shares = Shares()
    name = "weights"
    runs = True
    types: Sequence[type] = (OperatorReport,)

    @property
    def stop(self) -> int:
        """After the last block with an operator to be pruned."""
        return 1 + max(index for index in range(len(self.paths)) if self.written(index))

    @property
    def taps_dense(self) -> bool:
        """Whether the target is the dense model's."""
        return self.target == "model"

    def written(self, index: int) -> list[str]:
        """The operators of a block that are to be pruned, in order."""
        return [name for stage in self.wanted(index) for name in stage]

    def wanted(self, index: int) -> list[list[str]]:
        """The same by stage, without empty ones."""
        named = ([full_name(self.paths[index], operator) for operator in stage] for stage in self.stages[index])
        chosen = ([name for name in stage if name in self.patterns] for stage in named)
        return [stage for stage in chosen if stage]

    def open(self, index: int, block: nn.Module) -> BlockOfWeights:
        """Begin with a block."""
        prefix = full_name(self.paths[index], "")
        stages = [[Layer.at(block, name.removeprefix(prefix), name) for name in stage] for stage in self.wanted(index)]
        keep = self.target != "own"
        collectors = [collector_of(stage, self.parts, keep, self.target_blend, self.home, self.shares) for stage in stages]
        return BlockOfWeights(self, stages, collectors)

    def prune(self, layer: Layer, found: Gathered) -> OperatorReport:
        """Solve one operator's problem, write the rounded answer back, and evaluate what is stored."""
        started, pattern = time.perf_counter(), self.patterns[layer.name]
        moments = found.calibration
        problem = layer.problem(moments)
        heldout = None if found.heldout is None else layer.problem(found.heldout)
        evaluated = problem if found.evaluated is moments else layer.problem(found.evaluated)
        split = None
        if found.split is not None:
            fitted, choosing = found.split
            split = layer.problem(fitted), layer.problem(choosing), fitted.tokens
        if self.problems is not None:
            target = self.target if layer.expert is None else "own"
            metadata = {"operator": layer.name, "calibrate_on": self.follows, "target": target, **found.counts}
            file = self.problems / f"{layer.name}.safetensors"
            write_problem(file, problem, tokens=moments.tokens, metadata=metadata)
        try:
            solution = self.solve(problem, pattern, CalibrationSplit(moments.tokens, split))
        except ValueError as error:
            raise ValueError(f"{layer.name}: {error}") from error
        layer.assign(solution.weights, self.dtype)
        stored = solver_array(layer.weight.to(torch.float64))
        mask = stored != 0
        if not pattern.admits(mask):
            raise RuntimeError(f"{layer.name}: the solution does not satisfy the pattern {pattern}")
        certificate = certify(problem, Support(mask), stored)
        self.advance()
        return OperatorReport(
            name=layer.name,
            shape=problem.shape,
            pattern=str(pattern),
            sparsity=1 - float(mask.sum()) / (problem.shape[0] * problem.shape[1]),
            relative_error=certificate.relative_error if evaluated is problem else evaluated.relative_error(stored),
            heldout_error=None if heldout is None else heldout.relative_error(stored),
            residual=certificate.residual or 0.0,
            status=solution.status.value,
            seconds=time.perf_counter() - started,
            detail={**solution.detail, **found.detail},
        )


class BlockOfWeights:
    """The operators of one block by stage, and what is collected of each stage."""

    def __init__(self, each: ZeroWeights, stages: list[list[Layer]], collectors: list[Collector]) -> None:
        self.each, self.stages, self.collectors = each, stages, collectors

    @property
    def own(self) -> bool:
        """Whether the operators' own output is the target."""
        return self.each.target == "own"

    @property
    def taps(self) -> dict[Site, Receive]:
        """What the operators of a stage share is tapped at its first one. What reaches experts is routed otherwise on another
        path, token by token, so that nothing of theirs can be paired: they wait for the path that is followed."""
        return {
            stage[0].site: collector.receive
            for stage, collector in zip(self.stages, self.collectors)
            if self.own or isinstance(collector, MomentCollector)
        }

    @property
    def replayed(self) -> list[Site]:
        """Every stage, unless the operators' own output is the target."""
        return [] if self.own else [stage[0].site for stage in self.stages]

    def decide(self, replay: Replay, drifted: bool) -> list[OperatorReport]:
        """Prune stage by stage: the inputs of a stage on the pruned path follow from the stages before it."""
        rows, rank = list[OperatorReport](), self.each.shares.ranks.rank
        pools = [self.stages] if self.own else [[stage] for stage in self.stages]
        owners = {layer: owner for pool in pools for layer, owner in self.owned(pool)}
        needed = [{owners[layer] for layer in stage} for stage in self.stages]
        for collector, some in zip(self.collectors, needed) if self.own else ():
            collector.settle(None, some)  # before anything is written
        for pool in pools:
            found: dict[Layer, OperatorReport] = {}
            for stage in pool:
                collector, site, some = self.collectors.pop(0), stage[0].site, needed.pop(0)
                if not self.own:
                    collector.settle(replay(site) if rows or drifted or isinstance(site, Packed) else None, some)
                for layer in stage:
                    if owners[layer] == rank:
                        with naming(layer.name):
                            found[layer] = self.each.prune(layer, collector.of(layer))
                del collector  # its memory is free before the next stage's moments are formed
            rows += [self.exchanged(layer, found.get(layer), owners[layer]) for stage in pool for layer in stage]
        return rows

    def owned(self, pool: list[list[Layer]]) -> Iterable[tuple[Layer, int]]:
        """The operators that are solved for at the same time, each with the process that does it."""
        layers = [layer for stage in pool for layer in stage]
        return zip(layers, divided([cost(layer) for layer in layers], self.each.shares.ranks.size))

    def exchanged(self, layer: Layer, row: OperatorReport | None, owner: int) -> OperatorReport:
        """The row of an operator that the process `owner` has pruned, whose weights every other one takes over."""
        ranks = self.each.shares.ranks
        if ranks.alone:
            assert row is not None
            return row
        given = None
        if row is not None:
            given = row, {name: tensor.detach().to("cpu", self.each.dtype) for name, tensor in layer.tensors.items()}
        found, tensors = ranks.share(given, owner)
        if row is None:
            for name, tensor in layer.tensors.items():
                tensor.data.copy_(tensors[name])
            self.each.advance()
        return found


def cost(layer: Layer) -> float:
    """About how much work an operator is, in multiplications: products of its weights with the Gram matrix, a factorisation."""
    outputs, inputs = layer.weight.shape
    return float(outputs * inputs**2 + inputs**3 / 3)
