"""The two walks of structured pruning: scores of units on the dense model, then their removal, block by block.

Models that do not run block by block have one pass through the whole model for each walk instead: see `whole`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from gramian.adapters.devices import solver_array
from gramian.adapters.methods.allocation import Selection
from gramian.adapters.methods.compensation import Answer, Compensation, Output, add_bias, compensate, residual, support_of
from gramian.adapters.methods.producers import ProducerRefit
from gramian.adapters.methods.types import ScoreContext, UnitScores
from gramian.adapters.methods.unit_sets import UnitSet, magnitudes
from gramian.adapters.models.families import blocks_of, family_of
from gramian.adapters.models.layers import Layer
from gramian.adapters.removal.report import ModuleReport
from gramian.adapters.run.blocks import BlockCall, inputs_of, run_block
from gramian.adapters.run.hooks import feed
from gramian.adapters.run.moments import MomentCollector
from gramian.adapters.run.placement import Placement
from gramian.solvers import MaskProblem, Moments, Quadratic, Status, Support, exchange_units
from gramian.solvers.backend._xp import Array, device, namespace, to_numpy

__all__ = ["Job", "Scoring", "remove_from", "remove_units", "score_units"]


@dataclass(frozen=True, eq=False)
class Job:
    """What all modules of one run have in common.

    score: of the method, and needs: what is gathered for it. parts: the number of batches that calibrate; the others are held
    out for the report. advance: called once for every module of each walk. refit_producers: whether producers are refitted
    before their module is pruned, see `ProducerRefit`. swap_search: whether kept units are swapped for better ones, see
    `swapped`. placement: brings blocks to where they are worked on."""

    model: PreTrainedModel
    score: Callable[[ScoreContext], UnitScores]
    needs: frozenset[str]
    allocation: str
    calibrate_on: str
    target_blend: float
    compensation: Compensation
    damping: float
    parts: tuple[int, ...]
    dtype: torch.dtype
    advance: Callable[[], object]
    refit_producers: bool = False
    swap_search: bool = False
    placement: Placement = field(default_factory=Placement)

    @property
    def gathers(self) -> bool:
        """Whether moments of the dense model are needed to score units."""
        return "inputs" in self.needs or self.allocation == "loss"

    def layer(self, unit_set: UnitSet) -> Layer:
        """The consumer of a unit set."""
        return Layer(unit_set.name, self.model.get_submodule(unit_set.name))

    def producer_refit(self, unit_set: UnitSet) -> ProducerRefit:
        """The refit of a unit set's producers, to be done once their inputs have come."""
        paths = [f"{unit_set.unit_group.block}.{path}" for path, _ in unit_set.unit_group.structure.producers]
        layers = [Layer(path, self.model.get_submodule(path)) for path in paths]
        return ProducerRefit(layers, unit_set.name, self.parts, self.damping, self.dtype)

    def by_block(self, unit_sets: Sequence[UnitSet]) -> list[tuple[nn.Module, list[int]]]:
        """The blocks up to the last one with a unit set, and the places of their unit sets."""
        path, blocks = family_of(self.model).blocks, blocks_of(self.model)
        found = [
            [k for k, unit_set in enumerate(unit_sets) if unit_set.unit_group.block == f"{path}.{index}"]
            for index in range(len(blocks))
        ]
        last = max(index for index, places in enumerate(found) if places)
        return list(zip(blocks, found))[: last + 1]


# -- first walk: scores ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Scoring:
    """The first walk as far as it has come.

    statistics: what the method gathered, by module. removal: parameters to remove. scored: the scores of every module so far.
    problems: the modules' mask problems, where only their joint relaxation can say how much is removed from each."""

    job: Job
    unit_sets: Sequence[UnitSet]
    statistics: Sequence[Any]
    removal: float
    scored: list[UnitScores] = field(default_factory=list)
    problems: list[MaskProblem] = field(default_factory=list)

    def score(self, place: int, layer: Layer) -> None:
        """Score the units of the next module, whose consumer's dense moments are those of `layer` if any are gathered."""
        job, unit_set = self.job, self.unit_sets[place]
        problem = layer.problem() if job.gathers else None
        context = ScoreContext(
            position=place,
            count=len(unit_set.scored),
            cost=unit_set.cost * unit_set.removable / len(unit_set.scored),
            keep=1 - self.removal / sum(each.removable * each.cost for each in self.unit_sets),
            magnitudes=partial(magnitudes, job.model, unit_set),
            problem=problem,
            mean=to_numpy(layer.moments.total) / layer.moments.tokens if job.gathers else None,
            tokens=layer.moments.tokens,
            damping=job.damping,
            jointly=job.allocation == "loss" and not unit_set.mixed,
            statistics=self.statistics[place],
        )
        try:
            self.scored.append(job.score(context))
        except ValueError as error:
            raise ValueError(f"{unit_set.name}: {error}") from error
        if problem is not None and job.allocation == "loss" and self.scored[-1].relative is None:
            mask = MaskProblem.from_problem(problem, groups=len(unit_set.scored))
            if mask.silent:
                raise ValueError(
                    f"{unit_set.name}: its output is zero, so it has no relative error: leave it out with exclude, or choose "
                    "an allocation that compares no outputs"
                )
            self.problems.append(mask)
        job.advance()


@torch.no_grad()
def score_units(scoring: Scoring, calls: Sequence[BlockCall], hidden: list[torch.Tensor]) -> None:
    """Score every module's units on the dense model. Where no moments are needed no block is run."""
    job, unit_sets = scoring.job, scoring.unit_sets
    for (block, places), call in zip(job.by_block(unit_sets), calls):
        layers = {place: job.layer(unit_sets[place]) for place in places}
        if job.gathers:
            job.placement.take(block)
            receivers = {layer.module: partial(receive, layer) for layer in layers.values()}
            hidden = run_block(block, call, hidden, receivers)
        for place in places:
            scoring.score(place, layers.pop(place))


def receive(layer: Layer, _: int, inputs: torch.Tensor) -> None:
    """Add inputs to the moments of their layer, whichever batch they are."""
    feed(layer.name, layer.moments, inputs)


# -- second walk: removal ----------------------------------------------------------------------------------------------


@torch.no_grad()
def remove_units(
    job: Job,
    unit_sets: Sequence[UnitSet],
    scored: Sequence[UnitScores],
    selection: Selection,
    calls: Sequence[BlockCall],
    hidden: list[torch.Tensor],
) -> list[ModuleReport]:
    """Set to zero, in place and in every module, the consumer's columns of units that `selection` does not keep.

    The consumer's other weights or its bias compensate for them. `shrink_model` then changes nothing that the model computes.
    """
    rows: list[ModuleReport] = []
    dense = entering = hidden
    for (block, places), call in zip(job.by_block(unit_sets), calls):
        job.placement.take(block)
        keep, home = job.calibrate_on == "pruned", hidden[0].device
        collectors = {
            place: MomentCollector(unit_sets[place].name, job.parts, keep, job.target_blend, home) for place in places
        }
        receivers: dict[nn.Module, Callable[[int, torch.Tensor], None]] = {
            job.layer(unit_sets[place]).module: collectors[place].receive for place in places
        }
        refits = {place: job.producer_refit(unit_sets[place]) for place in places if job.refit_producers}
        for place, each in refits.items():
            receivers[job.layer(unit_sets[place]).module] = both(collectors[place], each.outcome)
            receivers[each.producers[0].module] = each.collector.receive
        leaving = run_block(block, call, dense, receivers)
        del receivers  # they refer to what `collectors` release
        moved = entering is not dense
        for place in places:
            unit_set, collector, refitted = unit_sets[place], collectors.pop(place), refits.pop(place, None)
            consumer = job.layer(unit_set).module
            if job.calibrate_on == "pruned":
                collector.settle(inputs_of(consumer, block, call, entering) if moved else None)
            if not moved:  # where nothing has drifted the producers are optimal as they are
                refitted = None
            if refitted is not None:
                refitted.refit(inputs_of(refitted.producers[0].module, block, call, entering))
                refitted.outcome.settle(inputs_of(consumer, block, call, entering))
            rows.append(remove_from(job, unit_set, scored[place], selection, collector, refitted))
            moved = True
            job.advance()
        entering = run_block(block, call, entering) if job.calibrate_on == "pruned" and moved else leaving
        dense = leaving
    return rows


def both(one: MomentCollector, other: MomentCollector) -> Callable[[int, torch.Tensor], None]:
    """A receiver that hands its inputs to both collectors."""

    def receive(batch: int, inputs: torch.Tensor) -> None:
        one.receive(batch, inputs)
        other.receive(batch, inputs)

    return receive


@dataclass(frozen=True, eq=False)
class Candidate:
    """A module as it could be stored.

    output: the loss of its consumer, on calibration tokens; heldout: the same on held-out tokens, None without any. answer:
    weights and bias of the consumer, before rounding."""

    output: Output
    heldout: Output | None
    answer: Answer

    @property
    def error(self) -> float:
        """The relative error on the calibration tokens."""
        return self.output.relative_error(self.answer.weights, self.answer.bias)


def candidate(job: Job, layer: Layer, collector: MomentCollector, columns: np.ndarray, untouched: bool) -> Candidate:
    """The candidate for what has been collected. columns: (p,), True where kept. untouched: the consumer is not changed."""
    moments, apart = collector.moments[0], collector.moments.get(1)
    output = Output(layer.problem(moments), moments)
    heldout = None if apart is None else Output(layer.problem(apart), apart)
    if untouched:
        return Candidate(output, heldout, Answer(output.problem.anchor, None, Status.DIRECT))
    return Candidate(output, heldout, compensate(output, columns, job.compensation, job.damping))


def swapped(job: Job, unit_set: UnitSet, problem: Quadratic, kept: np.ndarray) -> np.ndarray:
    """As many units as `kept`, swapped one by one for others while that lowers the loss after compensation (`exchange_units`).

    Where a removable consists of several units, `kept` is returned as it is."""
    if unit_set.mixed:
        return kept
    xp = namespace(problem.gram)
    mask = xp.asarray(np.isin(unit_set.scored[:, 0], kept), device=device(problem.gram))
    found = exchange_units(problem.damped(job.damping * problem.diagonal), mask, groups=len(unit_set.scored))
    return np.sort(unit_set.scored[to_numpy(found.mask)].reshape(-1))


def remove_from(
    job: Job,
    unit_set: UnitSet,
    one: UnitScores,
    selection: Selection,
    collector: MomentCollector,
    refitted: ProducerRefit | None,
) -> ModuleReport:
    """Remove units of one module, write what compensates for them, rounded, and evaluate what is stored.

    With swap_search the units that `selection` keeps are swapped first, there too. refitted: the refit of its producers, which
    is kept if the module's output is nearer to the target with it, and undone otherwise."""
    started = time.perf_counter()
    group, layer = unit_set.unit_group, job.layer(unit_set)
    kept = selection.keep[unit_set.name]
    if job.swap_search and len(kept) < group.units:
        kept = selection.keep[unit_set.name] = swapped(job, unit_set, layer.problem(collector.moments[0]), kept)
    columns = np.isin(np.arange(group.units * group.size), group.columns(kept))
    whole = len(kept) == group.units
    best = plain = candidate(job, layer, collector, columns, untouched=whole)
    better: bool | None = None
    if refitted is not None:
        # Where nothing is removed no bias is added: it would be parameters that the plan did not count.
        rival = candidate(job, layer, refitted.outcome, columns, untouched=whole and job.compensation == "bias")
        better = rival.error < plain.error
        if better:
            best = rival
        else:
            refitted.undo()
    output, answer, problem = best.output, best.answer, best.output.problem
    masked = Support(support_of(problem, columns)).prox(problem.anchor, 1.0)
    stored, bias, status, remaining = problem.anchor, None, "nothing was removed", None
    if not whole or better:
        layer.assign(answer.weights, job.dtype)
        stored = solver_array(layer.weight.to(torch.float64))
        bias = None if answer.bias is None else add_bias(layer, answer.bias, job.dtype)
        status = answer.status.value
        remaining = residual(problem, columns, job.damping, stored) if job.compensation == "weights" else None
    return ModuleReport(
        name=unit_set.name,
        units=(group.units, len(kept)),
        groups=(group.groups, len(np.unique(kept // group.members))),
        masked_error=problem.relative_error(masked),
        relative_error=output.relative_error(stored, bias),
        heldout_error=None if best.heldout is None else best.heldout.relative_error(stored, bias),
        residual=remaining,
        status=status,
        seconds=time.perf_counter() - started,
        detail=mask_figures(one, problem, output.moments, job.target_blend, columns),
        groups_of_heads=one.similar,
        recovered=better,
        unrecovered_error=None if better is None else plain.error,
    )


def mask_figures(
    one: UnitScores, problem: Quadratic, moments: Moments, target_blend: float, columns: np.ndarray
) -> dict[str, float]:
    """`mask_error` and `mask_bound` of a module with a relaxed mask, see `ModuleReport`; nothing without one."""
    if one.relaxed is None or one.energy <= 0:
        return {}
    xp = namespace(problem.gram)
    removed = problem.anchor - Support(support_of(problem, columns)).prox(problem.anchor, 1.0)
    gram = dense_gram(moments, target_blend)
    energy = 0.5 * float(xp.sum((problem.anchor @ gram) * problem.anchor))
    error = 0.5 * float(xp.sum((removed @ gram) * removed)) / energy if energy > 0 else 0.0
    bound = one.relaxed.bound_at(float(columns.mean()) * one.relaxed.budget.total) / one.energy
    return {"mask_error": error, "mask_bound": max(0.0, bound)}


def dense_gram(moments: Moments, target_blend: float) -> Array:
    """X^T X = G - (C + C^T) / b + E / b^2, with b the target_blend, and C and E of the drift X* - ((1 - b) X* + b X)."""
    gram = moments.require()
    if moments.cross is None or moments.drift is None:
        return gram
    return gram - (moments.cross + moments.cross.T) / target_blend + moments.drift / target_blend**2
