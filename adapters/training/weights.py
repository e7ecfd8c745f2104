"""What is trained of a model: its norms and biases, low-rank updates of its operators, or all weights that are kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from torch.nn.utils import parametrize
from transformers import PreTrainedModel

from gramian.adapters.models.tasks import trunk_of
from gramian.adapters.training.holding import held
from gramian.adapters.training.masks import operator_weights

__all__ = ["UnderMask", "trained"]

STRENGTH = 2.0  # of a low-rank update, whatever its rank, as is usual


class UnderMask(nn.Module):
    """W -> M (W + 2 B A), entry by entry the mask M of W: a low-rank update of a weight that fills in no zero.

    For W (..., q, p), B (..., q, r) begins with zeros and A (..., r, p) with small numbers drawn by the generator.
    """

    def __init__(self, weight: torch.Tensor, mask: torch.Tensor | None, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        outer, (outputs, inputs) = weight.shape[:-2], weight.shape[-2:]
        drawn = torch.rand((*outer, rank, inputs), generator=generator).mul_(2).sub_(1) * inputs**-0.5
        self.inner = nn.Parameter(drawn.to(weight.device, weight.dtype))
        self.outer = nn.Parameter(weight.new_zeros((*outer, outputs, rank)))
        self.register_buffer("mask", None if mask is None else mask.to(weight.device), persistent=False)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the weight with its update, and +0 where the mask is false."""
        updated = weight + STRENGTH * (self.outer @ self.inner)
        mask: torch.Tensor | None = self.mask  # type: ignore[assignment]
        return updated if mask is None else updated * mask.to(updated.dtype)


@contextmanager
def trained(
    model: PreTrainedModel, what: str, rank: int, masks: Mapping[str, torch.Tensor], seed: int
) -> Iterator[dict[str, nn.Parameter]]:
    """The parameters that are trained, by name, while the context is open; all others are frozen meanwhile.

    what: `norms`, `lora` or `kept`. Norms and biases are trained with each. When the context ends, low-rank updates are merged
    under the masks. ValueError where nothing is to be trained.
    """
    inside = {id(each) for each in trunk_of(model).parameters()}
    vectors = {name: each for name, each in model.named_parameters() if each.ndim < 2 and id(each) in inside}
    weights = dict(operator_weights(model))
    chosen = {**vectors, **(weights if what == "kept" else {})}
    if not chosen and what != "lora":
        raise ValueError(f"{type(model).__name__} has neither norms nor biases with weights: train lora or kept")
    before = [(each, each.requires_grad) for each in model.parameters()]
    with ExitStack() as undone:
        undone.callback(lambda: [each.requires_grad_(wanted) for each, wanted in before])
        model.requires_grad_(False)
        if what == "lora":
            chosen |= undone.enter_context(updated(model, weights, rank, masks, seed))
        for each in chosen.values():
            each.requires_grad_(True)
        undone.enter_context(held({weights[name]: mask for name, mask in masks.items()}))
        yield chosen


@contextmanager
def updated(
    model: nn.Module, weights: Mapping[str, nn.Parameter], rank: int, masks: Mapping[str, torch.Tensor], seed: int
) -> Iterator[dict[str, nn.Parameter]]:
    """Low-rank updates of weights while the context is open, by name, and merged afterwards."""
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, nn.Parameter] = {}
    done: list[tuple[nn.Module, str]] = []
    try:
        for name, weight in weights.items():
            owner, _, leaf = name.rpartition(".")
            module = model.get_submodule(owner)
            update = UnderMask(weight, masks.get(name), min(rank, *weight.shape[-2:]), generator)
            parametrize.register_parametrization(module, leaf, update, unsafe=True)
            done.append((module, leaf))
            found |= {f"{name}.inner": update.inner, f"{name}.outer": update.outer}
        yield found
    finally:
        for module, leaf in done:
            parametrize.remove_parametrizations(module, leaf, leave_parametrized=True)
            module.get_parameter(leaf).detach().add_(0.0)  # -0 becomes 0
