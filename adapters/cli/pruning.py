"""A run of `gramian prune`: a model is loaded, measured, pruned, measured again and saved."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gramian.adapters.cli.before_after import measured_by
from gramian.adapters.cli.output import emit
from gramian.adapters.cli.summary import shown as shown_report
from gramian.adapters.config.recipes import recipe_of
from gramian.adapters.data.context import usual_length
from gramian.adapters.data.source_names import has_labels
from gramian.adapters.data.sources import token_file
from gramian.adapters.data.texts import Texts, read_texts
from gramian.adapters.data.tokens import windows_of
from gramian.adapters.devices import NO_CUPY, solver_library, usable_device
from gramian.adapters.estimates.figures import Estimate
from gramian.adapters.estimates.runs import disk_space, run_estimate
from gramian.adapters.fingerprint import fingerprint
from gramian.adapters.kinds.preconditions import check_run, check_texts
from gramian.adapters.models.loading import load, storage_dtype
from gramian.adapters.models.own_classes import loader_of
from gramian.adapters.models.saving import save_beside
from gramian.adapters.models.tasks import classifies
from gramian.adapters.models.widths import unstated_widths
from gramian.adapters.pipeline import run
from gramian.adapters.removal.plan import Removal
from gramian.adapters.removal.report import StructuredReport
from gramian.adapters.report import Report
from gramian.adapters.resuming import Finished, journaled, published, started
from gramian.adapters.run.blocks import Blocks, InMemory, Offloaded
from gramian.adapters.run.digests import weights_digest
from gramian.adapters.run.ranks import launched, ranks_here
from gramian.adapters.run.streaming import open_checkpoint
from gramian.progress import say

__all__ = ["prune_model"]

# The file beside a model that was calibrated on text of its own: it holds the calibration windows, then those held out.
SAMPLED = "calibration.safetensors"


def prune_model(args: argparse.Namespace) -> None:
    """Prune a model and save it, or say what that would take; with the other processes that torchrun has started, if any."""
    with launched(args.device) as (_, args.device):
        prune_here(args)


def prune_here(args: argparse.Namespace) -> None:
    """Prune a model and save it, or say what that would take."""
    config, texts = args.config, args.texts
    place = usable_device(args.device)
    if place.type == "cuda" and solver_library(place) == "torch":
        say(NO_CUPY)
    try:
        if args.memory == "stream":
            stream_pruned(args)
            return
        say(f"loading {args.model}")
        model, tokenizer = load(
            args.model, dtype=texts.dtype, device=args.device if args.memory == "host" else "cpu",
            classifier=any(map(has_labels, texts.sources)),
        )  # fmt: skip
        blocks: Blocks = InMemory(model) if args.memory == "host" else Offloaded(model, args.device)
        # Mistakes that can be known are reported before the first long computation, although `run` would report them too.
        plan = check_run(blocks, config)
        check_padding(args, model, plan)
        read = texts_of(args, model, tokenizer)
        check_texts(blocks, config, plan, read.calibration, read.recovery, read.heldout)
        if args.dry_run:
            print(foreseen(args, model, read))
            return
        prune_and_save(args, model, tokenizer, blocks, disk_space(model, config, plan), read)
    except Finished as finished:
        say(f"{finished}")


def foreseen(args: argparse.Namespace, model: PreTrainedModel, read: Texts) -> Estimate:
    """What a run would take."""
    count, length = read.calibration.windows.shape
    evaluated = 0 if read.evaluated is None else len(windows_of(read.evaluated).windows)
    return run_estimate(model, (count, length), args.config, heldout=args.texts.apart, evaluated=evaluated)


def texts_of(args: argparse.Namespace, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> Texts:
    """The windows that a run reads."""
    texts = args.texts
    read = read_texts(
        model, tokenizer, texts.calibration, texts.samples, texts.length or usual_length(model, tokenizer), texts.seed,
        texts.apart, args.evaluate, args.dry_run, texts.recovery,
    )  # fmt: skip
    return replace(read, evaluated=None) if args.no_perplexity or args.memory == "stream" else read


def stream_pruned(args: argparse.Namespace) -> None:
    """Prune a model and save it, with one block in memory at a time."""
    say(f"opening {args.model}")
    stream = open_checkpoint(args.model, dtype=args.texts.dtype, device=args.device)
    check_run(stream.blocks, args.config)
    read = texts_of(args, stream.model, stream.tokenizer)
    if args.dry_run:
        print(foreseen(args, stream.model, read))
        return
    document: dict[str, Any] = {}

    def documented(report: Report | StructuredReport) -> dict[str, Any]:
        document.update(document_of(args, report))
        return document

    report = journaled(
        stream, read.calibration, args.config, out=args.out, heldout=read.heldout, recovery=read.recovery,
        problems=args.problems, resume=args.resume, overwrite=args.overwrite, document=documented,
    )  # fmt: skip
    if not ranks_here().first:
        return
    saved = args.out.expanduser().resolve()
    loader = loader_of(stream.model.config, saved)
    emit(document, f"{shown_report(report, args.verbose)}\n\nsaved to {saved}; it loads with {loader}", args.json)


def document_of(args: argparse.Namespace, report: Report | StructuredReport) -> dict[str, Any]:
    """What gramian.json says of a run: its report, and the recipe that repeats it."""
    report.settings["recipe"] = recipe_of(args.config, args.texts)
    return {"model": str(args.model), **report.to_dict()}


def check_padding(args: argparse.Namespace, model: PreTrainedModel, plan: object) -> None:
    """Raise ValueError where the model is to be padded and has, or gets, biases that stock classes do not have."""
    if not args.texts.pad:
        return
    if any(width.bias for width in unstated_widths(model).values()):
        raise ValueError(f"--pad cannot hold the biases that {args.model} has where stock classes have none: leave it out")
    if isinstance(plan, Removal) and any(plan.bias_costs):
        raise ValueError(
            f"--pad cannot hold the biases that {args.config.method} gives operators without one: leave it out, or add "
            "--no-compensate"
        )


def prune_and_save(
    args: argparse.Namespace,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    blocks: Blocks,
    space: int,
    read: Texts,
) -> None:
    """Measure a model, prune it, measure it again, save it and print what was done.

    space: the bytes that the run needs on the disk. Perplexity is measured, or, of a model that has none, how far its
    embeddings move. ValueError, after the pruned model is saved, where that is not a number.
    """
    config, storage = args.config, storage_dtype(model)
    others = {"dtype": str(storage), "pad": args.texts.pad}
    expected = fingerprint(
        weights_digest(model, storage), read.calibration, read.heldout, config, blocks.place, others, read.recovery
    )
    journal = started(args.out, expected, args.resume, space, args.problems)
    try:
        measure, compared, name = measured_by(model, read)
        began, first = time.perf_counter(), ranks_here().first
        dense = None if read.evaluated is None or not first else measure(model, read.evaluated)
        phases = {"before": time.perf_counter() - began}
        report = run(
            blocks,
            read.calibration,
            config,
            heldout=read.heldout,
            recovery=read.recovery,
            problems=args.problems,
            journal=journal,
        )
        if not first:
            return
        document = document_of(args, report)
        lines = [shown_report(report, args.verbose)]
        failure: ValueError | None = None
        if dense is not None:
            began = time.perf_counter()
            try:
                document[name], shown = compared(dense, measure(model, read.evaluated), read)
                lines.append(shown)
                phases["after"] = time.perf_counter() - began
                document["phases"] = {f"measuring {name} {when}": seconds for when, seconds in phases.items()}
            except ValueError as error:  # the model may be damaged, but hours of work are in it: it is saved all the same
                failure = error
        document["fingerprint"] = journal.fingerprint
        with published(journal, args.problems):
            saved = save_beside(sampled(read), model, tokenizer, args.out, args.texts.pad, document, args.overwrite)
        journal.remove()
    finally:
        journal.release()
    lines.append(f"saved to {saved}; it loads with {loader_of(model.config, saved, classifies(model))}")
    if read.calibration.source == "self":
        lines.append(f"what was sampled to calibrate it is in {args.out / SAMPLED}, to be used again with --calibration")
    emit(document, "\n\n".join(lines), args.json)
    if failure is not None:
        raise ValueError(f"{failure}. The pruned model is in {saved}, and its {name} could not be measured") from failure


def sampled(read: Texts) -> dict[str, bytes]:
    """The file, by its name, of windows that were sampled from the model; of text from elsewhere there is none."""
    if read.calibration.source != "self":
        return {}
    windows = [read.calibration.windows]
    if read.heldout is not None:
        windows.append(windows_of(read.heldout).windows)
    return {SAMPLED: token_file(torch.cat(windows))}
