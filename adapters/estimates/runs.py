"""What a run would take, before any of it is done: the passes that it would make say what they tap and write.

Memory and time are estimated to within a factor of two. Memory counts the arrays that pruning keeps, not those that loading a
file briefly needs. Time divides operations by the rate of one matrix product measured here and now, so a machine that is busy
later takes longer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.estimates import bases, depth, experts, refits, searched, stream, units, weights
from gramian.adapters.estimates.figures import Estimate, EstimatedOperator, Rates
from gramian.adapters.estimates.walked import Walked, walked
from gramian.adapters.estimates.wrapped import factor_numbers
from gramian.adapters.measure.likelihood import VOCABULARY
from gramian.adapters.models.block_lists import run_paths
from gramian.adapters.models.experts import active_weights
from gramian.adapters.models.loading import storage_dtype
from gramian.adapters.models.stacks import blocks_in
from gramian.adapters.models.tasks import kind_of
from gramian.adapters.passes.planned import Plan, plan_of, refitting, removing, scoring, thinning, zeroing
from gramian.adapters.removal.depth import Shortening
from gramian.adapters.removal.experts import Thinning
from gramian.adapters.removal.plan import Removal
from gramian.adapters.removal.stream import Narrowing
from gramian.adapters.run.block_records import written_to
from gramian.adapters.run.forward import TOKENS_PER_BATCH, batches_in
from gramian.adapters.run.partial_moments import held_at_once
from gramian.adapters.targets import shape_of

__all__ = ["disk_space", "run_estimate"]

LIBRARIES = 600 * 2**20  # bytes that Python, torch and transformers take before any model
PASSES = 2.0  # a block takes about twice as long as its matrix products alone


def run_estimate(
    model: Any,
    windows: tuple[int, int],
    config: PruneConfig,
    *,
    heldout: int = 0,
    evaluated: int = 0,
    rates: Rates | None = None,
    device: str | torch.device | None = None,
) -> Estimate:
    """Estimate what a run with these settings would take; `model` is unchanged.

    The operators of a method that removes units are the consumers. windows: how many calibration windows there are, and how
    many tokens in each. heldout, evaluated: how many more such windows errors and perplexity (before and after) are
    measured on. rates: measured within a quarter of a second where they are not given. device: where blocks are worked on,
    if not where the model is; of a model without memory that is a CPU. Nothing is known of a method of the user's own, so
    it is counted as SparseGPT. ValueError: what the run would raise before any work.
    """
    plan, paths = plan_of(model, config), run_paths(model)
    place = place_of(model, device)
    rates = rates or Rates.measured(place)
    samples, length = windows
    fitted, tokens = samples * length, (samples + heldout) * length
    passed = walks_of(model, paths, config, plan, tokens)
    walks = [(walk, fitted if name in ("scores", "levels", "outliers", "angles") else tokens) for name, walk in passed]

    blocks = list(blocks_in(model).values())
    hidden, vocabulary = model.get_input_embeddings().embedding_dim, model.config.get_text_config().vocab_size
    bytes_each = next(model.parameters()).element_size()
    at_once = min(config.jobs, len(paths))
    operators = operators_of(model, config, plan, rates, heldout > 0, tokens, windows)
    streams = at_once + 2 if config.jobs > 1 else streams_of(config, plan) + refits.STREAMS * (config.refit == "block")
    stacks = place.type != "cpu"
    pruning = {
        "hidden states between blocks": streams * tokens * hidden * bytes_each if len(paths) > 1 else 0,
        "operator inputs kept for the target": at_once * tokens * max(walk.kept for walk, _ in walks) * bytes_each,
        f"moments of {'one block' if len(paths) > 1 else 'all modules'}, float64": at_once
        * sum(held_at_once(batches_in(count, length)) for count in (samples, heldout) if count)
        * max(walk.entries for walk, _ in walks)
        * 8,
        f"working arrays of {config.method}": at_once * max(working(config, plan, each.shape, stacks) for each in operators),
        "one batch inside a block": at_once * 16 * max(TOKENS_PER_BATCH, length) * max(max(each.shape) for each in operators),
    }
    if config.refit == "block":
        pruning["copies of the weights of a block that is refitted"] = refits.block_bytes(model)
    if isinstance(plan, Removal):
        pruning["mask problems of all modules"] = units.mask_bytes(config, plan)
    if isinstance(plan, Shortening):
        pruning["what enters the blocks on the windows that judge"] = depth.judge_bytes(model, config, windows)
    if isinstance(plan, Narrowing):
        pruning |= stream.stream_bytes(model, plan, heldout > 0)
    if kept := searched.judge_bytes(model, config, windows, heldout):
        pruning["outputs and what enters the blocks on windows that judge"] = kept
    if kept := 4 * sum(factor_numbers(model, config, plan)):
        pruning["factors until they are saved, float32"] = kept
    gradients = 0
    if config.method in units.GRADIENTS:
        gradients = units.gradient_bytes(model, config.method, length)
    shown = evaluated if kind_of(model.config) == "causal" else 0
    gradient = {"gradients and activations of one window": gradients}
    memory = peak_memory(model, pruning, gradient, length if shown else 0, place.type == "cpu")

    forward = PASSES * 2 * (sum(map(active_weights, blocks)) + 2 * length * hidden * len(blocks))  # operations per token
    runs = sum(walk.runs * seen for walk, seen in walks) + tokens * (config.jobs > 1)
    if config.recipe.prepare is not None and not gradients:  # statistics that are no gradients take up to two runs of the model
        runs += 2 * fitted
    seconds = {
        "forward passes": forward * runs / rates.single,
        # a product A^T A takes half the operations of a general one
        "moments": sum(walk.operations * seen for walk, seen in walks) / rates.double,
        "solvers": sum(each.seconds for each in operators),
    }
    if isinstance(plan, tuple):
        seconds |= bases.basis_seconds(model, config, plan[0], rates)
    if config.refit == "block":
        seconds["refits of blocks"] = forward * refits.token_runs(fitted, tokens - fitted) / rates.single
    if gradients:
        through = forward + 2 * hidden * vocabulary
        seconds["gradients"] = through * fitted * units.GRADIENTS[config.method][0] / rates.single
    if isinstance(plan, Removal):
        seconds["joint relaxation"] = units.relaxation_seconds(config, plan, rates)
    seconds |= searched.search_seconds(model, config, plan, rates)
    seconds["perplexity, dense and pruned"] = 2 * evaluated * length * (forward + 2 * hidden * vocabulary) / rates.single
    inside = sum(each.numel() for block in blocks for each in block.parameters())
    if isinstance(plan, Removal):
        covered = sum(each.cost * each.removable for each in plan.unit_sets) / inside
    elif isinstance(plan, Thinning):
        covered = sum(each.size * each.count for each in plan.mixtures.values()) / inside
    elif isinstance(plan, Shortening):
        covered = sum(plan.sizes[number] for number in plan.candidates) / inside
    elif isinstance(plan, Narrowing):
        covered = stream.movable_share(model, plan, inside)
    else:
        covered = sum(math.prod(each.shape) for each in operators) / inside
    return Estimate(operators, memory, {name: spent for name, spent in seconds.items() if spent}, rates, covered)


def disk_space(model: Any, config: PruneConfig, plan: Plan) -> int:
    """The bytes that a run writes beside its output before this is there: the model once, and the journal, which holds what
    every pass writes, for one relaxation of all modules their problems, and for a search all levels."""
    paths, size = run_paths(model), storage_dtype(model).itemsize
    whole: int = sum(each.numel() for each in model.parameters())
    written = [name for _, walk in walks_of(model, paths, config, plan) for name in walk.written]
    journal = sum(each.numel() for name in written for each in written_to(model, name).values())
    masks = units.mask_bytes(config, plan) if isinstance(plan, Removal) else 0
    cores, blocks = factor_numbers(model, config, plan)  # which the journal holds in float32, and blocks are saved besides
    return size * (whole + journal + blocks) + 4 * (cores + blocks) + masks + searched.level_bytes(model, config, plan)


def walks_of(
    model: Any, paths: tuple[str, ...], config: PruneConfig, plan: Plan, tokens: float = math.inf
) -> list[tuple[str, Walked]]:
    """The passes of a run by name, and the walk of each. tokens: how many are run."""
    passes: list[Any] = []
    if isinstance(plan, Thinning):
        each = thinning(model, paths, config, plan, 0)
        return [(each.name, experts.walked_experts(each, model))]
    if isinstance(plan, Shortening):
        return [("depth", depth.walked_blocks(model, config, plan))]
    if isinstance(plan, Narrowing):
        return [("stream", stream.walked_stream(plan))]
    if isinstance(plan, Removal):
        removal = removing(model, paths, config, plan, 0)
        passes += [scoring(model, paths, config, plan), refitting(removal, model, paths, config, (), 0)]
    else:
        passes += [refitting(zeroing(model, paths, config, plan[0], 0), model, paths, config, (), 0)]
    found = [(each.name, walked(each, model, paths, tokens)) for each in passes]
    before = searched.walks_before(model, paths, config, plan, tokens)
    return found[:-1] + before + found[-1:]


def operators_of(
    model: Any, config: PruneConfig, plan: Plan, rates: Rates, heldout: bool, tokens: float, windows: tuple[int, int]
) -> tuple[EstimatedOperator, ...]:
    """A row for every operator that is solved for, mixture that loses experts, or block."""
    if isinstance(plan, Shortening):
        return depth.estimated_blocks(model, config, plan, rates, windows)
    if isinstance(plan, Narrowing):
        return stream.estimated_norms(model, plan, rates)
    if isinstance(plan, Thinning):
        return experts.estimated_mixtures(model, config, plan, rates, tokens)
    if isinstance(plan, Removal):
        return units.estimated_modules(model, config, plan, rates)
    rows = []
    for name in plan[0]:
        shape = shape_of(model, name)
        whole, fixed = (
            weights.solver_seconds(
                config.method, some, config.options, rates, heldout, config.own("damping") or 0.0, config.refit == "support"
            )
            for some in (shape, (0, shape[1]))
        )
        turned = weights.inverse_seconds(config.method, shape[1], config.options, rates)
        rows.append(EstimatedOperator(name, shape, whole, fixed - turned, turned))
    return tuple(rows)


def working(config: PruneConfig, plan: Plan, shape: tuple[int, int], stacks: bool) -> int:
    """Bytes of the working arrays for one operator."""
    unstructured = isinstance(plan, tuple)
    return weights.working_bytes(config.method, shape, stacks) if unstructured else units.working_bytes(shape)


def streams_of(config: PruneConfig, plan: Plan) -> int:
    """How many copies of the hidden states there are at once: what enters a block and what leaves it, along one path or two."""
    if isinstance(plan, Shortening):
        return 6  # in front of a gap, within it and behind it, and what enters and leaves a block with gaps before it
    if isinstance(plan, Removal):
        return 5 if plan.calibrate_on == "pruned" else 3
    if isinstance(plan, Narrowing) or config.own("calibrate_on") == "dense":
        return 2
    return 4 if config.own("target") == "model" else 3


def place_of(model: Any, device: str | torch.device | None) -> torch.device:
    """Where a run would compute."""
    found = next(model.parameters()).device if device is None else torch.device(device)
    return torch.device("cpu") if found.type == "meta" else found


def peak_memory(
    model: Any, pruning: Mapping[str, int], gradients: Mapping[str, int], evaluated_length: int, hosted: bool
) -> dict[str, int]:
    """Bytes by holder at the worst moment: while pruning, while gradients are taken, or while the logits of windows of
    `evaluated_length` tokens (0 for none) are in memory, since these are never there together. Of blocks that are streamed,
    whose weights are not there yet, the largest counts. hosted: whether that is the host's memory, where libraries are too."""
    vocabulary = model.config.get_text_config().vocab_size
    logits = {"logits for perplexity": 3 * 4 * evaluated_length * min(VOCABULARY, vocabulary)}
    peak = max((pruning, gradients, logits), key=lambda holders: sum(holders.values()))
    held = {each: each.numel() * each.element_size() for each in {*model.parameters(), *model.buffers()}}
    streamed = max(sum(held[each] for each in block.parameters() if each.is_meta) for block in blocks_in(model).values())
    return {
        "Python and its libraries": LIBRARIES if hosted else 0,
        "model": sum(size for each, size in held.items() if not each.is_meta),
        **({"one block, streamed": streamed} if streamed else {}),
        **{holder: size for holder, size in peak.items() if size},
    }
