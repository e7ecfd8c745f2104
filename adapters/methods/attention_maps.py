"""Distances between the heads of an attention module, from attention maps that are never kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from gramian.adapters.data.tokens import TokensLike, check_windows, windows_of
from gramian.adapters.models.discovery import answers_of
from gramian.adapters.models.modes import eval_mode
from gramian.adapters.models.unit_groups import unit_groups_of
from gramian.adapters.models.units import owner_of
from gramian.adapters.run.blocks import Blocks, InMemory
from gramian.adapters.run.forward import batches_of
from gramian.adapters.run.looking import Looking
from gramian.adapters.run.walk import Replay, Taps, walk

__all__ = ["head_distances"]

NAME = "gramian_rows"  # of the attention function, while it is registered
ROW_BYTES = 2**25  # of the attention rows that are compared together; a few arrays of that size exist at a time
SMALLEST = torch.finfo(torch.float32).tiny


def head_distances(
    model: PreTrainedModel,
    tokens: TokensLike,
    names: Iterable[str] | str | None = None,
    blocks: Blocks | None = None,
) -> dict[str, np.ndarray]:
    """D_ij = mean over windows and query rows of sqrt(JSD(p_i, p_j)), JSD(p, q) = H((p + q) / 2) - (H(p) + H(q)) / 2.

    p_i and p_j are the attention rows of query heads i and j, so D_ij is the Jensen-Shannon distance in nats, from 0 to
    sqrt(ln 2) = 0.83 (Greedy Output Approximation, Eq. (1), whose text calls it the divergence).

    tokens: windows (n, length). names: consumers of attention modules (all by default). blocks: where those of the model live,
    if not in memory. The answer holds a symmetric
    (heads, heads) by name, in float64. Rows are in the model's dtype, at least float32, and their entropies are summed in
    float64. The difference of entropies has errors of about 1e-4 in distances of nearly equal rows, and none where rows are
    equal.

    The model runs once over the windows; memory beyond that is a few times `ROW_BYTES`, whatever the length. ValueError is
    raised for a name that is no attention module, and for a model whose attention cannot be seen.
    """
    given = windows_of(tokens)
    check_windows(model, given.windows)
    unit_groups = {
        name: unit_group for name, unit_group in unit_groups_of(model).items() if unit_group.structure.unit_size is not None
    }
    selected = list(dict.fromkeys(unit_groups if names is None else [names] if isinstance(names, str) else names))
    for name in selected:
        if name not in unit_groups:
            raise ValueError(f"{name!r} is no attention module; names look like {', '.join(list(unit_groups)[:2])}")
    sums = {owner_of(model, unit_groups[name].block, unit_groups[name].structure): DistanceSum() for name in selected}
    home = blocks or InMemory(model)
    answers_of(model)  # found by running a short window, whose maps are none of those that are asked for
    with eval_mode(model), attention_rows(model, {module: each.add for module, each in sums.items()}):
        if selected:
            walk(SeeHeads(len(home.paths)), home, batches_of(given))
    if not all(each.rows for each in sums.values()):
        raise ValueError(
            f"the attention maps of {type(model).__name__} cannot be seen: its attention does not go through transformers' "
            "AttentionInterface. Use a class whose attention does (`attn_implementation` is then free to choose), or do "
            "without the distances of heads (tau=0)"
        )
    return {name: each.mean for name, each in zip(selected, sums.values())}


@dataclass(frozen=True)
class SeeHeads(Looking):
    """The pass that only runs the blocks, up to number `stop`, while their attention is seen."""

    stop: int
    name = "heads"
    runs = True
    types: Sequence[type] = ()

    def open(self, index: int, block: nn.Module) -> Seen:
        """Begin with a block."""
        return Seen()


class Seen:
    """Nothing is tapped, and nothing decided."""

    def __init__(self) -> None:
        self.taps: Taps = {}
        self.replayed: Sequence[nn.Module] = ()

    def decide(self, replay: Replay, drifted: bool) -> list[None]:
        """There is nothing to do."""
        return []


class DistanceSum:
    """sum over attention rows of sqrt(JSD(p_i, p_j)) for all pairs of heads i, j, and the number of rows."""

    def __init__(self) -> None:
        self.total: torch.Tensor | float = 0.0
        self.rows = 0

    def add(self, rows: torch.Tensor) -> None:
        """Add the rows, which are probabilities (batch, heads, queries, keys)."""
        self.total = self.total + row_distances(rows).sum(dim=-1)
        self.rows += rows.shape[0] * rows.shape[2]

    @property
    def mean(self) -> np.ndarray:
        assert isinstance(self.total, torch.Tensor)
        return self.total.cpu().numpy() / self.rows


def row_distances(rows: torch.Tensor) -> torch.Tensor:
    """sqrt(JSD(p_i, p_j)) of every two heads, (heads, heads, batch queries), for rows (batch, heads, queries, keys)."""
    seen = rows.amax(dim=(0, 1, 2)).nonzero()  # a key that no head attends to adds 0 log 0 = 0 everywhere
    rows = rows[..., int(seen[0]) : int(seen[-1]) + 1].transpose(0, 1).flatten(1, 2)
    own = entropy(rows)
    distances = own.new_zeros((len(rows), *own.shape))
    for head in range(len(rows) - 1):
        middle = entropy((rows[head + 1 :] + rows[head]).mul_(0.5))
        divergence = middle - 0.5 * (own[head + 1 :] + own[head])
        distances[head, head + 1 :] = divergence.clamp_(min=0).sqrt_()  # negative by rounding alone
    return distances + distances.transpose(0, 1)


def entropy(rows: torch.Tensor) -> torch.Tensor:
    """-sum p log p over the last axis, in float64."""
    return -rows.clamp(min=SMALLEST).log_().mul_(rows).sum(dim=-1, dtype=torch.float64)


@contextmanager
def attention_rows(model: PreTrainedModel, receivers: dict[nn.Module, Callable[[torch.Tensor], None]]) -> Iterator[None]:
    """While open, `receivers[module](rows)` is called with the attention rows (batch, heads, some queries, keys) of its module.

    The model computes what it always computes, in chunks of queries."""

    def attend(
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scaling: float | None = None,
        **_: Any,
    ) -> tuple[torch.Tensor, None]:
        """softmax(scaling Q K^T + mask) V for Q (batch, heads, queries, size) and K, V (batch, groups, keys, size)."""
        batch, heads, queries, size = query.shape
        members = heads // key.shape[1]  # query heads that share keys and values
        grouped = query.unflatten(1, (-1, members)) * (size**-0.5 if scaling is None else scaling)
        keys, values = key.unsqueeze(2).transpose(-1, -2), value.unsqueeze(2)
        precise = torch.promote_types(query.dtype, torch.float32)
        count = max(1, ROW_BYTES // (precise.itemsize * batch * heads * key.shape[2]))
        receive, outputs = receivers.get(module), []
        for start in range(0, queries, count):
            some = slice(start, start + count)
            scores = grouped[:, :, :, some] @ keys
            if attention_mask is not None:
                scores = scores + attention_mask[:, :, None, some]
            rows = torch.softmax(scores, dim=-1, dtype=precise)
            outputs.append(rows.to(query.dtype) @ values)
            if receive is not None:
                receive(rows.flatten(1, 2))
        return torch.cat(outputs, dim=3).flatten(1, 2).transpose(1, 2).contiguous(), None

    configs: dict[int, Any] = {id(each.config): each.config for each in model.modules() if hasattr(each, "config")}
    before = {key: config._attn_implementation for key, config in configs.items()}
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, eager_mask)  # masks then come as tensors to add; this alone changes nothing
    ALL_ATTENTION_FUNCTIONS[NAME] = attend
    try:
        with torch.no_grad():
            for config in configs.values():
                config._attn_implementation = NAME
            yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = before[key]
        del ALL_ATTENTION_FUNCTIONS[NAME]
