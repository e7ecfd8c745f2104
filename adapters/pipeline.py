"""Every run: the model is walked, a support is decided on, weights are solved for on it, and what is stored is evaluated."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import torch

from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.config.recipes import recipe_of
from gramian.adapters.data.problem_files import problem_bytes
from gramian.adapters.data.tokens import Tokens, check_windows, provenance, samples_of, windows_of
from gramian.adapters.devices import current_device, where
from gramian.adapters.drafts import new_directory
from gramian.adapters.files import check_space
from gramian.adapters.methods.allocation import select_units
from gramian.adapters.methods.gradients import check_differentiable
from gramian.adapters.methods.similar_heads import is_attention, select_by_similarity
from gramian.adapters.methods.types import ModelContext
from gramian.adapters.models.block_lists import walks_by_block
from gramian.adapters.models.examples import Rows
from gramian.adapters.models.loading import storage_dtype
from gramian.adapters.models.modes import eval_mode
from gramian.adapters.models.plain_modules import check_plain
from gramian.adapters.models.shrink import count_parameters, shrink_model
from gramian.adapters.models.tasks import check_labels, kind_of
from gramian.adapters.passes.planned import Plan, plan_of, refitting, removing, scoring, shortening, thinning, zeroing
from gramian.adapters.passes.searched import Search, Searched
from gramian.adapters.passes.sparsities import sparsities_by_outliers, sparsities_by_search
from gramian.adapters.passes.unit_counts import units_by_search
from gramian.adapters.removal.amount import block_parameters
from gramian.adapters.removal.depth import Shortening
from gramian.adapters.removal.experts import Thinning
from gramian.adapters.removal.plan import Removal
from gramian.adapters.removal.report import StructuredReport
from gramian.adapters.report import BlockReport, Report
from gramian.adapters.run.blocks import Blocks
from gramian.adapters.run.forward import batches_of
from gramian.adapters.run.journal import Journal
from gramian.adapters.run.ranks import Ranks, Shares, ranks_here
from gramian.adapters.run.streaming import Streamed
from gramian.adapters.run.undo import Originals, restored_after_errors
from gramian.adapters.run.walk import Pass, walk
from gramian.adapters.targets import free_bases, shape_of
from gramian.progress import bar, say
from gramian.solvers import Pattern

__all__ = ["check_run", "check_texts", "run"]


def check_run(blocks: Blocks, config: PruneConfig) -> Plan:
    """What a run with these settings is about: patterns and what remains dense, or the units that can be removed.

    ValueError, before any work, for settings that the model, or the place where its blocks live, does not suit.
    """
    if not isinstance(blocks, Streamed):
        check_plain(blocks.model)
    if config.jobs > 1 and blocks.elsewhere:
        raise ValueError(f"jobs={config.jobs} does not go with one block at a time on {blocks.place}: leave one of them out")
    if config.recipe.modules == "blocks" and blocks.elsewhere:
        raise ValueError(
            f"{config.method!r} judges blocks by the output of the whole model, of which one block at a time is on "
            f"{blocks.place}: run it where the model is in memory (--memory host)"
        )
    if config.own("allocation") == "search":
        check_searched(blocks, config)
    if config.jobs > 1 and not ranks_here().alone:
        raise ValueError(f"jobs={config.jobs} does not go with several processes, each of which works on blocks: leave it out")
    if config.recipe.gradients and any(parameter.is_meta for parameter in blocks.model.parameters()):
        raise ValueError(
            f"{config.method!r} needs gradients of the whole model, of which one block at a time is in memory: run it without "
            "streaming"
        )
    plan, kind = plan_of(blocks.model, config), type(blocks.model).__name__
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
    if not walks_by_block(blocks.model):
        raise ValueError(
            f"allocation='search' needs a model that runs block by block, which {type(blocks.model).__name__} does not: take "
            "another allocation"
        )


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


def check_search_texts(tokens: Tokens, heldout: torch.Tensor | Tokens | None) -> None:
    """Raise ValueError for windows that no search can choose by."""
    if heldout is None:
        raise ValueError(
            "allocation='search' chooses by windows that calibrate, so that only held-out ones say what it has gained: give "
            "heldout= (--heldout)"
        )
    if tokens.labels is not None:
        raise ValueError("allocation='search' compares predictions of text, not of labels: calibrate on text without labels")
    if len(tokens.windows) < 2:
        raise ValueError("allocation='search' solves on some windows and chooses by others, and there is one: give two or more")


def run(
    blocks: Blocks,
    tokens: Tokens,
    config: PruneConfig,
    *,
    heldout: torch.Tensor | Tokens | None = None,
    recovery: Tokens | None = None,
    problems: Path | None = None,
    journal: Journal | None = None,
    cut: bool = True,
    progress: bool = True,
) -> Report | StructuredReport:
    """argmin_V 1/2 |X* V^T - X W^T|_F^2 over V of a pattern, or without some units, for the operators of the model, in place.

    blocks: the model, and where its blocks live. tokens: calibration windows. heldout: windows like them on which errors are
    reported too. recovery: windows on which what makes up for removed units is fitted, in place of those that calibrate, on
    which units are still chosen. problems: an empty directory for problem files, one per operator as it was solved, with slope
    and floor where X* != X; they appear when the run ends, and with a journal, which keeps them, when `published` says so.
    journal: where the run keeps what it has done, and from which it goes on. cut: whether the tensors of removed units are cut
    out at the end, else zeros stand in their place.

    ValueError: before any work for settings that the model does not suit, and windows that it cannot read; naming the layer,
    for NaN or Inf in weights or activations. After any error, and after an interruption, the weights are what they were before
    the run, to the bit; but with a journal, from which the run goes on, the model is then of no use.
    """
    started, model = time.perf_counter(), blocks.model
    check_windows(model, tokens.windows, "calibration windows")
    apart = None if heldout is None else windows_of(heldout, "held-out windows")
    if apart is not None:
        check_windows(model, apart.windows, "held-out windows")
    plan, ranks = check_run(blocks, config), ranks_here()
    check_texts(blocks, config, plan, tokens, recovery, apart)
    if not ranks.alone and problems is not None and journal is None:
        raise ValueError(
            "problem files of several processes are kept in a journal: give a path of a model and out, or one process"
        )
    batches = batches_of(tokens)
    fitted = len(batches)
    if apart is not None:
        batches += batches_of(apart)
    progress = progress and ranks.first
    report: Report | StructuredReport
    # A run with a journal goes on from there, and its model is of no other use.
    originals = Originals(model, storage_dtype(model)) if journal is None else None
    guard: AbstractContextManager[object] = nullcontext() if originals is None else restored_after_errors(originals)
    with guard, eval_mode(model), current_device(blocks.place), blocks:
        search = search_of(blocks, config, tokens, apart, journal, originals, progress)
        if isinstance(plan, Removal):
            own = batches[:fitted] if recovery is None else batches_of(recovery)
            report = removed(blocks, tokens, config, plan, own, batches[fitted:], journal, originals, progress, ranks, search)
        elif isinstance(plan, Thinning):
            report = thinned(blocks, config, plan, batches, fitted, journal, originals, progress)
        elif isinstance(plan, Shortening):
            rest = None if apart is None else apart.windows
            report = shortened(blocks, tokens, config, plan, rest, journal, originals, progress)
        else:
            report = zeroed(
                blocks, config, *plan, batches, fitted, problems, journal, originals, progress, Shares(ranks, len(batches)),
                search,
            )  # fmt: skip
    if cut and isinstance(report, StructuredReport) and report.keep:
        shrink_model(model, report.keep)
    report.settings.update(recipe=recipe_of(config), **provenance(tokens, apart, recovery, storage_dtype(model)))
    report.settings.update(where(blocks.place, model.dtype))
    return report.timed(time.perf_counter() - started)


def search_of(
    blocks: Blocks,
    config: PruneConfig,
    tokens: Tokens,
    heldout: Tokens | None,
    journal: Journal | None,
    originals: Originals | None,
    progress: bool,
) -> Search | None:
    """What a search is given, where the settings ask for one."""
    if config.own("allocation") != "search":
        return None
    assert heldout is not None
    keep: Callable[[Sequence[str]], object] = (lambda names: None) if originals is None else originals.keep
    return Search(blocks, tokens.windows, heldout.windows, config.own("search_minutes"), journal, keep, progress)


def zeroed(
    blocks: Blocks,
    config: PruneConfig,
    patterns: dict[str, Pattern],
    dense: list[str],
    batches: Sequence[Rows],
    fitted: int,
    problems: Path | None,
    journal: Journal | None,
    originals: Originals | None,
    progress: bool,
    shares: Shares,
    search: Search | None,
) -> Report:
    """The one pass of a method that zeroes weights. fitted: how many of the batches calibrate. search: for the sparsities."""
    if problems is not None:
        moved = config.own("target") != "own"
        check_space(problems, sum(problem_bytes(shape_of(blocks.model, name), moved) for name in patterns))
    model, given, found = blocks.model, patterns, None
    bases, refused = free_bases(model, config, patterns)
    say_refused(refused, "keep their bases")
    if search is not None:
        patterns, found = sparsities_by_search(search, given)
    elif config.own("allocation") == "owl":
        patterns = sparsities_by_outliers(blocks, given, batches[:fitted], journal)
    with (
        bar(len(patterns), config.method, "operator", shown=progress) as shown,
        kept_problems(problems, journal) as folder,
    ):
        each = zeroing(model, blocks.paths, config, patterns, fitted, shown.update, folder, shares)
        walked = refitting(each, model, blocks.paths, config, batches, fitted, shares)
        rows, refits = without_refits(written_rows(walked, blocks, batches, config.jobs, journal, originals, shares))
    settings: dict[str, Any] = {
        **config.completed(),
        "pattern": ", ".join(dict.fromkeys(str(pattern) for pattern in given.values())),
        "target_blend": None if each.target == "own" else each.target_blend,
        "damping": each.solve.damping,
    }
    if bases:
        settings["changed_bases"] = len(bases)
    if refused:
        settings["refused"] = dict(refused)
    if found is not None:
        settings["search"] = found.document()
    if config.refit == "block":
        settings["target_blend"] = config.block_blend
    return Report(tuple(rows), settings, 0.0, tuple(dense), refits)


def say_refused(refused: Mapping[str, str], what: str) -> None:
    """Say of operators that they remain as they are, and why, once for each reason."""
    for reason in dict.fromkeys(refused.values()):
        names = [name for name, each in refused.items() if each == reason]
        say(f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''} {what}: {reason}")


def written_rows(
    each: Pass,
    blocks: Blocks,
    batches: Sequence[Rows],
    jobs: int,
    journal: Journal | None,
    originals: Originals | None,
    shares: Shares = Shares(),
) -> list[Any]:
    """Walk a pass that writes to the model, of which copies are made before for a run that fails, and return all its rows."""
    worked = blocks if originals is None else originals.before(blocks, each.written)
    found = walk(each, worked, batches, jobs=jobs, journal=journal, storage=storage_dtype(blocks.model), shares=shares)
    return [row for block in found for row in block]


def without_refits(rows: Sequence[Any]) -> tuple[list[Any], tuple[BlockReport, ...]]:
    """The rows of operators or modules, and those of blocks that were refitted."""
    blocks = tuple(row for row in rows if isinstance(row, BlockReport))
    return [row for row in rows if not isinstance(row, BlockReport)], blocks


@contextmanager
def kept_problems(problems: Path | None, journal: Journal | None) -> Iterator[Path | None]:
    """Where problem files are written: in the journal, and without one in a directory that is renamed when the context ends."""
    if problems is None:
        yield None
    elif journal is not None:
        journal.problems.mkdir(exist_ok=True)
        yield journal.problems
    else:
        with new_directory(problems.expanduser().resolve(), overwrite=False) as draft:
            yield draft


def removed(
    blocks: Blocks,
    tokens: Tokens,
    config: PruneConfig,
    plan: Removal,
    recovery: Sequence[Rows],
    heldout: Sequence[Rows],
    journal: Journal | None,
    originals: Originals | None,
    progress: bool,
    ranks: Ranks,
    search: Search | None,
) -> StructuredReport:
    """The two passes of a method that removes units: scores on the dense model, then removal.

    recovery: the batches that what remains is fitted on. heldout: those that only errors are measured on. search: for how many
    units go."""
    model, method, unit_sets = blocks.model, config.recipe, plan.unit_sets
    before, inside = count_parameters(model), block_parameters(model)
    allocation = config.own("allocation")
    say_refused(plan.refused, "remain as they are")
    context = ModelContext(model, tokens.windows if tokens.labels is None else tokens, unit_sets, progress, blocks)
    statistics: Callable[[], Sequence[Any]] = cache(lambda: method.gather(context, config.options))
    with bar(2 * len(unit_sets), config.method, "module", shown=progress) as shown:
        first = scoring(model, blocks.paths, config, plan, statistics, shown.update)
        if journal is None or len(journal.finished(first.name)) < first.stop:
            statistics()  # gathered from the dense model before any block is taken
        dense = batches_of(tokens)
        walked = walk(first, blocks, dense, journal=journal, shares=Shares(ranks, len(dense)))
        found = [each for block in walked for each in block]
        scored = [each.scores for each in found]
        masks = [each.problem for each in found if each.problem is not None]
        searched: Searched | None = None
        if search is not None:
            selection, searched = units_by_search(search, plan, scored)
        elif config.heads_by_similarity:
            selection = select_by_similarity(unit_sets, scored, masks, plan.amount, allocation, plan.bias_costs, plan.rounding)
        else:
            selection = select_units(
                unit_sets, scored, masks, plan.amount, allocation, plan.bias_costs, plan.counts, plan.rounding
            )
        del found, masks  # frees their memory before the moments of the second walk come
        batches = [*recovery, *heldout]
        shares = Shares(ranks, len(batches))
        second = removing(model, blocks.paths, config, plan, len(recovery), scored, selection.keep, shown.update, shares)
        refitted = refitting(second, model, blocks.paths, config, batches, len(recovery), shares)
        rows, refits = without_refits(written_rows(refitted, blocks, batches, config.jobs, journal, originals, shares))
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


def thinned(
    blocks: Blocks,
    config: PruneConfig,
    plan: Thinning,
    batches: Sequence[Rows],
    fitted: int,
    journal: Journal | None,
    originals: Originals | None,
    progress: bool,
) -> StructuredReport:
    """The one pass of a method that removes experts, whose number the configuration states afterwards."""
    model = blocks.model
    before, inside = count_parameters(model), block_parameters(model)
    with bar(len(plan.mixtures), config.method, "mixture", shown=progress) as shown:
        each = thinning(model, blocks.paths, config, plan, fitted, shown.update)
        rows = written_rows(each, blocks, batches, config.jobs, journal, originals)
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


def shortened(
    blocks: Blocks,
    tokens: Tokens,
    config: PruneConfig,
    plan: Shortening,
    heldout: torch.Tensor | None,
    journal: Journal | None,
    originals: Originals | None,
    progress: bool,
) -> StructuredReport:
    """The removal of whole blocks, of which the configuration states fewer afterwards."""
    model = blocks.model
    before, inside = count_parameters(model), block_parameters(model)
    keep: Callable[[Sequence[str]], object] = (lambda names: None) if originals is None else originals.keep
    with bar(plan.visits, config.method, "block", shown=progress) as shown:
        found = shortening(model, config, plan, tokens.windows, heldout, journal, keep, shown.update).run()
    if originals is not None:
        originals.kept.clear()  # blocks have other names now, and the run is done
    removed = sum(plan.sizes[number] for number in found.removed)
    settings: dict[str, Any] = {
        **config.completed(),
        "damping": plan.dampings[0] if len(plan.dampings) == 1 else list(plan.dampings),
        "removed_blocks": list(found.removed),
        "output": {"measure": found.measure, "removed": found.output[0], "refitted": found.output[1]},
    }
    return StructuredReport(found.rows, (before, before - removed), (inside, inside - removed), {}, settings, 0.0, {})
