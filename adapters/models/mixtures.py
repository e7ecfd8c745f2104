"""Mixtures of experts in a model: a router that chooses experts for every token, and the experts, packed along their number.

What stock forward methods of a mixture depend on, beside tensors with one slice an expert, is the attribute `num_experts` of
the router and of the experts, so that both can be cut to some experts and still be run by their own class.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from gramian.adapters.models.experts import packed_in
from gramian.adapters.models.tasks import stock_class

__all__ = ["Mixing", "Routing", "cut_experts", "expert_key", "mixed_at", "mixtures_of", "routed", "sliced"]

KEYS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")  # of configurations
GROUPS = ("num_group", "n_group")  # of routers, and what they are called


@dataclass(frozen=True)
class Mixing:
    """One mixture. name: the full name of its experts. router: that of its router. count: how many experts there are. active:
    how many answer a token. groups: in how many groups of consecutive experts the router looks for them. size: parameters of an
    expert, its part of the router included."""

    name: str
    router: str
    count: int
    active: int
    groups: int
    size: int

    @property
    def least(self) -> int:
        """How many experts must remain: as many as answer a token, and two of every group where there are groups, whose two
        best stand for them."""
        least = max(self.active, 2 * self.groups if self.groups > 1 else 1)
        return -(-least // self.groups) * self.groups


@dataclass(frozen=True)
class Routing:
    """Which experts answer the tokens (tokens, k), and by which weights (tokens, k)."""

    chosen: torch.Tensor
    weights: torch.Tensor


def mixtures_of(model: nn.Module) -> dict[str, Mixing]:
    """Find the mixtures of a model by the full names of their experts, in order.

    ValueError: a model without any, experts whose router cannot be told."""
    mixtures: dict[str, Mixing] = {}
    modules = dict(model.named_modules())
    for name, module in modules.items():
        if not (packed := packed_in(module)):
            continue
        count = packed[0].count
        if not hasattr(module, "is_transposed"):  # what classes have whose experts take tokens with their routes
            raise ValueError(
                f"{name} is a {type(module).__name__}, whose experts are given their tokens in a form of their own"
            )
        parent = name.rpartition(".")[0]
        routers = [path for path, _ in modules[parent].named_children() if routes(modules[f"{parent}.{path}"], count)]
        if len(routers) != 1:
            raise ValueError(
                f"{name} has {count} experts, but {len(routers)} modules of {parent} choose among as many: expected one "
                "router, with a weight that has a row for every expert and top_k, how many answer a token"
            )
        router: Any = modules[f"{parent}.{routers[0]}"]
        groups = next((value for key in GROUPS if isinstance(value := getattr(router, key, None), int)), 1)
        tensors = [tensor for each in (module, router) for tensor in sliced(each, count).values()]
        size = sum(tensor.numel() // count for tensor in tensors if isinstance(tensor, nn.Parameter))
        mixtures[name] = Mixing(name, f"{parent}.{routers[0]}", count, int(router.top_k), groups, size)
    if not mixtures:
        raise ValueError(f"{type(model).__name__} has no mixture of experts: choose a method that removes heads and channels")
    return mixtures


def routes(module: nn.Module, count: int) -> bool:
    """Whether a module is a router among so many experts."""
    weight = getattr(module, "weight", None)
    whole = isinstance(getattr(module, "top_k", None), int) and getattr(module, "num_experts", None) == count
    return whole and isinstance(weight, torch.Tensor) and weight.ndim == 2 and weight.shape[0] == count


def sliced(module: nn.Module, count: int) -> dict[str, torch.Tensor]:
    """The tensors of a module with a slice for every expert, by name."""
    tensors = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
    return {name: tensor for name, tensor in tensors.items() if tensor.ndim and tensor.shape[0] == count}


def mixed_at(model: nn.Module, path: str) -> Any:
    """The router or the experts at a path; None where another module is, or none."""
    try:
        module = model.get_submodule(path)
    except AttributeError:
        return None
    return module if isinstance(getattr(module, "num_experts", None), int) else None


@contextmanager
def numbered(router: nn.Module, count: int) -> Iterator[None]:
    """Let a router be one among so many experts while the context is open."""
    it: Any = router
    before, it.num_experts = it.num_experts, count
    try:
        yield
    finally:
        it.num_experts = before


def routed(router: nn.Module, tokens: torch.Tensor, kept: torch.Tensor) -> Routing:
    """What a router chooses for tokens (tokens, width) among the kept experts only, numbered as all of them are.

    The router runs with the slices of the kept experts, as it will once it is cut, which is what logits of minus infinity for
    the others would give."""
    count: Any = router.num_experts
    narrow = {name: tensor.detach()[kept] for name, tensor in sliced(router, count).items()}
    with numbered(router, len(kept)), torch.no_grad():
        answer = functional_call(router, narrow, (tokens,))
    chosen = next(each for each in answer if not each.is_floating_point())
    weights = next(each for each in reversed(answer) if each.is_floating_point() and each.shape == chosen.shape)
    return Routing(kept[chosen], weights)


def cut_experts(model: nn.Module, mixture: Mixing, kept: torch.Tensor) -> None:
    """Let a mixture consist of some of its experts, in place and exactly: it answers as if the router never chose others."""
    for name in (mixture.name, mixture.router):
        module: Any = model.get_submodule(name)
        for leaf, tensor in sliced(module, mixture.count).items():
            slices = tensor.detach()[kept.to(tensor.device)].clone()
            if leaf in module._parameters:
                module._parameters[leaf] = nn.Parameter(slices, tensor.requires_grad)
            else:
                module._buffers[leaf] = slices
        module.num_experts = len(kept)


def expert_key(model: Any, count: int, wanted: int) -> str:
    """The key of the configuration that states how many experts there are.

    It is the one with which the stock class builds `wanted` experts in every mixture. ValueError where there is none."""
    config = model.config.get_text_config()
    for key in KEYS:
        if getattr(config, key, None) != count:
            continue
        narrow = deepcopy(model.config)
        setattr(narrow.get_text_config(), key, wanted)
        build = stock_class(narrow) or type(model)
        with torch.device("meta"):
            built = {each.count for each in mixtures_of(build(narrow)).values()}
        if built == {wanted}:
            return key
    raise ValueError(
        f"the configuration of {type(model).__name__} states {count} experts under none of {', '.join(KEYS)}: with fewer the "
        "model could not be loaded again"
    )
