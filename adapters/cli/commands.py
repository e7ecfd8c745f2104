"""`gramian prune` and `gramian perplexity`: a model is loaded, pruned or measured, and saved."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from gramian.adapters.cli.method_parser import removal_of, removes_units
from gramian.adapters.cli.parser import options_of, pattern_of
from gramian.adapters.data.sources import file_windows, write_tokens
from gramian.adapters.data.texts import Texts, read_texts
from gramian.adapters.data.tokens import Tokens
from gramian.adapters.devices import NO_CUPY, solver_library, usable_device
from gramian.adapters.estimates import estimate_pruning
from gramian.adapters.files import write_json
from gramian.adapters.measure.embeddings import embed, mean_cosine
from gramian.adapters.measure.likelihood import Perplexity, paired_difference, perplexity
from gramian.adapters.methods.registry import resolve
from gramian.adapters.methods.unit_methods import STRUCTURED_METHODS
from gramian.adapters.models.families import family_named, operator_names
from gramian.adapters.models.loading import load
from gramian.adapters.models.saving import save
from gramian.adapters.models.stacks import STACKS
from gramian.adapters.models.tasks import AUTO_CLASSES, kind_of
from gramian.adapters.models.widths import WIDTHS, unstated_widths
from gramian.adapters.pipeline import check_weights, prune_weights, target_of
from gramian.adapters.removal.estimates import estimate_removal
from gramian.adapters.removal.plan import check_placement, plan_removal
from gramian.adapters.removal.pruning import prune_units
from gramian.adapters.removal.report import StructuredReport
from gramian.adapters.report import Report
from gramian.adapters.run.streaming import stream_model
from gramian.tables import table
from gramian.versions import versions

__all__ = ["check_family", "measure_perplexity", "prune_and_save", "prune_model"]

# The file beside a model that was calibrated on text of its own: it holds the calibration windows, then those held out.
SAMPLED = "calibration.safetensors"


def prune_model(args: argparse.Namespace) -> None:
    """Prune a model and save it, or say what that would take."""
    check_family(args.model, structured=removes_units(args))
    place = usable_device(args.device)
    if place.type == "cuda" and solver_library(place) == "torch":
        print(NO_CUPY)
    if args.stream:
        stream_pruned(args)
        return
    print(f"loading {args.model}", flush=True)
    model, tokenizer = load(args.model, dtype=args.dtype, device="cpu" if args.offload else args.device)
    # Mistakes that can be known are reported before the first long computation, although `prune_weights` would report them too.
    how = units_how(args, model) if removes_units(args) else weights_how(args, model)
    heldout = held_out(args)
    read = read_texts(
        model, tokenizer, args.calibration, args.samples, args.length, args.seed, heldout, args.evaluate, args.dry_run
    )
    if args.no_perplexity:
        read = replace(read, evaluated=None)
    if args.dry_run:
        count, length = read.calibration.windows.shape
        evaluated = 0 if read.evaluated is None else len(read.evaluated)
        estimated = estimate_removal if removes_units(args) else estimate_pruning
        print(estimated(model, (count, length), heldout=heldout, evaluated=evaluated, **how))
        return
    if args.problems is not None:
        args.problems.mkdir(parents=True, exist_ok=True)
    if args.offload:
        how |= {"device": args.device}
    if not removes_units(args):
        how |= {"pattern": pattern_of(args), "target_blend": args.target_blend, "problems": args.problems}
    report = prune_and_save(model, tokenizer, args.model, read, how, args.out, args.overwrite, args.pad)
    if args.json is not None:
        write_json(args.json, report)


def held_out(args: argparse.Namespace) -> int:
    """How many windows are held out of calibration, for errors and perplexity."""
    heldout: int | None = args.heldout
    return max(1, args.samples // 8) if heldout is None else heldout


def stream_pruned(args: argparse.Namespace) -> None:
    """Prune a model and save it, with one block in memory at a time."""
    print(f"opening {args.model}", flush=True)
    with stream_model(args.model, args.out, dtype=args.dtype, device=args.device, overwrite=args.overwrite) as stream:
        how = weights_how(args, stream.model)
        heldout = held_out(args)
        read = read_texts(stream.model, stream.tokenizer, args.calibration, args.samples, args.length, args.seed, heldout)
        report = prune_weights(
            stream.model, read.calibration, heldout=read.heldout, device=stream.placement, pattern=pattern_of(args),
            target_blend=args.target_blend, problems=args.problems, **how,
        )  # fmt: skip
        stream.report = {"model": str(args.model), **report.to_dict()}
    out = str(args.out.absolute())
    print(f"{report}\n\nsaved to {out}; it loads with AutoModelForCausalLM.from_pretrained({out!r})")
    if args.json is not None:
        write_json(args.json, stream.report)


def weights_how(args: argparse.Namespace, model: PreTrainedModel) -> dict[str, Any]:
    """Keywords that `prune_weights` and `estimate_pruning` share, which are checked against the model."""
    check_weights(model, operator_names(model, args.include, args.exclude), pattern_of(args))
    recipe = resolve(args.method)
    target_of(recipe, args.target or recipe.target, args.target_blend, args.damping, args.refit)
    recipe.tried(options_of(args), pattern_of(args))
    return {
        "method": args.method,
        "options": options_of(args),
        "calibrate_on": args.calibrate_on,
        "target": args.target,
        "damping": args.damping,
        "refit": args.refit,
        "include": args.include,
        "exclude": args.exclude,
        "jobs": args.jobs,
    }


def units_how(args: argparse.Namespace, model: PreTrainedModel) -> dict[str, Any]:
    """Keywords that `prune_units` and `estimate_removal` share, which are checked against the model."""
    how = removal_of(args)
    check_placement(model, args.device if args.offload else None)
    bias_costs = plan_removal(model, **{name: value for name, value in how.items() if name != "allocation"}).bias_costs
    if args.pad and any(width.bias for width in unstated_widths(model).values()):
        raise ValueError(f"--pad cannot hold the biases that {args.model} has where stock classes have none: leave it out")
    if args.pad and any(bias_costs):
        raise ValueError(
            f"--pad cannot hold the biases that {args.method} gives operators without one: leave it out, or add --no-compensate"
        )
    return how


def prune_and_save(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    source: str,
    read: Texts,
    how: Mapping[str, Any],
    out: Path,
    overwrite: bool,
    pad: bool = False,
) -> dict[str, Any]:
    """Measure a model, prune it, measure it again, save it and print what was done; the result is the report that was saved.

    how: keywords of `prune_weights`, or of `prune_units` where they name a structured method. Perplexity is measured, or, of a
    model that has none, how far its embeddings move. pad: see `save`.
    """
    kind = kind_of(model.config)
    measure: Any = perplexity if kind == "causal" else embed
    dense = None if read.evaluated is None else measure(model, read.evaluated)
    remove = prune_units if how["method"] in STRUCTURED_METHODS else prune_weights
    report: Report | StructuredReport = remove(model, read.calibration, heldout=read.heldout, **how)
    document: dict[str, Any] = {"model": str(source), **report.to_dict()}
    lines = [str(report)]
    if dense is not None and kind == "causal":
        document["perplexity"], shown = compare(dense, measure(model, read.evaluated), read)
        lines.append(shown)
    elif dense is not None:
        document["embeddings"], shown = compare_embeddings(dense, measure(model, read.evaluated), read)
        lines.append(shown)
    saved = save(model, tokenizer, out, pad=pad, report=document, overwrite=overwrite)
    loader = "gramian.load" if (saved / WIDTHS).exists() else f"{AUTO_CLASSES[kind].__name__}.from_pretrained"
    lines.append(f"saved to {saved}; it loads with {loader}({str(saved)!r})")
    if read.calibration.source == "self":
        windows = [read.calibration.windows] if read.heldout is None else [read.calibration.windows, read.heldout]
        write_tokens(saved / SAMPLED, torch.cat(windows))
        lines.append(f"what was sampled to calibrate it is in {Path(out) / SAMPLED}, to be used again with --calibration")
    print("\n\n".join(lines))
    return document


def compare(dense: Perplexity, pruned: Perplexity, read: Texts) -> tuple[dict[str, Any], str]:
    """Perplexity before and after, as figures for the report and as text for a person."""
    assert read.evaluated is not None
    count, length = read.evaluated.shape
    difference, error = paired_difference(pruned, dense)
    figures = {
        "dense": dense.value,
        "pruned": pruned.value,
        "difference_nats": difference,
        "standard_error": error,
        "source": read.evaluated_source,
        "windows": count,
        "context": length,
    }
    shown = table(["model", "perplexity"], [["dense", f"{dense.value:.2f}"], ["pruned", f"{pruned.value:.2f}"]])
    where = f"on {count} windows of {length} tokens, {read.evaluated_source}"
    return figures, f"{shown}\n{where}; {difference:+.3f} +- {error:.3f} nats per token"


def compare_embeddings(dense: torch.Tensor, pruned: torch.Tensor, read: Texts) -> tuple[dict[str, Any], str]:
    """Mean cosine of held-out windows' embeddings before and after, as figures for the report and as text for a person."""
    assert read.evaluated is not None
    cosine, (count, length) = mean_cosine(dense, pruned), read.evaluated.shape
    figures = {"mean_cosine": cosine, "source": read.evaluated_source, "windows": count, "length": length}
    return figures, f"mean cosine {cosine:.4f} of embeddings before and after, {count} windows, {read.evaluated_source}"


def measure_perplexity(args: argparse.Namespace) -> None:
    """Measure the perplexity of a model on a text, and print it."""
    print(f"loading {args.model}", flush=True)
    model, tokenizer = load(args.model, dtype=args.dtype, device=args.device)
    length = args.length or longest_window(model, tokenizer)
    windows = file_windows(args.text, tokenizer, length)[: args.windows]
    result = perplexity(model, windows)
    print(f"perplexity {result.value:.4f} on {len(windows)} windows of {windows.shape[1]} tokens, {args.text}")
    if args.json is not None:
        figures = {
            "model": args.model,
            "text": str(args.text),
            "sha256": Tokens(windows, str(args.text)).digest,
            "perplexity": result.value,
            "windows": len(windows),
            "context": windows.shape[1],
            "versions": dict(versions()),
        }
        write_json(args.json, figures)


def longest_window(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, most: int = 1024) -> int:
    """How many tokens of text fit in a window: `most`, or the model's context without the begin token."""
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or most
    begins = tokenizer is not None and tokenizer.bos_token_id is not None
    return min(most, context - begins)


def check_family(source: str, structured: bool = False) -> None:
    """Raise ValueError, before weights are read or downloaded, for a model of a family that has no row. structured: the method
    removes units, which is possible in more families."""
    path = Path(source).expanduser()
    if source == "demo" or path.is_file():  # a GGUF file takes as long to look into as to load
        return
    try:
        model_type = AutoConfig.from_pretrained(source).model_type
    except Exception:  # `load` reports what is wrong with it
        return
    if not (structured and model_type in STACKS):
        family_named(model_type)
