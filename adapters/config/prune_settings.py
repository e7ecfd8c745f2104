"""Every setting of a run, once, and what the method takes where none is given."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gramian.adapters.config.amounts import AMOUNT, Rules, rules_of
from gramian.adapters.config.budgets import BUDGET
from gramian.adapters.config.settings import (
    EXPRESSION,
    FLAG,
    NAME,
    OPTIONS,
    POSITIVE,
    RANGE,
    one_of,
    read_range,
    real,
    setting,
    settings_of,
)
from gramian.adapters.methods.method import Method
from gramian.adapters.methods.registry import resolve
from gramian.adapters.methods.vocabulary import ALLOCATIONS, HEADS
from gramian.solvers import Pattern

__all__ = ["PruneSettings"]

SEARCH_MINUTES = 30.0
REFITS = ("none", "support", "block")
HALF = 0.5  # of the way to the dense model generalises best, for an operator and for a block


@dataclass(frozen=True)
class PruneSettings:
    """None leaves a setting to the method."""

    method: str = setting("fistapruner", NAME, "a name that `methods` lists, or MODULE:NAME for a function of your own")
    sparsity: float | str | Mapping[str, Any] | Pattern | None = setting(
        None, AMOUNT, "part of the weights to set to zero, from 0 to below 1; a pattern such as 2:4, which keeps 2 of every 4 "
        "consecutive weights of a row; or rules, amounts by regular expression of an operator's full name, of which the first "
        "that matches holds, and `*` for the rest", of="weights", usual=0.5, repeated="--sparsity-of",
    )  # fmt: skip
    per_row: bool | None = setting(
        None, FLAG, "meet a sparsity in every row of a weight, or over the weight as a whole", of="weights", usual=False
    )
    ratio: float | None = setting(
        None, real("a number above 0 and below 1", lambda value: 0 < value < 1, "R"),
        "part of the parameters inside the blocks to remove", of="units", usual=0.2,
    )  # fmt: skip
    budget: str | None = setting(
        None, BUDGET, "how large the model may be afterwards, in place of a ratio: params=4B in all, active=2B that a token "
        "meets, with the experts that it is routed to, or bytes=8GB of its weights as they are stored", of="units",
    )  # fmt: skip
    options: Mapping[str, Any] = setting(
        {}, OPTIONS, "options of the method itself, such as warm_start=wanda", repeated="--set"
    )
    calibrate_on: str | None = setting(
        None, one_of("dense", "pruned"), "what enters a block: activations of the dense model, where blocks are independent, "
        "or of the model pruned so far", usual="pruned",
    )  # fmt: skip
    target: str | None = setting(
        None, one_of("own", "block", "model"), "whose output an operator should match: that of its own input through the "
        "dense weights, of the dense block on the same block input, or of the dense model", of="weights", usual="own",
    )  # fmt: skip
    target_blend: float | None = setting(
        None, real("a number above 0 and at most 1", lambda value: 0 < value <= 1, "B"),
        "how far the target goes there from the operator's own output",
    )  # fmt: skip
    damping: float | str | None = setting(
        None, real("a number of at least 0, or auto", lambda value: 0 <= value < math.inf, "D", "auto"),
        "how little to trust the calibration text: a ridge on the change of the weights, relative to each channel's energy, "
        "or auto, chosen layer by layer on text set aside (not where units are removed)",
    )  # fmt: skip
    refit: str = setting(
        "none", one_of(*REFITS), "what is solved for at the end: nothing more; the best weights of every operator at the "
        "positions that the method kept (not where units are removed); or all weights that are left of a block, to the dense "
        "block's output",
    )  # fmt: skip
    rotate_heads: bool = setting(
        False, FLAG, "turn heads to a basis in which less is lost: the channels between values and the output projection, "
        "first; the model computes the same, and no parameter is added", of="weights",
    )  # fmt: skip
    permute_channels: bool = setting(
        False, FLAG, "reorder channels so that n:m keeps more: hidden channels, and those inside each head; the model computes "
        "the same", of="weights",
    )  # fmt: skip
    allocation: str | None = setting(
        None, one_of(*dict.fromkeys(name for names in ALLOCATIONS.values() for name in names)), "what divides the "
        "amount among modules: of weights the sparsity as it is given (uniform), or denser blocks where more weights are "
        "outliers (owl) or their spectra have heavy tails (alpha), or as many of each as it has of the smallest weights of all "
        "(magnitude); of units one width for all modules of a kind, which stock classes build (equal), the method's scores "
        "ranked among modules of a type or among all (per_type, score), or the error that it causes (loss); of both, more is "
        "kept of blocks that turn the stream far (angles), or a search by what the model's own output loses (search)",
    )  # fmt: skip
    search_minutes: float | None = setting(
        None, real("a number above 0", lambda value: 0 < value < math.inf, "M"),
        "minutes that allocation=search looks for a better one (30): solving every level takes time beside them",
    )  # fmt: skip
    round_to: int | None = setting(
        None, POSITIVE, "numbers of hidden channels are multiples of it, such as 8, 16, 64 or 256; the ratio is then met as "
        "nearly as they allow", of="units",
    )  # fmt: skip
    compensate: bool | None = setting(
        None,
        FLAG,
        "make up for removed units in what reads them: its weights or its bias",
        of="units",
        usual=False,
    )
    refit_producers: bool = setting(
        False,
        FLAG,
        "fit what is before removed units too: to the dense model's outputs, where that helps; of experts, let "
        "those that remain take over hidden channels of others",
        of="units",
    )
    swap_search: bool = setting(False, FLAG, "exchange kept units for removed ones while the loss falls", of="units")
    heads: str | None = setting(
        None, one_of(*HEADS), "what is removed of grouped-query attention: whole key/value groups, or equally many query heads "
        "of every group", of="units", usual=HEADS[0],
    )  # fmt: skip
    heads_by_similarity: bool = setting(
        False, FLAG, "remove the heads that look where a kept one looks: as many as there are by the method's tau; a "
        "ratio or budget is then met by hidden channels, and without either nothing else is removed", of="units",
    )  # fmt: skip
    include: str | None = setting(None, EXPRESSION, "only operators whose full name it matches somewhere")
    exclude: str | None = setting(None, EXPRESSION, "not the operators whose full name it matches somewhere")
    blocks: slice | str | None = setting(None, RANGE, "only these blocks, such as 4:30")
    jobs: int = setting(1, POSITIVE, "blocks that are pruned at once, with calibrate_on dense", of="weights")

    @property
    def recipe(self) -> Method:
        """The method."""
        return resolve(self.method)

    @property
    def amounts(self) -> Rules:
        """The sparsity as rules, first match first."""
        return rules_of(0.5 if self.sparsity is None else self.sparsity)

    @property
    def block_blend(self) -> float:
        """How far the target of a block that is refitted goes from its own output to the dense model's."""
        nothing_given = HALF if self.recipe.granularity == "units" or self.own("target") == "own" else 1.0
        return float(self.own("target_blend") or nothing_given)

    @property
    def span(self) -> slice:
        """The blocks to prune."""
        return read_range(self.blocks) if isinstance(self.blocks, str) else self.blocks or slice(None)

    def own(self, name: str) -> Any:
        """A setting, or what the method takes where it is not given."""
        each = next(each for each in settings_of(self) if each.name == name)
        value = getattr(self, name)
        if name == "ratio" and value is None and (self.budget is not None or self.heads_by_similarity):
            return None
        if name == "allocation" and value is None and self.heads_by_similarity:
            return "per_type"  # of the channels: heads go from each module as they are similar there
        if name == "allocation" and value is None:
            return self.recipe.settings.get(name, ALLOCATIONS[self.recipe.granularity][0])
        if name == "search_minutes" and value is None and self.own("allocation") == "search":
            return SEARCH_MINUTES
        if value is not None or each.of not in (None, self.recipe.granularity):
            return value
        return self.recipe.settings.get(name, each.usual)
