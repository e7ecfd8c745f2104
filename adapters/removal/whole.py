"""The two walks of structured pruning for models that are not run block by block: one pass through the whole model for each.

Moments of all consumers are then there at once, in float64, p x p for every one of p inputs. Every consumer is scored, and
fitted, on what reaches it in the dense model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import nn

from gramian.adapters.methods.allocation import Choice
from gramian.adapters.methods.types import Scored
from gramian.adapters.methods.unit_sets import Menu
from gramian.adapters.models.tasks import token_inputs
from gramian.adapters.removal.report import ModuleReport
from gramian.adapters.removal.walks import Job, Scoring, receive, remove_from
from gramian.adapters.run.hooks import watch
from gramian.adapters.run.moments import Inflow

__all__ = ["remove_units_at_once", "run_whole", "score_units_at_once"]


def score_units_at_once(scoring: Scoring, batches: Sequence[torch.Tensor]) -> None:
    """Score every module's atoms on the dense model. Without moments to gather the model is not run."""
    layers = [scoring.job.layer(menu) for menu in scoring.menus]
    if scoring.job.gathers:
        run_whole(scoring.job.model, batches, {layer.module: partial(receive, layer) for layer in layers})
    for place in range(len(layers)):
        scoring.score(place, layers.pop(0))


@torch.no_grad()
def remove_units_at_once(
    job: Job, menus: Sequence[Menu], scored: Sequence[Scored], choice: Choice, batches: Sequence[torch.Tensor]
) -> list[ModuleReport]:
    """`remove_units` on dense inputs."""
    inflows = [Inflow(menu.name, job.parts, keep=False) for menu in menus]
    run_whole(job.model, batches, {job.layer(menu).module: inflow.receive for menu, inflow in zip(menus, inflows)})
    rows = []
    for menu, one in zip(menus, scored):
        rows.append(remove_from(job, menu, one, choice, inflows.pop(0), None))
        job.advance()
    return rows


@torch.no_grad()
def run_whole(
    model: nn.Module, batches: Sequence[torch.Tensor], receivers: Mapping[nn.Module, Callable[[int, torch.Tensor], None]]
) -> None:
    """Read batches of windows; `receivers[module](batch index, inputs)` see what flows into modules."""
    for place, rows in enumerate(batches):
        with ExitStack() as hooks:
            for module, receiver in receivers.items():
                hooks.enter_context(watch(module, partial(receiver, place)))
            model(**token_inputs(model, rows))
