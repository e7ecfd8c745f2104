"""What must hold of a model, of settings and of texts before a run begins."""

from __future__ import annotations

import torch

from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.data.tokens import Tokens, check_windows, samples_of
from gramian.adapters.methods.gradients import check_differentiable
from gramian.adapters.methods.wrapped_methods import saves_wrapped
from gramian.adapters.models.block_lists import walks_by_block
from gramian.adapters.models.modes import eval_mode
from gramian.adapters.models.plain_modules import check_plain
from gramian.adapters.models.tasks import check_labels, kind_of
from gramian.adapters.models.wrapped_operators import check_wrappable, refuse_wrapped
from gramian.adapters.passes.planned import Plan, plan_of
from gramian.adapters.removal.plan import Removal
from gramian.adapters.run.blocks import Blocks
from gramian.adapters.run.ranks import ranks_here
from gramian.adapters.run.streaming import Streamed

__all__ = ["check_run", "check_texts"]


def check_run(blocks: Blocks, config: PruneConfig) -> Plan:
    """What a run with these settings is about: patterns and what remains dense, or the units that can be removed.

    ValueError, before any work, for settings that the model, or the place where its blocks live, does not suit.
    """
    if not isinstance(blocks, Streamed):
        check_plain(blocks.model)
    refuse_wrapped(blocks.model)
    if config.jobs > 1 and blocks.elsewhere:
        raise ValueError(f"jobs={config.jobs} does not go with one block at a time on {blocks.place}: leave one of them out")
    if config.recipe.modules == "blocks" and blocks.elsewhere:
        raise ValueError(
            f"{config.method!r} judges blocks by the output of the whole model, of which one block at a time is on "
            f"{blocks.place}: run it where the model is in memory (--memory host)"
        )
    if config.recipe.modules == "stream" and blocks.elsewhere:
        raise ValueError(
            f"{config.method!r} turns the stream of the whole model, of which one block at a time is on {blocks.place}: run it "
            "where the model is in memory (--memory host)"
        )
    if config.own("allocation") == "search":
        check_searched(blocks, config)
    if config.own("allocation") in ("search", "angles") and not walks_by_block(blocks.model):
        raise ValueError(
            f"allocation={config.own('allocation')!r} needs a model that runs block by block, which "
            f"{type(blocks.model).__name__} does not: take another allocation"
        )
    if config.jobs > 1 and not ranks_here().alone:
        raise ValueError(f"jobs={config.jobs} does not go with several processes, each of which works on blocks: leave it out")
    if config.recipe.gradients and any(parameter.is_meta for parameter in blocks.model.parameters()):
        raise ValueError(
            f"{config.method!r} needs gradients of the whole model, of which one block at a time is in memory: run it without "
            "streaming"
        )
    wraps = saves_wrapped(config.recipe, config.options)
    if (config.recipe.factored or wraps) and any(parameter.is_meta for parameter in blocks.model.parameters()):
        raise ValueError(
            f"{config.method!r} keeps the parts of all weights until they are saved, and one block at a time is in memory: "
            "run it without streaming"
        )
    plan, kind = plan_of(blocks.model, config), type(blocks.model).__name__
    if wraps and isinstance(plan, tuple):
        check_wrappable(blocks.model, list(plan[0]))
    if config.refit == "block" and blocks.paths == ("",):
        raise ValueError(f"refit='block' needs a model that runs block by block, but {kind} is one block: leave it out")
    if config.refit == "block" and isinstance(plan, Removal) and plan.calibrate_on == "dense":
        raise ValueError(
            f"refit='block' needs activations of the model pruned so far, and units of {kind} are removed on those of the "
            "dense one: leave it out"
        )
    return plan


def check_searched(blocks: Blocks, config: PruneConfig) -> None:
    """Raise ValueError where nothing can judge a choice by the output of the whole model, in one process."""
    if blocks.elsewhere:
        raise ValueError(
            f"allocation='search' judges by the output of the whole model, of which one block at a time is on {blocks.place}: "
            "run it where the model is in memory (--memory host)"
        )
    if not ranks_here().alone:
        raise ValueError("allocation='search' is the work of one process, as its time decides how far it comes: start only one")


def check_texts(
    blocks: Blocks,
    config: PruneConfig,
    plan: Plan,
    tokens: Tokens,
    recovery: Tokens | None = None,
    heldout: torch.Tensor | Tokens | None = None,
) -> None:
    """Check that a run with these settings can use what it is to read.

    ValueError, before any work, for windows that the model cannot read, labels that it does not predict, a method that needs
    gradients where the model's outputs have none, windows for recovery where nothing makes up for what is removed, and too few
    windows for a search."""
    model = blocks.model
    check_windows(model, tokens.windows, "calibration windows")
    check_domains(blocks.model, config, tokens)
    read = tokens if recovery is None else recovery
    if config.refit == "block" and len(read.windows) < 2:
        raise ValueError(
            "refit='block' needs 2 calibration windows at least, one to fit and one to judge by: give more samples"
        )
    for each in (tokens, recovery):
        if each is not None and each.labels is not None and kind_of(model.config) == "seq2seq":  # its decoder reads them
            check_labels(model, each.labels)
    if recovery is not None:
        check_windows(model, recovery.windows, "recovery windows")
        if not isinstance(plan, Removal) or plan.compensation == "none":
            raise ValueError(
                f"recovery windows change nothing with {config.method!r}, where nothing of its own makes up for what is "
                "removed: leave them out, or compensate"
            )
    if config.own("allocation") == "search":
        check_search_texts(tokens, heldout)
    if config.recipe.gradients and isinstance(plan, Removal):
        predicted = config.recipe.gradients == "predictions"
        with eval_mode(model):
            if predicted and tokens.labels is not None:
                check_labels(model, tokens.labels)
            check_differentiable(model, plan.unit_sets, samples_of(tokens)[0], predicted)


def check_domains(model: torch.nn.Module, config: PruneConfig, tokens: Tokens) -> None:
    """Raise ValueError where windows count alike, by something that reads them and no moments, and a domain has not its part of
    them."""
    if tokens.domains is None or tokens.domains.proportional:
        return
    whole = config.recipe.modules in ("blocks", "experts", "stream") or config.recipe.compares_heads
    readers = {
        "refit='block'": config.refit == "block",
        "allocation='search'": config.own("allocation") == "search",
        f"{config.method!r}": whole or bool(config.recipe.gradients),
        "packed experts": any(parameter.ndim == 3 for parameter in model.parameters()),
    }
    for reader, reads in readers.items():
        if reads:
            raise ValueError(
                f"with {reader} all windows count alike, and those of the domains {tokens.domains} are not in proportion to "
                "their weights: give each domain as many windows as its weight asks for"
            )


def check_search_texts(tokens: Tokens, heldout: torch.Tensor | Tokens | None) -> None:
    """Raise ValueError for windows that no search can choose by."""
    if heldout is None:
        raise ValueError(
            "allocation='search' chooses by windows that calibrate, so that only held-out ones say what it has gained: give "
            "heldout= (--heldout)"
        )
    if tokens.labels is not None or (isinstance(heldout, Tokens) and heldout.labels is not None):
        raise ValueError("allocation='search' compares predictions of text, not of labels: calibrate on text without labels")
    if len(tokens.windows) < 2:
        raise ValueError("allocation='search' solves on some windows and chooses by others, and there is one: give two or more")
