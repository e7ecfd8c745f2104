"""The pass that removes units: consumers lose their columns, and what remains is fitted, module by module."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from gramian.adapters.devices import solver_array
from gramian.adapters.methods.compensation import Answer, Compensation, Output, add_bias, compensate, residual, support_of
from gramian.adapters.methods.producers import ProducerRefit
from gramian.adapters.methods.types import UnitScores
from gramian.adapters.methods.unit_sets import UnitSet
from gramian.adapters.models.layers import Layer
from gramian.adapters.removal.report import ModuleReport
from gramian.adapters.run.mixtures import Mixture
from gramian.adapters.run.moments import MomentCollector
from gramian.adapters.run.naming import naming
from gramian.adapters.run.ranks import Shares
from gramian.adapters.run.walk import Receive, Replay
from gramian.solvers import Moments, Quadratic, Status, Support, exchange_units
from gramian.solvers.backend._xp import Array, device, namespace, to_numpy

__all__ = ["Removed", "RemoveUnits"]


@dataclass(frozen=True, eq=False)
class Removed:
    """The row of one module, and the units that it keeps, as they were numbered."""

    row: ModuleReport
    kept: np.ndarray


@dataclass(frozen=True, eq=False)
class RemoveUnits:
    """Columns of removed units become zero in every consumer, whose other weights or bias make up for them.

    `shrink_model` then changes nothing that the model computes. scored: by module. keep: the units that the selection keeps, by
    module. places: the modules of every block that runs. parts: the number of batches that calibrate; the others are held out
    for the report. home: the device on which hidden states are kept. refit_producers: whether producers are refitted before
    their module is pruned, see `ProducerRefit`. swap_search: whether kept units are swapped for better ones, see `swapped`.
    shares: of the batches, where other processes run some; all of them then solve for the same. mixture: of the domains,
    where there are several."""

    model: Any
    unit_sets: Sequence[UnitSet]
    places: Sequence[Sequence[int]]
    scored: Sequence[UnitScores]
    keep: Mapping[str, np.ndarray]
    follows: str
    target_blend: float
    compensation: Compensation
    damping: float
    parts: tuple[int, ...]
    dtype: torch.dtype
    home: torch.device
    advance: Callable[[], object]
    refit_producers: bool = False
    swap_search: bool = False
    shares: Shares = Shares()
    mixture: Mixture | None = None
    name = "removal"
    runs = True
    taps_dense = True
    types: Sequence[type] = (Removed, ModuleReport)

    @property
    def stop(self) -> int:
        """After the last block with a module."""
        return 1 + max(index for index, places in enumerate(self.places) if places)

    def written(self, index: int) -> list[str]:
        """The consumers of a block, and the producers where they are refitted."""
        names = []
        for unit_set in (self.unit_sets[place] for place in self.places[index]):
            names += [*self.producers(unit_set), unit_set.name] if self.refit_producers else [unit_set.name]
        return names

    def producers(self, unit_set: UnitSet) -> list[str]:
        """The full names of the producers of a module."""
        return [f"{unit_set.unit_group.block}.{path}" for path, _ in unit_set.unit_group.structure.producers]

    def layer(self, name: str) -> Layer:
        """An operator."""
        return Layer(name, self.model.get_submodule(name))

    def open(self, index: int, block: nn.Module) -> RemovalBlock:
        """Begin with a block."""
        keep = self.follows == "pruned"
        modules = []
        for place in self.places[index]:
            unit_set = self.unit_sets[place]
            collector = MomentCollector(
                unit_set.name, self.parts, keep, self.target_blend, self.home, self.shares, self.mixture
            )
            refit: ProducerRefit | None = None
            if self.refit_producers:
                layers = [self.layer(name) for name in self.producers(unit_set)]
                refit = ProducerRefit(layers, unit_set.name, self.parts, self.damping, self.dtype, self.shares, self.mixture)
            modules.append(Module(place, self.layer(unit_set.name), collector, refit))
        return RemovalBlock(self, modules)


@dataclass(frozen=True, eq=False)
class Module:
    """One module of a block: its place among all, its consumer, what is collected for that, and the refit of its producers."""

    place: int
    consumer: Layer
    collector: MomentCollector
    refit: ProducerRefit | None


@dataclass(frozen=True, eq=False)
class RemovalBlock:
    """The modules of one block."""

    each: RemoveUnits
    modules: list[Module] = field(default_factory=list)

    @property
    def taps(self) -> dict[nn.Module, Receive]:
        """Consumers are tapped, and with a refit the input that the producers share."""
        taps: dict[nn.Module, Receive] = {}
        for module in self.modules:
            if module.refit is None:
                taps[module.consumer.module] = module.collector.receive
            else:
                taps[module.consumer.module] = both(module.collector, module.refit.outcome)
                taps[module.refit.producers[0].module] = module.refit.collector.receive
        return taps

    @property
    def replayed(self) -> list[nn.Module]:
        """Consumers, on pruned inputs; where producers are refitted these before, and the consumers again after them."""
        modules: list[nn.Module] = []
        for module in self.modules if self.each.follows == "pruned" else ():
            modules.append(module.consumer.module)
            if module.refit is not None:
                modules += [module.refit.producers[0].module, module.consumer.module]
        return modules

    def decide(self, replay: Replay, drifted: bool) -> list[Removed]:
        """Remove module by module: what reaches a module on the pruned path follows from the modules before it."""
        rows: list[Removed] = []
        while self.modules:
            module = self.modules.pop(0)
            moved, refitted = drifted or bool(rows), module.refit
            if self.each.follows == "pruned":
                module.collector.settle(replay(module.consumer.module) if moved else None)
            if not moved:  # where nothing has drifted the producers are optimal as they are
                refitted = None
            if refitted is not None:
                refitted.refit(replay(refitted.producers[0].module))
                refitted.outcome.settle(replay(module.consumer.module))
            with naming(module.consumer.name):
                rows.append(remove_from(self.each, module.place, module.consumer, module.collector, refitted))
            self.each.advance()
            del module, refitted  # their moments are free before those of the next module are formed
        return rows


def both(one: MomentCollector, other: MomentCollector) -> Receive:
    """A receiver that hands its inputs to both collectors."""

    def receive(batch: int, inputs: torch.Tensor) -> None:
        one.receive(batch, inputs)
        other.receive(batch, inputs)

    return receive


@dataclass(frozen=True, eq=False)
class Candidate:
    """A module as it could be stored.

    output: the loss of its consumer, on calibration tokens; heldout: the same on held-out tokens, None without any. answer:
    weights and bias of the consumer, before rounding. domains: the loss on single domains, by what errors on them are
    called."""

    output: Output
    heldout: Output | None
    answer: Answer
    domains: Mapping[str, Output]

    @property
    def error(self) -> float:
        """The relative error on the calibration tokens."""
        return self.output.relative_error(self.answer.weights, self.answer.bias)


def candidate(job: RemoveUnits, layer: Layer, collector: MomentCollector, columns: np.ndarray, untouched: bool) -> Candidate:
    """The candidate for what has been collected. columns: (p,), True where kept. untouched: the consumer is not changed."""
    moments, apart = collector.moments[0], collector.moments.get(1)
    output = Output(layer.problem(moments), moments)
    heldout = None if apart is None else Output(layer.problem(apart), apart)
    domains = {name: Output(layer.problem(each), each) for name, each in collector.domains.items()}
    if untouched:
        return Candidate(output, heldout, Answer(output.problem.anchor, None, Status.DIRECT), domains)
    return Candidate(output, heldout, compensate(output, columns, job.compensation, job.damping), domains)


def swapped(job: RemoveUnits, unit_set: UnitSet, problem: Quadratic, kept: np.ndarray) -> np.ndarray:
    """As many units as `kept`, swapped one by one for others while that lowers the loss after compensation (`exchange_units`).

    Where a removable consists of several units, `kept` is returned as it is."""
    if unit_set.mixed:
        return kept
    xp = namespace(problem.gram)
    mask = xp.asarray(np.isin(unit_set.scored[:, 0], kept), device=device(problem.gram))
    found = exchange_units(problem.damped(job.damping * problem.diagonal), mask, groups=len(unit_set.scored))
    return np.sort(unit_set.scored[to_numpy(found.mask)].reshape(-1))


def remove_from(
    job: RemoveUnits, place: int, layer: Layer, collector: MomentCollector, refitted: ProducerRefit | None
) -> Removed:
    """Remove units of one module, write what compensates for them, rounded, and evaluate what is stored.

    With swap_search the units that the selection keeps are swapped first. refitted: the refit of its producers, which
    is kept if the module's output is nearer to the target with it, and undone otherwise."""
    started = time.perf_counter()
    unit_set, one = job.unit_sets[place], job.scored[place]
    group, kept = unit_set.unit_group, job.keep[unit_set.name]
    if job.swap_search and len(kept) < group.units:
        kept = swapped(job, unit_set, layer.problem(collector.moments[0]), kept)
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
    row = ModuleReport(
        name=unit_set.name,
        units=(group.units, len(kept)),
        groups=(group.groups, len(np.unique(kept // group.members))),
        masked_error=problem.relative_error(masked),
        relative_error=output.relative_error(stored, bias),
        heldout_error=None if best.heldout is None else best.heldout.relative_error(stored, bias),
        residual=remaining,
        status=status,
        seconds=time.perf_counter() - started,
        detail={
            **mask_figures(one, problem, output.moments, job.target_blend, columns),
            **{name: each.relative_error(stored, bias) for name, each in best.domains.items()},
        },
        groups_of_heads=one.similar,
        recovered=better,
        unrecovered_error=None if better is None else plain.error,
    )
    return Removed(row, kept)


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
