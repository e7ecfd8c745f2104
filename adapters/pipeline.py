"""Every run: the model is walked, a support is decided on, weights are solved for on it, and what is stored is evaluated."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.config.recipes import recipe_of
from gramian.adapters.data.mixing import paired
from gramian.adapters.data.tokens import Tokens, check_windows, provenance, windows_of
from gramian.adapters.devices import current_device, where
from gramian.adapters.kinds.depth import shortened
from gramian.adapters.kinds.experts import thinned
from gramian.adapters.kinds.preconditions import check_run, check_texts
from gramian.adapters.kinds.run import Run
from gramian.adapters.kinds.stream import narrowed
from gramian.adapters.kinds.units import removed
from gramian.adapters.kinds.weights import zeroed
from gramian.adapters.models.loading import storage_dtype
from gramian.adapters.models.modes import eval_mode
from gramian.adapters.models.shrink import shrink_model
from gramian.adapters.models.wrapped_operators import wrap_model
from gramian.adapters.models.wrapped_weights import Wrapped
from gramian.adapters.removal.depth import Shortening
from gramian.adapters.removal.experts import Thinning
from gramian.adapters.removal.plan import Removal
from gramian.adapters.removal.report import StructuredReport
from gramian.adapters.removal.stream import Narrowing
from gramian.adapters.report import Report
from gramian.adapters.run.blocks import Blocks
from gramian.adapters.run.forward import batches_of
from gramian.adapters.run.journal import Journal
from gramian.adapters.run.mixtures import mixture_of
from gramian.adapters.run.ranks import ranks_here
from gramian.adapters.run.undo import Originals, restored_after_errors

__all__ = ["run"]


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
    apart = paired(tokens, apart, recovery)
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
        each = Run(blocks, config, journal, originals, progress, ranks, mixture_of(tokens, apart))
        search = each.search(tokens.windows, apart.windows) if config.own("allocation") == "search" and apart else None
        if isinstance(plan, Removal):
            own = batches[:fitted] if recovery is None else batches_of(recovery)
            report = removed(each, tokens, plan, own, batches[fitted:], search)
        elif isinstance(plan, Thinning):
            report = thinned(each, plan, batches, fitted)
        elif isinstance(plan, Shortening):
            report = shortened(each, tokens, plan, None if apart is None else apart.windows)
        elif isinstance(plan, Narrowing):
            report = narrowed(each, plan, batches, fitted)
        else:
            report = zeroed(each, *plan, batches, fitted, problems, search)
    if cut and isinstance(report, StructuredReport) and report.keep:
        shrink_model(model, report.keep)
    if isinstance(report, Report):
        wrap_model(model, {row.name: row.parts for row in report.operators if isinstance(row.parts, Wrapped)})
    report.settings.update(recipe=recipe_of(config), **provenance(tokens, apart, recovery, storage_dtype(model)))
    report.settings.update(where(blocks.place, model.dtype))
    return report.timed(time.perf_counter() - started)
