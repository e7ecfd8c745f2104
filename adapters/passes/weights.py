"""The pass that zeroes weights: every operator is given its problem, and the solution is written back and evaluated."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gramian.adapters.data.problem_files import write_problem
from gramian.adapters.devices import solver_array
from gramian.adapters.models.block_lists import full_name
from gramian.adapters.models.experts import Packed
from gramian.adapters.models.inner_bases import InnerBasis
from gramian.adapters.models.layers import Layer, Site
from gramian.adapters.models.weight_parts import KINDS
from gramian.adapters.passes.basis_changes import BasisChange, BasisChanges
from gramian.adapters.passes.owners import handed_on, owners_of, put_together
from gramian.adapters.passes.row_parts import Answer, SharedPilots, joined, peers_of, split_rows
from gramian.adapters.report import OperatorReport
from gramian.adapters.run.expert_moments import Collector, collector_of
from gramian.adapters.run.mixtures import Mixture
from gramian.adapters.run.moments import Gathered, MomentCollector
from gramian.adapters.run.naming import naming
from gramian.adapters.run.ranks import Shares
from gramian.adapters.run.walk import Receive, Replay
from gramian.adapters.targets import AllZero
from gramian.solvers import Pattern, Quadratic, Solution, Status, Support, certify
from gramian.solvers.support.damped import CalibrationSplit, DampedMethod
from gramian.solvers.support.shrinkage import pilot_rows

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
    of a block too, or of a stage where the next one's inputs follow from it, and the rows of an operator where the method has a
    form for parts of them. changes: of bases inside blocks, if any. mixture: of the domains,
    where there are several. wrapped: whether answers are products of which a core alone has the pattern's zeros.
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
    changes: BasisChanges | None = None
    mixture: Mixture | None = None
    wrapped: bool = False
    name = "weights"
    runs = True
    types: Sequence[type] = (OperatorReport, *KINDS)

    @property
    def stop(self) -> int:
        """After the last block with an operator to be pruned."""
        return 1 + max(index for index in range(len(self.paths)) if self.wanted(index))

    @property
    def taps_dense(self) -> bool:
        """Whether the target is the dense model's."""
        return self.target == "model"

    def written(self, index: int) -> list[str]:
        """The operators of a block that are to be pruned, in order, and those whose basis is changed."""
        pruned = [name for stage in self.wanted(index) for name in stage]
        changed = [name for basis in self.bases(index) for name in basis.operators]
        return list(dict.fromkeys([*pruned, *changed]))

    def bases(self, index: int) -> list[InnerBasis]:
        """The bases inside a block that are changed."""
        return [] if self.changes is None else self.changes.inside(full_name(self.paths[index], ""))

    def wanted(self, index: int) -> list[list[str]]:
        """The operators of a block that are to be pruned, by stage, without empty ones."""
        named = ([full_name(self.paths[index], operator) for operator in stage] for stage in self.stages[index])
        chosen = ([name for name in stage if name in self.patterns] for stage in named)
        return [stage for stage in chosen if stage]

    def open(self, index: int, block: nn.Module) -> BlockOfWeights:
        """Begin with a block."""
        prefix = full_name(self.paths[index], "")
        stages = [[Layer.at(block, name.removeprefix(prefix), name) for name in stage] for stage in self.wanted(index)]
        keep = self.target != "own"
        given = self.parts, keep, self.target_blend, self.home, self.shares, self.mixture
        collectors = [collector_of(stage, *given) for stage in stages]
        return BlockOfWeights(self, stages, collectors, self.bases(index))

    def row_parts(self, name: str, shape: Sequence[int]) -> list[slice]:
        """The parts of an operator's rows that may be solved for by different processes."""
        return split_rows(shape[0], self.solve.together is not None and not isinstance(self.patterns[name], AllZero))

    def owners(self, operators: Sequence[tuple[str, tuple[int, int]]], size: int) -> list[list[int]]:
        """For operators of these names and shapes that are solved for at the same time, the process of each part."""
        parts = [self.row_parts(name, shape) for name, shape in operators]
        return owners_of([shape[1] for _, shape in operators], parts, self.solve.together is not None, size)

    def begun(self, layer: Layer, found: Gathered, owners: Sequence[int]) -> Work:
        """Solve those parts of one operator's problem that this process owns. The first part goes with the problem file, if
        any. owners: of the parts, each of which has to begin with the operator."""
        ranks = self.shares.ranks
        numbers = [number for number, owner in enumerate(owners) if owner == ranks.rank]
        started = time.perf_counter()
        moments = found.calibration
        problem = layer.problem(moments)
        split = None
        if found.split is not None:
            (fitted, choosing), pilots = found.split, pilot_rows(layer.weight.shape[0])
            split = layer.problem(fitted, pilots), layer.problem(choosing, pilots), fitted.tokens
        if self.problems is not None and 0 in numbers:
            target = self.target if layer.expert is None else "own"
            metadata = {"operator": layer.name, "calibrate_on": self.follows, "target": target, **found.counts}
            file = self.problems / f"{layer.name}.safetensors"
            write_problem(file, problem, tokens=moments.tokens, metadata=metadata)
        pattern, calibration, parts = (
            self.patterns[layer.name],
            CalibrationSplit(moments.tokens, split),
            self.row_parts(layer.name, layer.weight.shape),
        )
        try:
            if isinstance(pattern, AllZero):
                solutions = [nothing_kept(problem, pattern)]
            elif len(parts) == 1:
                solutions = [self.solve(problem, pattern, calibration)]
            else:
                solutions = self.solve.on_parts(
                    problem, pattern, calibration, [parts[number] for number in numbers],
                    peers_of(pattern, parts, owners, ranks), SharedPilots(owners, ranks, layer.weight.device),
                )  # fmt: skip
        except ValueError as error:
            raise ValueError(f"{layer.name}: {error}") from error
        answers = dict(zip(numbers, map(Answer.of, solutions)))
        return Work(layer, found, problem, answers, time.perf_counter() - started)

    def ended(self, work: Work) -> OperatorReport:
        """Write the rounded answer back, of which all parts are there, and evaluate what is stored."""
        started, layer, problem, found = time.perf_counter(), work.layer, work.problem, work.found
        pattern, answer = self.patterns[layer.name], joined([work.answers[number] for number in sorted(work.answers)])
        heldout = None if found.heldout is None else layer.problem(found.heldout)
        evaluated = problem if found.evaluated is found.calibration else layer.problem(found.evaluated)
        domains = {name: layer.problem(moments) for name, moments in found.domains.items()}
        parts = None if answer.parts is None else answer.parts.rounded(self.dtype)
        layer.assign(answer.weights if parts is None else parts.weights, self.dtype)
        weights = layer.weight.to(torch.float64)
        stored = solver_array(weights if parts is None or parts.merged else parts.weights.to(weights.device))
        mask = stored != 0 if parts is None else solver_array(parts.mask.to(weights.device))
        has_zeros = not self.wrapped if parts is None else parts.has_zeros  # the product of a core with zeros has none
        if has_zeros and not pattern.admits(mask):
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
            residual=(certificate.residual or 0.0) if parts is None else parts.residual(problem, stored),
            status=answer.status,
            seconds=work.seconds + time.perf_counter() - started,
            detail={**answer.detail, **found.detail, **{name: each.relative_error(stored) for name, each in domains.items()}},
            parts=parts,
        )


@dataclass
class Work:
    """What this process has done for one operator. answers: by the number of the part. seconds: that it took."""

    layer: Layer
    found: Gathered
    problem: Quadratic
    answers: dict[int, Answer] = field(default_factory=dict)
    seconds: float = 0.0


class BlockOfWeights:
    """The operators of one block by stage, and what is collected of each stage."""

    def __init__(
        self, each: ZeroWeights, stages: list[list[Layer]], collectors: list[Collector], bases: Sequence[InnerBasis] = ()
    ) -> None:
        self.each, self.stages, self.collectors, self.bases = each, stages, collectors, bases

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
        owners = {layer: owned for pool in pools for layer, owned in self.owned(pool).items()}
        based = {name for basis in self.bases for name in basis.operators} if self.own else set()  # needed everywhere
        needed = [
            None if any(layer.name in based for layer in stage) else {owner for layer in stage for owner in owners[layer]}
            for stage in self.stages
        ]
        for collector, some in zip(self.collectors, needed) if self.own else ():
            collector.settle(None, some)  # before anything is written
        changes: dict[str, BasisChange] = {}
        if self.each.changes is not None and self.bases:
            gatherers = {layer.name: each for stage, each in zip(self.stages, self.collectors) for layer in stage}
            layers = {layer.name: layer for stage in self.stages for layer in stage}
            changes = self.each.changes.made(self.bases, layers, gatherers, self.each.dtype, self.each.shares.ranks)
        for pool in pools:
            found: dict[Layer, OperatorReport] = {}
            waiting: dict[Layer, Work] = {}  # for parts that other processes have
            for stage in pool:
                collector, site, some = self.collectors.pop(0), stage[0].site, needed.pop(0)
                change = changes.get(stage[0].name)
                if not self.own:
                    star: Any = replay(site) if rows or drifted or isinstance(site, Packed) else None
                    if star is not None and change is not None:
                        star = map(change.back, star)
                    collector.settle(star, some)
                for layer in stage:
                    mine = owners[layer].count(rank)
                    with naming(layer.name):
                        gathered = collector.of(layer) if mine else None
                        if gathered is not None and change is not None:
                            gathered = change.gathered(gathered)
                        work = self.each.begun(layer, gathered, owners[layer]) if gathered is not None else None
                        if work is not None and mine == len(owners[layer]):
                            found[layer] = self.each.ended(work)
                        elif work is not None:
                            waiting[layer] = work
                del collector, gathered, work  # their memory is free before the next stage's moments are formed
            done = [layer for stage in pool for layer in stage]
            ends = {layer: owners[layer][number % len(owners[layer])] for number, layer in enumerate(done)}  # by turns
            works = {layer: self.completed(waiting.pop(layer, None), owners[layer], ends[layer]) for layer in done}
            for layer in done:
                if (complete := works.pop(layer)) is not None:
                    with naming(layer.name):
                        found[layer] = self.each.ended(complete)
                del complete
            rows += [self.exchanged(layer, found.get(layer), ends[layer]) for layer in done]
        return rows

    def owned(self, pool: list[list[Layer]]) -> dict[Layer, list[int]]:
        """For the operators that are solved for at the same time, the process that does it, part by part of their rows."""
        layers = [layer for stage in pool for layer in stage]
        shapes = [(layer.name, (layer.weight.shape[0], layer.weight.shape[1])) for layer in layers]
        return dict(zip(layers, self.each.owners(shapes, self.each.shares.ranks.size)))

    def completed(self, work: Work | None, owners: Sequence[int], end: int) -> Work | None:
        """Bring the parts of an operator together, where several processes have some, in the process `end`, which has some."""
        if len(set(owners)) == 1:
            return None
        answers = put_together(self.each.shares.ranks, {} if work is None else work.answers, owners, end)
        return None if answers is None or work is None else replace(work, answers=answers)

    def exchanged(self, layer: Layer, row: OperatorReport | None, owner: int) -> OperatorReport:
        """The row of an operator that the process `owner` has pruned, whose weights every other one takes over."""
        ranks = self.each.shares.ranks
        if ranks.alone:
            assert row is not None
            return row
        found = handed_on(ranks, layer, row, owner, self.each.dtype)
        if row is None:
            self.each.advance()
        return found


def nothing_kept(problem: Quadratic, pattern: AllZero) -> Solution:
    """V = 0, which no method needs to be asked for."""
    weights = 0 * problem.anchor
    return Solution(weights, Status.DIRECT, certify(problem, Support(pattern.select(weights)), weights))
