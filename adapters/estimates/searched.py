"""What a search of budgets takes beside the run that it is for: its levels on the disk, its windows in memory, its minutes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.estimates.figures import Rates
from gramian.adapters.estimates.walked import Walked, walked
from gramian.adapters.estimates.weights import solver_seconds
from gramian.adapters.methods.unit_sets import UnitSet
from gramian.adapters.models.loading import storage_dtype
from gramian.adapters.models.stacks import blocks_in
from gramian.adapters.models.units import operator
from gramian.adapters.passes.depth import ASIDE
from gramian.adapters.passes.level_judge import LOGITS
from gramian.adapters.passes.levels import SIDE, STEPS
from gramian.adapters.passes.planned import Plan
from gramian.adapters.passes.sparsities import counting, levelling, measuring, sizing
from gramian.adapters.passes.unit_counts import levelling_units
from gramian.adapters.removal.plan import Removal
from gramian.adapters.run.level_files import LevelFiles
from gramian.adapters.run.walk import Pass
from gramian.adapters.targets import shape_of

__all__ = ["judge_bytes", "level_bytes", "search_seconds", "walks_before"]

SOLVED = 2 * SIDE + 1  # levels of an operator


def walks_before(
    model: Any, paths: tuple[str, ...], config: PruneConfig, plan: Plan, tokens: float
) -> list[tuple[str, Walked]]:
    """The pass that an allocation needs before the others, if any."""
    allocation, files = config.own("allocation"), LevelFiles(Path())
    each: Pass
    if isinstance(plan, Removal) and allocation == "search":
        each = levelling_units(model, paths, plan, (), files, 0)
    elif isinstance(plan, tuple) and allocation == "search":
        each = levelling(model, paths, plan[0], files, 0)
    elif allocation == "angles":
        return [("angles", Walked(1.0, 0.0, 0, 0, ()))]
    elif isinstance(plan, tuple) and allocation == "owl":
        each = counting(model, paths, plan[0], 0)
    elif isinstance(plan, tuple) and allocation == "alpha":
        each = measuring(model, paths, plan[0])
    elif isinstance(plan, tuple) and allocation == "magnitude":
        each = sizing(model, paths, plan[0])
    else:
        return []
    return [(each.name, walked(each, model, paths, tokens))]


def level_bytes(model: Any, config: PruneConfig, plan: Plan) -> int:
    """Bytes of all levels on the disk, the dense one in the dtype that the model runs in."""
    if config.own("allocation") != "search":
        return 0
    stored, own = storage_dtype(model).itemsize, next(model.parameters()).element_size()
    if isinstance(plan, Removal):
        sizes = [(operator(model, each.name).weight.numel(), levels_of(each)) for each in plan.unit_sets]
    else:
        assert isinstance(plan, tuple)
        sizes = [(math.prod(shape_of(model, name)), SOLVED) for name in plan[0]]
    return sum(size * (own + levels * stored) for size, levels in sizes)


def levels_of(unit_set: UnitSet) -> int:
    """How many levels of a module are solved, at the most."""
    return min(STEPS, unit_set.removable - 1)


def judge_bytes(model: Any, config: PruneConfig, windows: tuple[int, int], heldout: int) -> int:
    """Bytes of the dense model's outputs, and of what enters every block, on windows that choose and on held-out ones; and of a
    block's gradients, one of a part of the windows beside the sum, in float32."""
    if config.own("allocation") != "search":
        return 0
    count, length = windows
    compared = length * (max(1, count // ASIDE) + heldout)
    vocabulary = model.config.get_text_config().vocab_size
    logits = min(2 * LOGITS, vocabulary * compared)
    hidden = compared * model.get_input_embeddings().embedding_dim * (len(blocks_in(model)) + 1)
    gradients = max(2 * 4 * sum(each.numel() for each in block.parameters()) for block in blocks_in(model).values())
    return int((logits + hidden) * next(model.parameters()).element_size()) + gradients


def search_seconds(model: Any, config: PruneConfig, plan: Plan, rates: Rates) -> dict[str, float]:
    """Seconds to solve all levels, and those that the search may take."""
    if config.own("allocation") != "search":
        return {}
    if isinstance(plan, Removal):
        fits = [(shape_of(model, each.name), levels_of(each)) for each in plan.unit_sets]
        solved = sum(levels * (5 * 2 * p**3 + 4 * 2 * q * p * p) / rates.double for (q, p), levels in fits)
    else:
        assert isinstance(plan, tuple)
        solved = SOLVED * sum(solver_seconds("sparsegpt", shape_of(model, name), {}, rates, False) for name in plan[0])
    return {"levels": solved, "search": 60 * config.own("search_minutes")}
