"""Packed experts: modules that hold the matrices of all their experts in one parameter for each kind of matrix.

A parameter is (E, outputs, inputs), or (E, inputs, outputs) where the forward multiplies from the right. Every expert's matrix
is an operator of its own, since a router sends other tokens to every expert, and is called by its parameter and its number, as
in `model.layers.0.mlp.experts.gate_up_proj.3`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

__all__ = [
    "HIDDEN",
    "Packed",
    "active_weights",
    "all_at_once",
    "eager_experts",
    "expert_at",
    "packed_in",
    "stages_in",
]

ALONE = "ParallelExperts"  # classes, as in jetmoe, that hold one matrix of every expert, and are given their tokens sorted
AT_ONCE = "Llama4TextExperts"  # is given as many tokens for every expert, zeros where a token is not routed to it
HIDDEN = "down_proj"  # what transformers calls the matrices whose inputs are the hidden channels of their own expert


@dataclass(frozen=True)
class Packed:
    """One parameter that holds a matrix of every expert. module: the experts. leaf: the parameter's name in it."""

    module: nn.Module
    leaf: str

    @property
    def parameter(self) -> torch.Tensor:
        """(E, q, p), or transposed (E, p, q)."""
        return self.module.get_parameter(self.leaf)

    @property
    def transposed(self) -> bool:
        """Whether the forward computes `x @ parameter[e]`, rather than `x @ parameter[e].T`."""
        return bool(getattr(self.module, "is_transposed", all_at_once(self.module)))

    @property
    def count(self) -> int:
        """E."""
        return int(self.parameter.shape[0])

    @property
    def width(self) -> int:
        """p, the inputs of every matrix."""
        return int(self.parameter.shape[1 if self.transposed else 2])

    @property
    def chosen(self) -> int:
        """How many experts a token is routed to; all of them where the configuration does not say."""
        config = getattr(self.module, "config", None)
        return int(getattr(config, "num_experts_per_tok", None) or self.count)

    @property
    def hidden(self) -> bool:
        """Whether the inputs are hidden channels of the expert, and so mean something else in every one."""
        return self.leaf == HIDDEN

    def matrix(self, number: int) -> torch.Tensor:
        """W (q, p) of one expert, a view of the parameter."""
        return self.matrix_in(self.parameter.detach(), number)

    def matrix_in(self, tensor: torch.Tensor, number: int) -> torch.Tensor:
        """The entries (q, p) that belong to one expert in a tensor of the parameter's shape: a view."""
        found = tensor[number]
        return found.T if self.transposed else found

    def number_of(self, matrix: torch.Tensor) -> int | None:
        """Which expert's matrix (q, p) a tensor is a view of; None for any other tensor."""
        packed = self.parameter
        if matrix.ndim != 2 or matrix.untyped_storage().data_ptr() != packed.untyped_storage().data_ptr():
            return None
        number, rest = divmod(int(matrix.storage_offset()) - int(packed.storage_offset()), packed.stride(0))
        if rest or not 0 <= number < self.count:
            return None
        whole = self.matrix(number)
        return number if (matrix.shape, matrix.stride()) == (whole.shape, whole.stride()) else None


def packed_in(module: nn.Module) -> tuple[Packed, ...]:
    """The parameters of an experts module in the order of its forward; none for any other module.

    Experts are known by what transformers gives nearly every class of them: their number, and which side they multiply from.
    """
    count = getattr(module, "num_experts", None)
    known = hasattr(module, "is_transposed") or type(module).__name__.endswith(ALONE) or all_at_once(module)
    if not isinstance(count, int) or not known:
        return ()
    leaves = [name for name, each in module.named_parameters(recurse=False) if each.ndim == 3 and each.shape[0] == count]
    return tuple(Packed(module, leaf) for leaf in sorted(leaves, key=lambda leaf: leaf == HIDDEN))


def all_at_once(module: nn.Module) -> bool:
    """Whether experts multiply in one product, `bmm(tokens, parameter)`, with tokens (E, n, hidden)."""
    return type(module).__name__ == AT_ONCE


def stages_in(path: str, module: nn.Module) -> tuple[tuple[str, ...], ...]:
    """The stages of one experts module at a dotted path: one for every parameter in the order of its forward, with an operator
    for every expert, such as `mlp.experts.down_proj.0`. There are none for any other module."""
    within = f"{path}." if path else ""
    return tuple(tuple(f"{within}{packed.leaf}.{number}" for number in range(packed.count)) for packed in packed_in(module))


def expert_at(root: nn.Module, path: str) -> tuple[Packed, int] | None:
    """The parameter that an operator is a part of, and which; None where the path names no packed expert."""
    owner, _, last = path.rpartition(".")
    owner, _, leaf = owner.rpartition(".")
    if not last.isdecimal():
        return None
    try:
        found = packed_in(root.get_submodule(owner))
    except AttributeError:
        return None
    return next(((packed, int(last)) for packed in found if packed.leaf == leaf and int(last) < packed.count), None)


def active_weights(block: nn.Module) -> int:
    """How many weights of a block a token meets: of packed experts, those that it is routed to."""
    asleep = 0
    for packed in (packed for module in block.modules() for packed in packed_in(module)):
        asleep += packed.parameter.numel() * (packed.count - packed.chosen) // packed.count
    return sum(each.numel() for each in block.parameters()) - asleep


@contextmanager
def eager_experts(model: nn.Module) -> Iterator[None]:
    """Let experts multiply one after the other while the context is open, so that what reaches each of them can be seen.

    Transformers' own switch is set and put back. Its forms differ in the order in which they add, and so by rounding.
    """
    switched = (each.config for each in model.modules() if hasattr(each, "is_transposed") and packed_in(each))
    configs: dict[int, Any] = {id(config): config for config in switched}
    before = [(config, config._experts_implementation) for config in configs.values()]
    for config, _ in before:
        config._experts_implementation = "eager"
    try:
        yield
    finally:
        for config, form in before:
            config._experts_implementation = form
