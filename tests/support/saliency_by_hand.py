"""Gradients of tiny models and sums over their units, by hand: references for the saliency methods."""

from __future__ import annotations

import numpy as np
import torch
from structured_models import TOKENS

from gramian.adapters.methods.types import ModelContext
from gramian.adapters.methods.unit_methods import UNIT_METHODS
from gramian.adapters.methods.unit_sets import unit_set_of
from gramian.adapters.models.unit_groups import unit_groups_of
from gramian.adapters.models.units import axis, operator

WINDOWS = TOKENS[:3, :12]


def context(model, heads="groups", windows=WINDOWS) -> ModelContext:
    return ModelContext(
        model, windows, [unit_set_of(model, unit_group, heads) for unit_group in unit_groups_of(model).values()]
    )


def scores(name: str, model, heads="groups", windows=WINDOWS, **options) -> list[np.ndarray]:
    return list(UNIT_METHODS[name].gather(context(model, heads, windows), options))


def gradients(model, window: torch.Tensor, output: str) -> dict[str, torch.Tensor]:
    """Of all parameters, by the model's own backward pass."""
    model.requires_grad_(True).zero_grad(set_to_none=True)
    logits = model(input_ids=window[None], use_cache=False).logits[0, :-1]
    rows = torch.arange(len(logits))
    value = logits[rows, window[1:]] if output == "logit" else -logits.log_softmax(-1)[rows, window[1:]]
    value.mean().backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.requires_grad_(False).zero_grad(set_to_none=True)
    return found


def by_hand(model, heads: str, of_weights: dict[str, torch.Tensor]) -> list[np.ndarray]:
    """Sums of numbers of all weights over what leaves with each unit, entry by entry."""
    found = []
    for unit_group in unit_groups_of(model).values():
        unit_set = unit_set_of(model, unit_group, heads)
        totals = []
        for units in unit_set.scored:
            total = 0.0
            groups = np.empty(0, dtype=int) if unit_set.per_kv_group else np.unique(units // unit_group.members)
            for name, side, places in unit_group.slabs(units, groups):
                for place in places:
                    total += float(of_weights[f"{name}.weight"].select(axis(operator(model, name), side), place).sum())
                    if side == "outputs" and f"{name}.bias" in of_weights:
                        total += float(of_weights[f"{name}.bias"][place])
            totals.append(total)
        found.append(np.array(totals))
    return found


def products(model) -> dict[str, torch.Tensor]:
    """|gradient . weight| of every parameter that has a gradient."""
    named = {name: each for name, each in model.named_parameters() if each.grad is not None}
    return {name: (each.grad * each).abs().detach() for name, each in named.items()}


def agree(found, expected, rtol=1e-9):
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=1e-12 * np.abs(other).max())
