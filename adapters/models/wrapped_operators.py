"""Operators of a model that are products A S B: put into it, stated in its configuration, and multiplied out again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from gramian.adapters.models.experts import expert_at
from gramian.adapters.models.modeling_gramian import WrappedLinear, replace_modules
from gramian.adapters.models.own_classes import check_ours, make_own, make_stock
from gramian.adapters.models.wrapped_weights import Wrapped

__all__ = [
    "check_operators",
    "check_wrappable",
    "merge_model",
    "merged",
    "plain_operators",
    "refuse_wrapped",
    "state_operators",
    "wrap_model",
    "wrapped_in",
]

INSTEAD = "leave save='wrapped' out, which writes A S B as one dense matrix"


def wrapped_in(model: nn.Module) -> dict[str, Any]:
    """The wrapped operators of a model by name, each once."""
    return {name: module for name, module in model.named_modules() if is_wrapped(module)}


def is_wrapped(module: nn.Module) -> bool:
    """Whether a module is a `WrappedLinear`, of the class here or of that of a file beside a model."""
    own, here = type(module), WrappedLinear.__module__.rpartition(".")[2]
    return own.__name__ == WrappedLinear.__name__ and own.__module__.rpartition(".")[2] == here


def check_wrappable(model: PreTrainedModel, names: list[str]) -> None:
    """Raise ValueError for operators that cannot be wrapped: of a model whose class is not of the library, of packed experts,
    or outside the part that its classes share."""
    check_ours(model, "wrapped operators", INSTEAD)
    prefix = prefix_of(model)
    for name in names:
        if expert_at(model, name) is not None:
            raise ValueError(f"{name} is a matrix of packed experts, which only one parameter can hold: {INSTEAD}")
        if not name.startswith(prefix) or not isinstance(model.get_submodule(name), nn.Linear | Conv1D):
            raise ValueError(f"{name} is no Linear of {type(model.base_model).__name__}, so it cannot be wrapped: {INSTEAD}")


def refuse_wrapped(model: nn.Module) -> None:
    """Raise ValueError for a model with wrapped operators, where operators are to be single matrices."""
    if name := next(iter(wrapped_in(model)), ""):
        raise ValueError(
            f"{name} is a product A S B, of which no single matrix can be pruned: multiply all of them out first, with "
            "gramian.load(DIR, merged=True) and gramian.save"
        )


@torch.no_grad()
def wrap_model(model: PreTrainedModel, wrapped: Mapping[str, Wrapped]) -> None:
    """Replace operators by products, in place; the model is then of a class that builds them, by a configuration that states
    them, so that its own `save_pretrained` writes a directory that loads. Nothing is done without any."""
    made = {}
    for name, each in wrapped.items():
        operator: Any = model.get_submodule(name)
        module = made[operator] = WrappedLinear(operator, each.left.shape[1], each.right.shape[1]).train(operator.training)
        like: torch.Tensor = operator.weight  # which remains what it is, whatever happens before all are made
        for owner, leaf, numbers in (
            (module.core, "weight", each.core),
            (module, "left", each.left),
            (module, "right", each.right),
        ):
            placed = torch.from_numpy(numbers).to(like.device, like.dtype, copy=True)
            setattr(owner, leaf, nn.Parameter(placed, requires_grad=like.requires_grad))
    replace_modules(model, made)
    state_operators(model)


def state_operators(model: PreTrainedModel) -> None:
    """Let the configuration of a model state its wrapped operators, if any, and let the model be of a class that builds
    them."""
    prefix, blocks = prefix_of(model), dict[tuple[int, int], list[str]]()
    for name, module in wrapped_in(model).items():
        sizes = module.left.shape[1], module.right.shape[1]
        blocks.setdefault(sizes, []).append(name.removeprefix(prefix))
    if blocks:
        make_own(model)
        stated = [{"blocks": list(sizes), "operators": names} for sizes, names in blocks.items()]
        model.config.wrapped_operators = stated


def prefix_of(model: PreTrainedModel) -> str:
    """What stands before the names of what is inside the part that the classes of an architecture share."""
    return next(f"{name}." if name else "" for name, module in model.named_modules() if module is model.base_model)


def check_operators(config: PretrainedConfig) -> None:
    """Raise ValueError for a description of wrapped operators that is none of ours; nothing where there is none."""
    if "wrapped_operators" not in vars(config):
        return
    stated: Any = vars(config)["wrapped_operators"]
    for each in stated if isinstance(stated, list) and stated else [None]:
        blocks, names = (each.get(key) if isinstance(each, dict) else None for key in ("blocks", "operators"))
        known = isinstance(blocks, list) and len(blocks) == 2 and all(type(size) is int and size > 0 for size in blocks)
        if not known or not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
            raise ValueError(f"config.json states wrapped_operators {str(stated)[:80]!r}, which describe no products")


@contextmanager
def plain_operators(model: nn.Module) -> Iterator[None]:
    """Let a model have, while the context is open, operators of the same shapes in place of wrapped ones: their cores."""
    made = {module: stand_in(module) for module in wrapped_in(model).values()}
    replace_modules(model, made)
    try:
        yield
    finally:
        replace_modules(model, {operator: module for module, operator in made.items()})


def stand_in(module: Any) -> nn.Linear | Conv1D:
    """A Linear or Conv1D with the numbers of a core and the bias of its operator, without memory of its own."""
    weight = module.core.weight
    return plain(module, nn.Parameter(weight.detach().T, weight.requires_grad) if module.transposed else weight)


def plain(module: Any, weight: nn.Parameter) -> nn.Linear | Conv1D:
    """A Linear or Conv1D in place of a wrapped operator, with this weight and its bias."""
    with torch.device("meta"):
        sizes = module.in_features, module.out_features
        operator: Any = Conv1D(*sizes[::-1]) if module.transposed else nn.Linear(*sizes)
    operator.weight, operator.bias = weight, module.bias
    made: nn.Linear | Conv1D = operator.train(module.training)
    return made


def merge_model(model: PreTrainedModel, storage: torch.dtype) -> dict[nn.Module, nn.Module]:
    """Multiply every A S B out, in float64, to one matrix that is rounded to a dtype, in place. The model is then of its stock
    class, unless its widths differ by layer. Returned is what the new operators replace."""
    made: dict[nn.Module, nn.Module] = {}
    for module in wrapped_in(model).values():
        dense = module.product().to(storage).to(module.core.weight.dtype)
        dense = (dense.T if module.transposed else dense).contiguous()
        made[module] = plain(module, nn.Parameter(dense, module.core.weight.requires_grad))
    replace_modules(model, made)
    if made:
        if "uneven_units" in vars(model.config):
            vars(model.config).pop("wrapped_operators")
        else:
            make_stock(model)
    return {operator: module for module, operator in made.items()}


@contextmanager
def merged(model: PreTrainedModel, storage: torch.dtype) -> Iterator[None]:
    """Let `merge_model` hold while the context is open, for formats that have no such products."""
    config, own = model.config, model.__class__
    model.config = deepcopy(config)
    before = merge_model(model, storage)
    try:
        yield
    finally:
        replace_modules(model, before)
        model.config, model.__class__ = config, own
