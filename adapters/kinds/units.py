"""A run that removes heads and hidden channels: units are scored on the dense model, then removed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from gramian.adapters.data.tokens import Tokens
from gramian.adapters.kinds.run import Run, say_refused, without_refits
from gramian.adapters.methods.allocation import select_units
from gramian.adapters.methods.similar_heads import is_attention, select_by_similarity
from gramian.adapters.methods.types import ModelContext
from gramian.adapters.models.examples import Rows
from gramian.adapters.models.shrink import count_parameters
from gramian.adapters.passes.angles import turning_blocks
from gramian.adapters.passes.planned import refitting, removing, scoring
from gramian.adapters.passes.searched import Search, Searched
from gramian.adapters.passes.unit_counts import units_by_search
from gramian.adapters.removal.amount import block_parameters
from gramian.adapters.removal.plan import Removal
from gramian.adapters.removal.report import StructuredReport
from gramian.adapters.run.forward import batches_of
from gramian.adapters.run.walk import walk
from gramian.progress import say

__all__ = ["removed"]


def removed(
    run: Run,
    tokens: Tokens,
    plan: Removal,
    recovery: Sequence[Rows],
    heldout: Sequence[Rows],
    search: Search | None,
) -> StructuredReport:
    """The two passes of a method that removes units: scores on the dense model, then removal.

    recovery: the batches that what remains is fitted on. heldout: those that only errors are measured on. search: for how many
    units go."""
    model, config, blocks, unit_sets = run.model, run.config, run.blocks, plan.unit_sets
    before, inside = count_parameters(model), block_parameters(model)
    allocation = config.own("allocation")
    say_refused(plan.refused, "remain as they are")
    read = tokens.windows if tokens.labels is None and tokens.domains is None else tokens
    context = ModelContext(model, read, unit_sets, run.progress, blocks)
    statistics: Callable[[], Sequence[Any]] = cache(lambda: config.recipe.gather(context, config.options))
    turning: list[float] = []
    if allocation == "angles":
        homes = [unit_set.unit_group.block for unit_set in unit_sets]
        with run.bar(len(blocks.paths), "block") as shown:
            weights = turning_blocks(blocks, set(homes), batches_of(tokens), run.mixture, shown.update)
        turning = [weights[home] for home in homes]
    with run.bar(2 * len(unit_sets), "module") as shown:
        first = scoring(model, blocks.paths, config, plan, statistics, shown.update, run.mixture)
        if run.journal is None or len(run.journal.finished(first.name)) < first.stop:
            statistics()  # gathered from the dense model before any block is taken
        dense = batches_of(tokens)
        walked = walk(first, blocks, dense, journal=run.journal, shares=run.shares(len(dense)))
        found = [each for block in walked for each in block]
        scored = [each.scores for each in found]
        masks = [each.problem for each in found if each.problem is not None]
        searched: Searched | None = None
        if search is not None:
            selection, searched = units_by_search(search, plan, scored)
        elif config.heads_by_similarity:
            selection = select_by_similarity(
                unit_sets, scored, masks, plan.amount, allocation, plan.bias_costs, plan.rounding, turning
            )
        else:
            selection = select_units(
                unit_sets, scored, masks, plan.amount, allocation, plan.bias_costs, plan.counts, plan.rounding, turning
            )
        del found, masks  # frees their memory before the moments of the second walk come
        batches = [*recovery, *heldout]
        shares = run.shares(len(recovery), len(heldout))
        second = removing(
            model, blocks.paths, config, plan, len(recovery), scored, selection.keep, shown.update, shares, run.mixture
        )
        refitted = refitting(second, model, blocks.paths, config, batches, len(recovery), shares)
        rows, refits = without_refits(run.written(refitted, batches, shares))
    keep = {each.row.name: each.kept for each in rows}
    after = count_parameters(model, keep)
    settings: dict[str, Any] = {
        **config.completed(),
        "compensation": plan.compensation,
        "calibrate_on": plan.calibrate_on,
        "target_blend": config.block_blend if config.refit == "block" else plan.target_blend,
        "damping": plan.damping,
    }
    if config.heads_by_similarity:
        heads = [each.row.units for each, unit_set in zip(rows, unit_sets) if is_attention(unit_set)]
        settings["similar_heads"] = {"removed": sum(one - other for one, other in heads), "of": sum(one for one, _ in heads)}
        if (
            all(each.row.units[0] == each.row.units[1] for each, one in zip(rows, unit_sets) if not is_attention(one))
            and plan.amount
        ):
            say(
                "similar heads are at least as many parameters as are to be removed, so that no hidden channel is; a smaller "
                "tau removes fewer heads"
            )
    if plan.refused:
        settings["refused"] = dict(plan.refused)
    if searched is not None:
        settings["search"] = searched.document()
    if allocation == "equal" or plan.rounding is not None:  # what the choice of widths costs
        settings["widths"] = {"wanted": plan.amount, "removed": before - after}
    detail = {key: value for key, value in selection.detail.items() if key == "mask_bound" or not config.swap_search}
    return StructuredReport(
        tuple(each.row for each in rows), (before, after), (inside, inside - before + after), detail, settings, 0.0, keep,
        refits,
    )  # fmt: skip
