"""The two walks of structured pruning for models that do not run block by block: one pass through the whole model for each.

The moments of all consumers then exist at once, in float64, p x p for every consumer with p inputs. Every consumer is scored,
and fitted, on what reaches it in the dense model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import nn

from gramian.adapters.methods.allocation import Selection
from gramian.adapters.methods.types import UnitScores
from gramian.adapters.methods.unit_sets import UnitSet
from gramian.adapters.models.tasks import token_inputs
from gramian.adapters.removal.report import ModuleReport
from gramian.adapters.removal.walks import Job, Scoring, receive, remove_from
from gramian.adapters.run.hooks import watch
from gramian.adapters.run.moments import MomentCollector

__all__ = ["remove_units_at_once", "run_whole", "score_units_at_once"]


def score_units_at_once(scoring: Scoring, batches: Sequence[torch.Tensor]) -> None:
    """Score every module's units on the dense model. Where no moments are needed the model is not run."""
    layers = [scoring.job.layer(unit_set) for unit_set in scoring.unit_sets]
    if scoring.job.gathers:
        run_whole(scoring.job.model, batches, {layer.module: partial(receive, layer) for layer in layers})
    for place in range(len(layers)):
        scoring.score(place, layers.pop(0))


@torch.no_grad()
def remove_units_at_once(
    job: Job, unit_sets: Sequence[UnitSet], scored: Sequence[UnitScores], selection: Selection, batches: Sequence[torch.Tensor]
) -> list[ModuleReport]:
    """Remove units as `remove_units` does, with every consumer fitted on its dense inputs."""
    collectors = [MomentCollector(unit_set.name, job.parts, keep=False) for unit_set in unit_sets]
    run_whole(
        job.model,
        batches,
        {job.layer(unit_set).module: collector.receive for unit_set, collector in zip(unit_sets, collectors)},
    )
    rows = []
    for unit_set, one in zip(unit_sets, scored):
        rows.append(remove_from(job, unit_set, one, selection, collectors.pop(0), None))
        job.advance()
    return rows


@torch.no_grad()
def run_whole(
    model: nn.Module, batches: Sequence[torch.Tensor], receivers: Mapping[nn.Module, Callable[[int, torch.Tensor], None]]
) -> None:
    """Run the model on batches of windows; `receivers[module](batch index, inputs)` is called with what enters each module."""
    for place, rows in enumerate(batches):
        with ExitStack() as hooks:
            for module, receiver in receivers.items():
                hooks.enter_context(watch(module, partial(receiver, place)))
            model(**token_inputs(model, rows))
