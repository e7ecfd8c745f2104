"""prune_structured(model, tokens, method, ratio): whole heads and hidden channels leave, and the model is smaller for it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from gramian.adapters.data.tokens import Tokens, check_windows, provenance
from gramian.adapters.devices import current_device, where
from gramian.adapters.methods.allocation import choose
from gramian.adapters.methods.types import ModelContext
from gramian.adapters.methods.unit_methods import structured_method
from gramian.adapters.methods.vocabulary import ALLOCATIONS, Heads
from gramian.adapters.models.loading import storage_dtype
from gramian.adapters.models.modes import eval_mode
from gramian.adapters.models.shrink import count_parameters, shrink_model
from gramian.adapters.models.stacks import walks_by_block
from gramian.adapters.removal.plan import block_parameters, check_placement, plan_removal
from gramian.adapters.removal.report import StructuredReport
from gramian.adapters.removal.walks import Job, Scoring, remove_units, score_units
from gramian.adapters.removal.whole import remove_units_at_once, score_units_at_once
from gramian.adapters.run.blocks import batches_of, enter
from gramian.adapters.run.placement import Placement

__all__ = ["prune_units"]


def prune_units(
    model: PreTrainedModel,
    tokens: Tokens | torch.Tensor,
    *,
    method: str = "numerical",
    ratio: float = 0.2,
    allocation: str | None = None,
    options: Mapping[str, Any] | None = None,
    compensate: bool | None = None,
    calibrate_on: str | None = None,
    target_blend: float | None = None,
    damping: float | None = None,
    refit_producers: bool = False,
    swap_search: bool = False,
    heads: Heads = "groups",
    heldout: Tokens | torch.Tensor | None = None,
    include: str | None = None,
    exclude: str | None = None,
    blocks: slice | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> StructuredReport:
    """Remove attention heads and hidden channels from the blocks of a language model or encoder, in place, and report on each
    module f(x) = sum over units u of C_u h(P_u x).

    tokens: calibration windows (n, length), integer. ratio: of all parameters inside the blocks (norms included), this part
    leaves, more by less than one unit; every module keeps at least one. method: see `STRUCTURED_METHODS`. allocation:
    `uniform`, `kinds`, `numerical` or `global`, who loses how much, see `choose`. heads: what leaves grouped-query attention,
    whole key/value `groups` or `even`, one query head of each, see `unit_set_of`. options: keywords of the method, such as
    `{"score": "newton"}`. heldout: windows like `tokens` on which errors are reported too.

    Two walks over the blocks. The first, on the dense model, scores the units, with the moments of one block at a time
    (`global` with a relaxed mask keeps one matrix, units by units, of each module). The second removes them and, with
    compensate, makes up for it in the consumer, the method's way: in its other weights, by least squares on one support
    (Numerical Pruning, Section 3.4), or in its bias, by the mean of what is gone (FLAP). calibrate_on, what the consumer is
    fitted to: `pruned`, X* of the blocks pruned so far with the dense model's X W^T as target; or `dense`, X* = X, which is
    all that models of several stacks and encoders have (`gramian.adapters.models.stacks`). target_blend: how far the target
    goes from X* W^T (0, excluded) to X W^T (1): X is replaced by (1 - b) X* + b X for a target_blend b, in reports too; by
    default half of the way where weights are solved for, unless producers are recovered, which needs 1. damping: d for the
    ridge d G_jj on the change of the weights, there and in scores that count on it. Then the tensors are cut. Defaults of
    allocation, compensate and calibrate_on are the method's. refit_producers: before units of a module are removed its
    producers are fitted to the dense model's outputs as well, given what the blocks pruned so far deliver, wherever that
    brings the module's output on the calibration tokens nearer (`Recovery`); it needs pruned inputs. Scores are of the dense
    model. swap_search: before a module loses units, kept ones are exchanged for others while that lowers the loss left by
    compensation in its weights, a local search (`exchange_units`).

    include and exclude: expressions for names of consumers, such as `mlp.down_proj`; blocks: `slice(4, 30)`, those blocks
    alone. Other modules stay whole. Without include, methods of hidden units (`tasp` and those it is compared with) leave
    attention whole. device: where blocks are worked on, one at a time, if not where the model is (`Placement`); what a method
    gathers from the whole model beforehand is gathered there. Raises ValueError before any work for bad arguments, an
    unsupported family, and a ratio out of reach; and, naming the layer, for NaN or Inf in weights or activations. What is
    raised after the work has begun leaves a model with units zeroed that is of no use."""
    started = time.perf_counter()
    recipe = structured_method(method)
    score = recipe.bind(options or {})
    allocation = allocation or recipe.allocation
    if allocation not in ALLOCATIONS:
        raise ValueError(f"allocation must be one of {', '.join(ALLOCATIONS)} but is {allocation!r}")
    check_placement(model, device)
    placement = Placement(device)
    given = tokens if isinstance(tokens, Tokens) else Tokens(tokens, "a tensor")
    check_windows(model, given.windows, "calibration windows")
    apart = heldout.windows if isinstance(heldout, Tokens) else heldout
    if apart is not None:
        check_windows(model, apart, "held-out windows")
    removal = plan_removal(
        model, method, ratio, options=options, compensate=compensate, calibrate_on=calibrate_on, target_blend=target_blend,
        damping=damping, refit_producers=refit_producers, swap_search=swap_search, heads=heads, include=include,
        exclude=exclude, blocks=blocks,
    )  # fmt: skip
    unit_sets, before, inside = removal.unit_sets, count_parameters(model), block_parameters(model)
    batches = batches_of(given.windows)
    fitted = len(batches)
    if apart is not None:
        batches += batches_of(apart)
    place = placement.device or next(model.parameters()).device
    bars = tqdm(total=2 * len(unit_sets), desc=method, unit="module", disable=not progress)
    with eval_mode(model), current_device(place), placement, bars as bar:
        job = Job(
            model, score, recipe.needs, allocation, removal.calibrate_on, removal.target_blend, removal.compensation,
            removal.damping, (fitted,), storage_dtype(model), bar.update, refit_producers, swap_search, placement,
        )  # fmt: skip
        statistics = recipe.look(ModelContext(model, given.windows, unit_sets, progress), options or {})
        scoring, by_block = Scoring(job, unit_sets, statistics, removal.amount), walks_by_block(model)
        if by_block:
            hidden, calls = enter(model, batches)
            score_units(scoring, calls, hidden[:fitted])
        else:
            score_units_at_once(scoring, batches[:fitted])
        scored = scoring.scored
        choice = choose(unit_sets, scored, scoring.problems, removal.amount, allocation, removal.bias_costs)
        scoring.problems.clear()  # their memory, before moments of the second walk
        if by_block:
            rows = remove_units(job, unit_sets, scored, choice, calls, hidden)
        else:
            rows = remove_units_at_once(job, unit_sets, scored, choice, batches)
        shrink_model(model, choice.keep)
    settings: dict[str, Any] = {
        "method": method,
        "ratio": ratio,
        "allocation": allocation,
        "options": {**recipe.defaults, **(options or {})},
        "compensation": removal.compensation,
        "calibrate_on": removal.calibrate_on,
        "target_blend": removal.target_blend,
        "damping": removal.damping,
        "refit_producers": refit_producers,
        "swap_search": swap_search,
        "heads": heads,
        "include": include,
        "exclude": exclude,
        "blocks": None if blocks is None else [blocks.start, blocks.stop, blocks.step],
        **provenance(given, apart, job.dtype),
        **where(place, model.dtype),
    }
    return StructuredReport(
        modules=tuple(rows),
        parameters=(before, count_parameters(model)),
        block_parameters=(inside, block_parameters(model)),
        allocation={key: value for key, value in choice.detail.items() if key == "mask_bound" or not swap_search},
        settings=settings,
        seconds=time.perf_counter() - started,
    )
