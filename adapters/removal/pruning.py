"""prune_units(model, tokens, method, ratio): whole heads and hidden channels are removed, so the model becomes smaller."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from gramian.adapters.data.tokens import Tokens, check_windows, provenance
from gramian.adapters.devices import current_device, where
from gramian.adapters.methods.allocation import select_units
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
    """Replace every module f(x) = sum_u C_u h(P_u x), in place, by the sum over the units u that are kept, and report on it.

    The units are attention heads and hidden channels in the blocks of a language model or encoder.

    tokens: calibration windows (n, length), integer. ratio: this fraction of all parameters inside the blocks (norms included)
    is removed, and less than one unit more; every module keeps at least one unit. method: see `STRUCTURED_METHODS`.
    allocation: `uniform`, `per_type`, `score` or `loss`, which divides the removal among modules, see `select_units`. heads:
    what is removed of grouped-query attention, whole key/value `groups` or `per_kv_group`, one query head of each group, see
    `unit_set_of`. options: keywords of the method, such as `{"score": "newton"}`. heldout: windows like `tokens` on which
    errors are reported too.

    The run walks over the blocks twice. The first walk, on the dense model, scores the units, with the moments of one block
    at a time (`loss` with a relaxed mask keeps one matrix, units by units, of each module). The second walk removes units
    and, with compensate, compensates for them in the consumer as the method does: in its other weights, by least squares on
    one support (Numerical Pruning, Section 3.4), or in its bias, by the mean of what was removed (FLAP). Then the tensors are
    cut. allocation, compensate and calibrate_on default to those of the method.

    calibrate_on: what the consumer is fitted to. With `pruned` these are X* of the blocks pruned so far, with the dense
    model's X W^T as target; with `dense` X* = X, which is all that models of several stacks and encoders offer
    (`gramian.adapters.models.stacks`). target_blend: b in (0, 1], how far the target goes from X* W^T (0) to X W^T (1): X is
    replaced by (1 - b) X* + b X, in reports too. The default is 1/2 where weights are solved for and no producers are
    refitted, and 1 otherwise; refitted producers need 1. damping: d for the ridge d G_jj on the change of the weights, there
    and in scores that count on compensation.

    refit_producers: before units of a module are removed, its producers are fitted to the dense model's outputs as well, given
    what the blocks pruned so far deliver; the fit is kept where it brings the module's output on the calibration tokens nearer
    to the target (`ProducerRefit`), and it needs calibrate_on=`pruned`. Scores are of the dense model. swap_search: before
    units of a module are removed, kept ones are swapped for others while that lowers the loss after compensation in the
    weights (`exchange_units`).

    include and exclude: expressions for names of consumers, such as `mlp.down_proj`. blocks: a slice such as `slice(4, 30)`
    selects those blocks alone. Other modules are not pruned. Without include, methods of hidden units (`tasp` and those
    compared with it) prune no attention. device: where blocks are worked on, one at a time, if not where the model is
    (`Placement`); what a method gathers from the whole model beforehand is gathered where the model is.

    ValueError is raised before any work for bad arguments, an unsupported family, and a ratio out of reach; and, naming the
    layer, for NaN or Inf in weights or activations. After an error that is raised once work has begun the model has zeroed
    units, and is of no use."""
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
        selection = select_units(unit_sets, scored, scoring.problems, removal.amount, allocation, removal.bias_costs)
        scoring.problems.clear()  # frees their memory before the moments of the second walk come
        if by_block:
            rows = remove_units(job, unit_sets, scored, selection, calls, hidden)
        else:
            rows = remove_units_at_once(job, unit_sets, scored, selection, batches)
        shrink_model(model, selection.keep)
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
        allocation={key: value for key, value in selection.detail.items() if key == "mask_bound" or not swap_search},
        settings=settings,
        seconds=time.perf_counter() - started,
    )
