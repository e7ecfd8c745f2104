"""A run that removes whole experts: one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gramian.adapters.kinds.run import Run
from gramian.adapters.models.examples import Rows
from gramian.adapters.models.shrink import count_parameters
from gramian.adapters.passes.planned import thinning
from gramian.adapters.removal.amount import block_parameters
from gramian.adapters.removal.experts import Thinning
from gramian.adapters.removal.report import StructuredReport

__all__ = ["thinned"]


def thinned(run: Run, plan: Thinning, batches: Sequence[Rows], fitted: int) -> StructuredReport:
    """The one pass of a method that removes experts, whose number the configuration states afterwards."""
    model, config = run.model, run.config
    before, inside = count_parameters(model), block_parameters(model)
    with run.bar(len(plan.mixtures), "mixture") as shown:
        each = thinning(model, run.blocks.paths, config, plan, fitted, shown.update)
        rows = run.written(each, batches)
    setattr(model.config.get_text_config(), plan.key, plan.keep)
    removed = sum((mixture.count - plan.keep) * mixture.size for mixture in plan.mixtures.values())
    settings: dict[str, Any] = {
        **config.completed(),
        "damping": plan.damping,
        "experts": {each.row.name: each.kept.tolist() for each in rows},
    }
    return StructuredReport(
        tuple(each.row for each in rows), (before, before - removed), (inside, inside - removed), {}, settings, 0.0, {}
    )
