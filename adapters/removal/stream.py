"""plan_narrowing(model, config): how wide the stream of a model remains, before any work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from gramian.adapters.config.budgets import read_budget
from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.models.loading import storage_dtype
from gramian.adapters.models.narrowing import check_turned, stated_width
from gramian.adapters.models.stream_parts import StreamParts, stream_parts
from gramian.adapters.removal.amount import amount_of
from gramian.adapters.targets import check_finite

__all__ = ["Narrowing", "plan_narrowing"]

STEP = 2  # channels: widths are even


@dataclass(frozen=True, eq=False)
class Narrowing:
    """parts: what touches the stream. width: how many directions remain. built: the model's class with that width, on the meta
    device. wanted: the parameters to remove from the blocks."""

    parts: StreamParts
    width: int
    built: nn.Module
    wanted: float


def plan_narrowing(model: PreTrainedModel, config: PruneConfig) -> Narrowing:
    """Plan how wide the stream remains: the width, a multiple of `round_to` or even, whose parameters inside the blocks are
    nearest to what the ratio leaves, or with a budget the largest that keeps to it, of those that the model's class builds.

    ValueError: what `stream_parts` refuses; a model that is another one once its stream is turned, or that its class does not
    build with another width; an amount out of reach; weights that are not finite.
    """
    parts = stream_parts(model, config.method)
    check_finite(model)
    check_turned(model, parts)
    reason = ""
    for width in widths(model, parts, config):
        try:
            return Narrowing(parts, width, stated_width(model, parts, width), wanted(model, parts, config, width))
        except TypeError as error:
            raise ValueError(f"{type(model).__name__} with a stream of {width} channels cannot be stated: {error}") from None
        except ValueError as error:
            reason = reason or f": {width} channels are refused ({error})"
    multiples = f"multiples of {config.round_to or STEP} below {parts.width}"
    raise ValueError(f"no width of the stream among the {multiples} will do{reason}; ask for another amount or --round-to")


def widths(model: PreTrainedModel, parts: StreamParts, config: PruneConfig) -> Iterator[int]:
    """Widths by how near they come to the amount, the best first."""
    step = config.round_to or STEP
    found = range(step, parts.width, step)
    if config.budget is None:
        amount = amount_of(model, config)
        yield from sorted(found, key=lambda width: (abs(removed(model, parts, width) - amount), -width))
        return
    kind, most = read_budget(config.budget)
    most = most // storage_dtype(model).itemsize if kind == "bytes" else most
    present = counted(model, parts, parts.width, tied=True)
    if most >= present:
        raise ValueError(f"budget={config.budget!r} is met already: the model has {present:,} of {most:,} parameters")
    yield from (width for width in reversed(found) if counted(model, parts, width) <= most)


def wanted(model: PreTrainedModel, parts: StreamParts, config: PruneConfig, width: int) -> float:
    """The parameters to remove from the blocks; with a budget, of which most may go elsewhere, those that the width removes."""
    return amount_of(model, config) if config.budget is None else float(removed(model, parts, width))


def removed(model: PreTrainedModel, parts: StreamParts, width: int) -> int:
    """The parameters inside the blocks that another width removes."""
    outside = {parts.last, parts.embedding, *parts.norms[parts.last]}
    return sum(
        parameter.numel() - count(parts.shape(name, tuple(parameter.shape), width))
        for name, parameter in model.named_parameters()
        if name.rpartition(".")[0] not in outside
    )


def counted(model: PreTrainedModel, parts: StreamParts, width: int, tied: bool = False) -> int:
    """All parameters at a width. tied: whether what is tied counts once, as it does before."""
    named = model.named_parameters(remove_duplicate=tied)
    return sum(count(parts.shape(name, tuple(parameter.shape), width)) for name, parameter in named)


def count(shape: tuple[int, ...]) -> int:
    """The entries of an array."""
    entries = 1
    for length in shape:
        entries *= length
    return entries
