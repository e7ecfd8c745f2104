"""The passes of a run, from its settings and from what it is about."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.methods.types import UnitScores
from gramian.adapters.methods.unit_sets import places_in
from gramian.adapters.models.discovery import stages_of
from gramian.adapters.models.examples import Rows
from gramian.adapters.models.inner_bases import check_together
from gramian.adapters.models.loading import storage_dtype
from gramian.adapters.passes.basis_changes import BasisChanges
from gramian.adapters.passes.block_refits import RefitBlocks
from gramian.adapters.passes.depth import RemoveBlocks
from gramian.adapters.passes.experts import RemoveExperts
from gramian.adapters.passes.removal import RemoveUnits
from gramian.adapters.passes.scores import ScoreUnits
from gramian.adapters.passes.stream import NarrowStream
from gramian.adapters.passes.weights import ZeroWeights
from gramian.adapters.removal.depth import Shortening, plan_shortening
from gramian.adapters.removal.experts import Thinning, plan_thinning
from gramian.adapters.removal.plan import Removal, plan_removal
from gramian.adapters.removal.stream import Narrowing, plan_narrowing
from gramian.adapters.run.journal import Journal
from gramian.adapters.run.mixtures import Mixture
from gramian.adapters.run.ranks import Ranks, Shares
from gramian.adapters.run.walk import Pass
from gramian.adapters.targets import free_bases, patterns_of
from gramian.solvers import Pattern
from gramian.solvers.support.damped import DampedMethod

__all__ = ["Plan", "narrowing", "plan_of", "refitting", "removing", "scoring", "shortening", "thinning", "zeroing"]

CHOOSING = 4  # one batch in this many chooses the damping
# patterns and what remains dense, the units that can be removed, how many experts are, or blocks, or how wide the stream is
Plan = tuple[dict[str, Pattern], list[str]] | Removal | Thinning | Shortening | Narrowing


def plan_of(model: Any, config: PruneConfig) -> Plan:
    """What a run with these settings is about. ValueError, before any work, for settings that the model does not suit."""
    if config.recipe.modules == "experts":
        return plan_thinning(model, config)
    if config.recipe.modules == "blocks":
        return plan_shortening(model, config)
    if config.recipe.modules == "stream":
        return plan_narrowing(model, config)
    if config.recipe.granularity == "units":
        return plan_removal(model, config)
    patterns, dense = patterns_of(model, config)
    check_together(model, free_bases(model, config, patterns)[0].values())
    return patterns, dense


def nothing(*_: object) -> None:
    """Advance no bar."""


def zeroing(
    model: Any,
    paths: tuple[str, ...],
    config: PruneConfig,
    patterns: Mapping[str, Pattern],
    fitted: int,
    advance: Callable[[], object] = nothing,
    problems: Path | None = None,
    shares: Shares = Shares(),
    mixture: Mixture | None = None,
) -> ZeroWeights:
    """The one pass of a method that zeroes weights. paths: of the blocks. fitted: how many batches calibrate. shares: which
    process runs which batches. mixture: of their domains, if there are several."""
    damping = config.own("damping")
    damping = 0.0 if damping is None else damping
    choosing = fitted // CHOOSING if damping == "auto" else 0
    method = config.recipe
    solve = DampedMethod(
        method.of_weights(config.options, None), damping, config.refit == "support", method.of_parts(config.options)
    )
    return ZeroWeights(
        paths, stages_of(model), patterns, solve, config.own("calibrate_on"), config.own("target"),
        config.own("target_blend") or 1.0, (fitted - choosing, choosing), storage_dtype(model), home_of(model), advance,
        problems, among(shares, config.own("calibrate_on")), changes_of(model, config, patterns), mixture, method.wrapped,
    )  # fmt: skip


def changes_of(model: Any, config: PruneConfig, patterns: Mapping[str, Pattern]) -> BasisChanges | None:
    """How bases inside blocks are changed; None where they are not."""
    bases, _ = free_bases(model, config, patterns)
    return BasisChanges(model, bases, patterns, config.rotate_heads, config.permute_channels) if bases else None


def scoring(
    model: Any,
    paths: tuple[str, ...],
    config: PruneConfig,
    plan: Removal,
    statistics: Callable[[], Sequence[Any]] = tuple,
    advance: Callable[[], object] = nothing,
    mixture: Mixture | None = None,
) -> ScoreUnits:
    """The first pass of a method that removes units. statistics(): what the method has gathered, by module. mixture: of the
    domains of the batches, if there are several."""
    method, places = config.recipe, places_in(plan.unit_sets, paths)
    return ScoreUnits(
        model, plan.unit_sets, places, method.of_units(config.options), method.inputs, config.own("allocation"), plan.damping,
        plan.amount, statistics, advance, None if mixture is None else mixture.factor,
    )  # fmt: skip


def removing(
    model: Any,
    paths: tuple[str, ...],
    config: PruneConfig,
    plan: Removal,
    fitted: int,
    scored: Sequence[UnitScores] = (),
    keep: Mapping[str, np.ndarray] | None = None,
    advance: Callable[[], object] = nothing,
    shares: Shares = Shares(),
    mixture: Mixture | None = None,
) -> RemoveUnits:
    """The second one. fitted: how many batches calibrate. scored, keep: by module, what the first pass led to. shares: which
    process runs which batches. mixture: of their domains, if there are several."""
    return RemoveUnits(
        model, plan.unit_sets, places_in(plan.unit_sets, paths), scored, keep or {}, plan.calibrate_on, plan.target_blend,
        plan.compensation, plan.damping, (fitted,), storage_dtype(model), home_of(model), advance, config.refit_producers,
        config.swap_search, among(shares, plan.calibrate_on), mixture,
    )  # fmt: skip


def refitting(
    each: ZeroWeights | RemoveUnits,
    model: Any,
    paths: tuple[str, ...],
    config: PruneConfig,
    batches: Sequence[Rows],
    fitted: int,
    shares: Shares = Shares(),
) -> Pass:
    """The same pass, and where the settings say so one that refits blocks as a whole. batches: of which `fitted` calibrate."""
    if config.refit != "block":
        return each
    return RefitBlocks(each, model, paths, batches, fitted, config.block_blend, storage_dtype(model), shares)


def thinning(
    model: Any,
    paths: tuple[str, ...],
    config: PruneConfig,
    plan: Thinning,
    fitted: int,
    advance: Callable[[], object] = nothing,
) -> RemoveExperts:
    """The one pass of a method that removes experts. fitted: how many batches calibrate."""
    return RemoveExperts(
        model, paths, plan.mixtures, plan.keep, config.recipe.of_experts(config.options), config.swap_search,
        config.own("calibrate_on"), config.own("compensate"), config.refit_producers, plan.damping, fitted,
        storage_dtype(model), advance,
    )  # fmt: skip


def shortening(
    model: Any,
    config: PruneConfig,
    plan: Shortening,
    windows: torch.Tensor,
    heldout: torch.Tensor | None,
    journal: Journal | None,
    keep: Callable[[Sequence[str]], object],
    advance: Callable[[], object] = nothing,
) -> RemoveBlocks:
    """The removal of whole blocks. keep(names): called before anything is written to these operators."""
    return RemoveBlocks(
        model, plan, config.recipe.of_blocks(config.options), config.own("compensate"), windows, heldout, storage_dtype(model),
        journal, keep, advance,
    )  # fmt: skip


def narrowing(
    model: Any,
    config: PruneConfig,
    plan: Narrowing,
    batches: Sequence[Rows],
    fitted: int,
    advance: Callable[[], object] = nothing,
) -> NarrowStream:
    """The one pass of a method that narrows the stream. batches: of which `fitted` calibrate."""
    return NarrowStream(model, plan, config.recipe.of_stream(config.options), batches, fitted, advance)


def among(shares: Shares, follows: str) -> Shares:
    """The processes that work on one block: all of them on pruned inputs, and one, with all batches, on dense ones."""
    return shares if follows == "pruned" else replace(shares, ranks=Ranks())


def home_of(model: Any) -> torch.device:
    """The device on which hidden states are kept."""
    device: torch.device = next(model.get_input_embeddings().parameters()).device
    return device
