"""Which weights of a model are zero, and are to remain so.

What counts are the matrices of its operators: `Linear` and `Conv1D` modules and packed experts inside the blocks, or anywhere
in a model without a list of blocks. A mask is a truth value for every weight, false where it is exactly zero, and a model has
one for every operator with a zero, whether a pattern such as 2:4, a sparsity or padding has put it there, or the dense model
came with it. Embeddings, heads, biases and gains of norms have none. Of adapters of PEFT the layers beneath count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gramian.adapters.models.block_lists import block_names
from gramian.adapters.models.discovery import is_operator
from gramian.adapters.models.experts import packed_in
from gramian.adapters.models.loading import load
from gramian.adapters.models.wrappers import of_peft, plain_model, wrapped
from gramian.progress import say

__all__ = ["Refilled", "hold", "masks_of", "operator_weights", "paired", "reapply", "unwrapped", "zeros_in"]


@dataclass(frozen=True)
class Refilled:
    """What `reapply` has set to zero again.

    weights: how many there were, and of how many that the masks prune. energy: |V|^2 of these over |W|^2 of the operators, as
    they were before. operators: how many weights of each, by the name of its weight.
    """

    weights: int
    pruned: int
    energy: float
    operators: Mapping[str, int]

    def __str__(self) -> str:
        return (
            f"{self.weights:,} of {self.pruned:,} pruned weights had been filled in, with {100 * self.energy:.3g} % of the "
            "energy of their operators; they are zero again"
        )


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside `torch.compile`, `DataParallel`, `DistributedDataParallel` and PEFT, whose adapters remain in it."""
    while True:
        if of_peft(model) and hasattr(model, "get_base_model"):
            peft_model: Any = model
            model = peft_model.get_base_model()
        elif (inner := wrapped(model)) is not None:
            model = inner
        else:
            return model


def operator_weights(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the weights of operators, each once, by the names that they have in the model without its wrappers."""
    model = unwrapped(model)
    try:
        inside = tuple(f"{name}." for name in block_names(model))
    except (ValueError, AttributeError):  # of a module that is no model of blocks
        inside = ("",)
    adapters = tuple(
        f"{name}.{child}." if name else f"{child}."
        for name, module in model.named_modules()
        if of_peft(module)
        for child, _ in module.named_children()
        if child != "base_layer"
    )
    seen: set[int] = set()
    for name, module in model.named_modules():
        place = f"{name}."
        if not place.startswith(inside) or (adapters and place.startswith(adapters)) or of_peft(module):
            continue
        leaves = [packed.leaf for packed in packed_in(module)] or (["weight"] if is_operator(module) else [])
        for leaf in leaves:
            weight = module._parameters.get(leaf)
            if weight is not None and id(weight) not in seen:
                seen.add(id(weight))
                yield f"{place}{leaf}".replace(".base_layer.", "."), weight


def masks_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """The masks of a model, by the names of its weights."""
    found = {}
    for name, weight in operator_weights(model):
        mask = weight.detach() != 0
        if not mask.all():
            found[name] = mask
    return found


def zeros_in(model: nn.Module) -> int:
    """How many weights of operators are zero."""
    return sum(weight.numel() - int(torch.count_nonzero(weight.detach())) for _, weight in operator_weights(model))


@torch.no_grad()
def reapply(model: nn.Module, masks: Mapping[str, torch.Tensor] | str | Path) -> Refilled:
    """V <- M V for every operator with a mask M, as after adapters were merged into a pruned model, which fills in its zeros.

    What had been filled in is said on stderr.

    Parameters
    ----------
    model : nn.Module
        The model, with adapters merged; it is changed in place.
    masks : mapping, str or Path
        Masks by the names of weights, as `HoldZeros(model).masks` has them before training, or the directory of the pruned
        model, whose zeros are read.

    Returns
    -------
    Refilled
        How many weights were zero no longer, and their energy relative to the weights.

    Raises
    ------
    ValueError
        Adapters that are not merged; masks of operators that the model has not, or of another shape. Nothing is changed then.

    Examples
    --------
    >>> import gramian, torch
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> shape = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, vocab_size=50)
    >>> model = LlamaForCausalLM(LlamaConfig(**shape)).eval()
    >>> _ = gramian.prune(model, torch.arange(48).reshape(2, 24), "wanda", sparsity="2:4", progress=False)
    >>> masks = gramian.HoldZeros(model).masks
    >>> weight = model.model.layers[0].mlp.up_proj.weight
    >>> _ = weight.data.add_(1e-3)
    >>> gramian.reapply(model, masks).weights == weight.numel() // 2
    True
    """
    model = plain_model(model)
    if isinstance(masks, str | Path):
        masks = masks_of(load(masks)[0])
    pairs = paired(model, masks)
    energy, filled, counts = 0.0, 0.0, {}
    for name, weight in operator_weights(model):
        energy += float(weight.double().square().sum())
        if name in pairs:
            gone = torch.where(pairs[name].to(weight.device), 0, weight)
            counts[name] = int(torch.count_nonzero(gone))
            filled += float(gone.double().square().sum())
            hold(weight, pairs[name])
    pruned = sum(mask.numel() - int(mask.sum()) for mask in pairs.values())
    found = Refilled(sum(counts.values()), pruned, filled / energy if energy else 0.0, {n: c for n, c in counts.items() if c})
    say(str(found))
    return found


def paired(model: nn.Module, masks: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The masks by the names of the model's own weights. ValueError for those that are of no operator of it."""
    weights = dict(operator_weights(model))
    found = {}
    for name, mask in masks.items():
        own = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
        if own not in weights or weights[own].shape != mask.shape:
            there = tuple(weights[own].shape) if own in weights else "no operator of it"
            raise ValueError(
                f"the mask of {name} is {tuple(mask.shape)}, but in {type(model).__name__} that is {there}: give masks of the "
                "model that was pruned, before it was trained"
            )
        found[own] = mask
    return found


def hold(weight: torch.Tensor, mask: torch.Tensor) -> None:
    """V <- M V in place. The mask becomes numbers for the product, which is three times as fast as one with truth values."""
    weight.detach().mul_(mask.to(weight.device, weight.dtype)).add_(0.0)  # the sum makes zeros of -0
