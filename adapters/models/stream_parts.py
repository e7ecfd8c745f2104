"""What reads and what writes the stream of a model whose norms are of the form g * x / |x|: found by one short run.

    x <- E[token];   x <- x + O_b(...) for every writer;   every reader is given g_m * sqrt(p) x / |x| by its norm m

A norm is a module whose class calls itself one and that is given the stream. Its readers are the operators that receive the
very tensor that it returns; writers are the other operators inside the blocks whose outputs are as wide as the stream. This is
how it seems; `narrowing` tries it before any work.
"""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from gramian.adapters.models.block_lists import blocks_path, walks_by_block
from gramian.adapters.models.discovery import short_window
from gramian.adapters.models.modes import eval_mode
from gramian.adapters.models.tasks import token_inputs

__all__ = ["StreamParts", "answer_of", "stream_parts"]


@dataclass(frozen=True)
class StreamParts:
    """Full names of what touches the stream.

    width: p. norms: in the order in which they run, with their readers; offsets: what is added to a norm's weight to have its
    gain g, 0 or 1. writers: inside the blocks. embedding: what the stream starts with. scaled: whether the embedding multiplies
    its rows by sqrt(p), of the configuration's p. tied: what reads a norm with the embedding's own weight.
    """

    width: int
    norms: dict[str, tuple[str, ...]]
    offsets: dict[str, float]
    writers: tuple[str, ...]
    embedding: str
    scaled: bool
    tied: str | None

    @property
    def last(self) -> str:
        """The norm behind the blocks."""
        return list(self.norms)[-1]

    def shape(self, name: str, shape: tuple[int, ...], width: int) -> tuple[int, ...]:
        """The shape of a parameter once the stream has another width."""
        owner, _, leaf = name.rpartition(".")
        if owner in self.norms:
            return (width,)
        if owner in self.writers:
            return (width, *shape[1:])
        if leaf == "weight" and (owner == self.embedding or any(owner in readers for readers in self.norms.values())):
            return (shape[0], width)
        return shape


@torch.no_grad()
def answer_of(model: Any) -> torch.Tensor:
    """What a model returns for a short window: logits, as a rule."""
    with eval_mode(model):
        found: torch.Tensor = model(**token_inputs(model, short_window(model)))[0]
    return found


@dataclass
class Call:
    """One call of a module: where what it was given and what it returned are in memory."""

    given: Hashable
    returned: Hashable
    width: int
    scale: float | None = None


def stream_parts(model: PreTrainedModel, method: str) -> StreamParts:
    """Find what touches the stream of a model. method: whose refusals these are.

    ValueError, in a sentence, for what cannot be told in another basis: norms that subtract a mean or have no operator behind
    them, models without norms, without a head, with an encoder and a decoder, or that are not in memory."""
    kind = type(model).__name__
    if not walks_by_block(model):
        raise ValueError(f"{kind} has an encoder and a decoder: {method!r} narrows the one stream of a model with one of them")
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ValueError(
            f"{method!r} turns the stream of the whole model, which is not in memory: run it where it is (--memory host)"
        )
    embedding: Any = model.get_input_embeddings()
    width: int = embedding.embedding_dim
    stated = model.config.get_text_config().hidden_size
    if width != stated:  # opt-350m projects them
        raise ValueError(
            f"the embeddings of {kind} have {width} channels and its configuration states a hidden_size of {stated}: "
            f"{method!r} needs one width"
        )
    modules = dict[str, Any](model.named_modules())
    calls = called(model, modules)
    norms = {
        name: calls[name] for name in calls if "norm" in type(modules[name]).__name__.lower() and calls[name].width == width
    }
    check_norms(model, {name: modules[name] for name in norms}, method)
    operators = [name for name in calls if isinstance(modules[name], nn.Linear)]
    readers = {name: tuple(each for each in operators if calls[each].given == call.returned) for name, call in norms.items()}
    for name, found in readers.items():
        if not found:
            raise ValueError(
                f"{name} of {kind} is a norm that no Linear reads, as where a model norms what is added to the stream, or "
                f"packs experts: its gains cannot be moved elsewhere, so that {method!r} cannot turn the stream"
            )
    inside = f"{blocks_path(model)}."
    outer = [name for name in norms if not name.startswith(inside)]
    if len(outer) != 1 or outer[0] != list(norms)[-1]:
        raise ValueError(
            f"{kind} has {len(outer)} norms of the stream outside its blocks that operators read, and {method!r} needs one, "
            "behind them: load it with its head"
        )
    reading = {each for found in readers.values() for each in found}
    writers = tuple(
        name for name in operators if name.startswith(inside) and name not in reading and modules[name].weight.shape[0] == width
    )
    name_of_embedding = next(name for name, module in modules.items() if module is embedding)
    scale = calls[name_of_embedding].scale if name_of_embedding in calls else None
    plain, rooted = (scale is not None and abs(scale / each - 1) < 1e-2 for each in (1.0, width**0.5))
    if not plain and not (rooted and hasattr(embedding, "embed_scale")):
        raise ValueError(
            f"{name_of_embedding} of {kind} does more than look up rows of its weight: {method!r} cannot turn what it returns"
        )
    tied = next((name for name in reading if getattr(modules[name], "weight", None) is embedding.weight), None)
    offsets = {name: offset_of(name, modules[name], method) for name in norms}
    return StreamParts(width, readers, offsets, writers, name_of_embedding, not plain, tied)


@torch.no_grad()
def called(model: Any, modules: dict[str, Any]) -> dict[str, Call]:
    """Run a short window through a model and note the calls of modules that have parameters of their own."""
    found: dict[str, Call] = {}
    kept: list[Any] = []  # tensors, which must not be freed while others are compared with them
    with ExitStack() as stack:
        for name, module in modules.items():
            if not any(True for _ in module.parameters(recurse=False)):
                continue

            def note(module: Any, args: Any, kwargs: Any, output: Any, name: str = name) -> None:
                given = args[0] if args else next(iter(kwargs.values()), None)
                if not (isinstance(given, torch.Tensor) and isinstance(output, torch.Tensor)) or name in found:
                    return
                kept.extend((given, output))
                scale = None
                if isinstance(module, nn.Embedding) and not given.is_floating_point():
                    rows = module.weight[given.long()]
                    scale = float((output.double() * rows.double()).sum() / (rows.double() ** 2).sum())
                found[name] = Call(place(given), place(output), given.shape[-1] if given.ndim == 3 else 0, scale)

            handle = module.register_forward_hook(note, with_kwargs=True)
            stack.callback(handle.remove)
        answer_of(model)
    return found


def place(tensor: torch.Tensor) -> Hashable:
    """Where a tensor is in memory, by which it is known again."""
    return (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.shape, tensor.stride(), tensor._version)


def check_norms(model: Any, norms: dict[str, nn.Module], method: str) -> None:
    """Raise ValueError for the first norm that is no g * x / |x|, and where there is none."""
    if not norms:
        raise ValueError(f"no norm of {type(model).__name__} is given the stream alone, so that {method!r} cannot turn it")
    for name, module in norms.items():
        if isinstance(module, nn.LayerNorm) or [leaf for leaf, _ in module.named_parameters(recurse=False)] != ["weight"]:
            raise ValueError(
                f"{name} of {type(model).__name__} is a {type(module).__name__}, which subtracts a mean or adds a bias, so "
                f"that what it returns depends on the basis: {method!r} narrows models whose norms are RMSNorms"
            )


@torch.no_grad()
def offset_of(name: str, module: Any, method: str) -> float:
    """What a norm adds to its weight: 0, or 1 as in gemma."""
    weight = module.weight.double()
    gain = module(torch.ones(1, 1, len(weight), dtype=module.weight.dtype, device=weight.device))[0, 0].double()
    for offset in (0.0, 1.0):
        if bool(((gain - weight - offset).abs() <= 0.02 * (1 + weight.abs())).all()):
            return offset
    raise ValueError(
        f"{name} is a {type(module).__name__}, which makes of ones neither its weight nor 1 + its weight, as RMSNorms do: "
        f"{method!r} narrows models whose norms are RMSNorms"
    )
