"""A run that removes whole blocks."""

from __future__ import annotations

from typing import Any

import torch

from gramian.adapters.data.tokens import Tokens
from gramian.adapters.kinds.run import Run
from gramian.adapters.models.shrink import count_parameters
from gramian.adapters.passes.planned import shortening
from gramian.adapters.removal.amount import block_parameters
from gramian.adapters.removal.depth import Shortening
from gramian.adapters.removal.report import StructuredReport

__all__ = ["shortened"]


def shortened(run: Run, tokens: Tokens, plan: Shortening, heldout: torch.Tensor | None) -> StructuredReport:
    """The removal of whole blocks, of which the configuration states fewer afterwards."""
    model, config = run.model, run.config
    before, inside = count_parameters(model), block_parameters(model)
    with run.bar(plan.visits, "block") as shown:
        found = shortening(model, config, plan, tokens.windows, heldout, run.journal, run.keep, shown.update).run()
    if run.originals is not None:
        run.originals.kept.clear()  # blocks have other names now, and the run is done
    removed = sum(plan.sizes[number] for number in found.removed)
    settings: dict[str, Any] = {
        **config.completed(),
        "damping": plan.dampings[0] if len(plan.dampings) == 1 else list(plan.dampings),
        "removed_blocks": list(found.removed),
        "output": {"measure": found.measure, "removed": found.output[0], "refitted": found.output[1]},
    }
    return StructuredReport(found.rows, (before, before - removed), (inside, inside - removed), {}, settings, 0.0, {})
