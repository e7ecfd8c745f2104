"""A run that narrows the stream of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gramian.adapters.kinds.run import Run
from gramian.adapters.models.block_lists import blocks_of
from gramian.adapters.models.examples import Rows
from gramian.adapters.models.shrink import count_parameters
from gramian.adapters.passes.planned import narrowing
from gramian.adapters.removal.amount import block_parameters
from gramian.adapters.removal.report import StructuredReport
from gramian.adapters.removal.stream import Narrowing

__all__ = ["narrowed"]


def narrowed(run: Run, plan: Narrowing, batches: Sequence[Rows], fitted: int) -> StructuredReport:
    """The deletion of directions of the stream, of which the configuration states fewer afterwards. What interrupts it leaves
    the model as it was, since nothing is written before the end; nor is there anything that a journal could keep."""
    model, config = run.model, run.config
    before, inside = count_parameters(model), block_parameters(model)
    with run.bar(len(blocks_of(model)), "block") as shown:
        found = narrowing(model, config, plan, batches, fitted, shown.update).run()
    certificate = found.basis.certificate
    settings: dict[str, Any] = {
        **config.completed(),
        "stream": {
            "width": [plan.parts.width, plan.width],
            "lost": certificate.relative_error,
            "least": max(0.0, certificate.bound) / max(certificate.objective, 1e-300) * certificate.relative_error,
            "own_bases": found.own,
        },
    }
    after = (count_parameters(model), block_parameters(model))
    return StructuredReport(found.rows, (before, after[0]), (inside, after[1]), {}, settings, 0.0, {})
