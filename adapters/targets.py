"""What a run that zeroes weights is about: the operators, and how sparse each of them becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.devices import all_finite
from gramian.adapters.models.block_lists import block_names
from gramian.adapters.models.discovery import operator_names
from gramian.adapters.models.inner_bases import InnerBasis, inner_bases_of
from gramian.adapters.models.layers import Layer
from gramian.adapters.run.agreement import check_blocks
from gramian.solvers import NM, Pattern
from gramian.solvers.backend._xp import namespace

__all__ = ["AllZero", "check_finite", "chosen_operators", "free_bases", "orders_matter", "patterns_of", "shape_of"]


@dataclass(frozen=True)
class AllZero:
    """The mask that keeps nothing: the pattern of an operator that is gone."""

    def check(self, shape: tuple[int, int]) -> None:
        """Accept any shape."""

    def select(self, score: Any) -> Any:
        """Return the mask."""
        return namespace(score).zeros_like(score, dtype=namespace(score).bool)

    largest = select

    def admits(self, mask: Any) -> bool:
        """Return whether a mask keeps nothing."""
        return not bool(namespace(mask).any(mask))

    def __str__(self) -> str:
        return "100%"


def patterns_of(model: Any, config: PruneConfig) -> tuple[dict[str, Pattern], list[str]]:
    """The patterns of the operators to prune by full name, in order, and the names of those that rules leave dense.

    ValueError: a model that cannot be run block by block, no operator chosen, a rule that matches none, a pattern that does not
    divide an operator, weights that are not finite.
    """
    names = chosen_operators(model, config)
    patterns = config.amounts.patterns(names, config.own("per_row"))
    if not patterns:
        raise ValueError("sparsity leaves every operator dense: give one of its rules an amount above 0")
    for name, pattern in patterns.items():
        try:
            pattern.check(shape_of(model, name))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    check_finite(model)
    return patterns, [name for name in names if name not in patterns]


def free_bases(
    model: Any, config: PruneConfig, patterns: Mapping[str, Pattern]
) -> tuple[dict[str, InnerBasis], dict[str, str]]:
    """The bases that a run changes, by the full name of the consumer, and why others of the operators that it prunes remain as
    they are. There are none of either unless the settings ask for them.

    ValueError: they ask for what cannot be had anywhere, or would change nothing.
    """
    if not (config.rotate_heads or config.permute_channels):
        return {}, {}
    known = inner_bases_of(model)
    turned = {
        name: basis
        for name, basis in known.found.items()
        if config.rotate_heads and basis.turns and not patterns.keys().isdisjoint(basis.operators)
    }
    reordered = {
        name: basis
        for name, basis in known.found.items()
        if config.permute_channels and orders_matter(basis, patterns.get(name))
    }
    refused = {name: reason for name, reason in known.refused.items() if name in patterns}
    for name in list(turned):
        if held := [one for one in turned[name].operators if one not in patterns and has_zeros(model, one)]:
            refused[name] = f"{held[0]} has zeros, which a rotation would fill, and is not pruned in this run"
            del turned[name]
    for wanted, found, missing in (
        (config.rotate_heads, turned, "rotate_heads=True changes nothing: no attention is among the operators to prune"),
        (
            config.permute_channels,
            reordered,
            "permute_channels=True changes nothing: nothing that reads channels is pruned n:m",
        ),
    ):
        if wanted and not found:
            named = "; ".join(f"{name}: {reason}" for name, reason in list(refused.items())[:1])
            raise ValueError(missing + (f" whose basis is free ({named})" if named else ""))
    return {name: basis for name, basis in known.found.items() if name in turned or name in reordered}, refused


def has_zeros(model: Any, name: str) -> bool:
    """Whether an operator whose weights are in memory has zeros among them."""
    weight = Layer.at(model, name).weight
    return not weight.is_meta and bool((weight == 0).any())


def orders_matter(basis: InnerBasis, pattern: Pattern | None) -> bool:
    """Whether another order of channels changes what a pattern keeps: n:m does with n < m, if there are whole groups of m."""
    return isinstance(pattern, NM) and pattern.kept < pattern.group and basis.size % pattern.group == 0


def shape_of(model: Any, name: str) -> tuple[int, int]:
    """The shape (q, p) of an operator's weight."""
    rows, columns = Layer.at(model, name).weight.shape
    return rows, columns


def chosen_operators(model: Any, config: PruneConfig) -> list[str]:
    """The full names of the operators that the settings choose, in order. Errors are those of `patterns_of`."""
    check_blocks(model)
    names, paths = operator_names(model, config.include, config.exclude), block_names(model)
    numbers = [int(path.rpartition(".")[2]) for path in paths]
    count = 1 + max(numbers)
    inner = tuple(f"{path}." for path, number in zip(paths, numbers) if number in range(count)[config.span])
    names = [name for name in names if name.startswith(inner)]
    if not names:
        raise ValueError(f"no operator is left by blocks={config.blocks!r}: there are blocks 0 to {count - 1}")
    return names


def check_finite(model: nn.Module) -> None:
    """Raise ValueError, naming it, for a parameter that holds NaN or Inf."""
    for name, parameter in model.named_parameters():
        if not parameter.is_meta and not all_finite(parameter):  # streamed parameters are checked when read
            raise ValueError(f"{name} holds NaN or Inf")
