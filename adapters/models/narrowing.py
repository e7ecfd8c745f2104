"""The stream of a model in another basis, and in fewer directions: its operators, its norms and what its configuration says.

With an orthonormal Q (p, k) the stream is s = sqrt(k / p) Q^T x, whose mean of squares over k entries is that of Q Q^T x over
p, so that norms divide by the same number, epsilon and all. Gains g, which no rotation leaves alone, go into the readers:

    E <- sqrt(k / p) E Q;   W <- sqrt(p / k) W diag(g) Q, g <- 1;   O <- sqrt(k / p) Q^T O, biases likewise

With k = p the model computes the same; with fewer it computes what the dense model does if Q Q^T stands before every norm.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from gramian.adapters.models.fewer_blocks import configs_of, plain_attributes
from gramian.adapters.models.stream_parts import StreamParts, answer_of

__all__ = ["Narrowed", "check_turned", "narrow", "narrow_exactly", "stated_width"]

ABSENT = object()  # of an attribute that there was not
Turn = Callable[[torch.Tensor], torch.Tensor]  # rows m (n, p) -> m Q (n, k), in float64


@dataclass(eq=False)
class Narrowed:
    """A model whose stream is in another basis, and the way back. before: attributes as they were, by their owner and name."""

    before: list[tuple[Any, str, Any]] = field(default_factory=list)

    def change(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute and remember what it was."""
        self.before.append((owner, name, getattr(owner, name, ABSENT)))
        setattr(owner, name, value)

    def undo(self) -> None:
        """Give everything back: the same objects."""
        for owner, name, value in reversed(self.before):
            if value is ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, value)
        self.before.clear()


def stated_width(model: PreTrainedModel, parts: StreamParts, width: int) -> nn.Module:
    """Build the model's class with a stream of another width, without memory.

    ValueError: the configuration refuses the width. TypeError, saying what: another model is built than the narrowed one.
    """
    config = deepcopy(model.config)
    try:
        for name, value in settings_of_width(model, parts, width).items():
            setattr(config.get_text_config(), name, value)
        config.tie_word_embeddings = config.tie_word_embeddings and parts.tied is None
        config = type(config).from_dict(config.to_dict())  # as it will be read from its file
        build: Any = type(model)
        with torch.device("meta"):
            built: nn.Module = build(config)
    except Exception as error:  # checks of stock configurations raise anything
        raise ValueError((str(error).splitlines() or [""])[-1][:200]) from error
    fresh = {name: tuple(each.shape) for name, each in built.named_parameters(remove_duplicate=False)}
    mine = dict(model.named_parameters(remove_duplicate=False))
    for name in {**mine, **fresh}:
        shape = parts.shape(name, tuple(mine[name].shape), width) if name in mine else None
        if fresh.get(name) != shape:
            raise TypeError(f"{name} would be {fresh.get(name, 'missing')} and is {shape or 'not there'}")
    modules = dict(model.named_modules())
    for name, module in built.named_modules():
        for key, (own, other) in differing(modules[name], module).items():
            if (own, other) != (parts.width, width) and not (name == parts.embedding and parts.scaled):
                raise TypeError(f"{name}.{key} is {own!r} and would be {other!r}".removeprefix("."))
    return built


def settings_of_width(model: Any, parts: StreamParts, width: int) -> dict[str, Any]:
    """What the configuration says of the text part: the width, that nothing is tied, and a head size that no longer follows."""
    text = model.config.get_text_config()
    found: dict[str, Any] = {"hidden_size": width}
    if parts.tied is not None:
        found["tie_word_embeddings"] = False
    if heads := getattr(text, "num_attention_heads", None):
        found["head_dim"] = getattr(text, "head_dim", None) or parts.width // heads
    return found


def differing(module: nn.Module, fresh: nn.Module) -> dict[str, tuple[Any, Any]]:
    """Plain attributes of two modules that differ, those of the first and of the second."""
    own, other = plain_attributes(module), plain_attributes(fresh)
    return {key: (own[key], other[key]) for key in own.keys() & other.keys() if own[key] != other[key]}


@torch.no_grad()
def narrow(model: PreTrainedModel, parts: StreamParts, turn: Turn, width: int, built: nn.Module | None = None) -> Narrowed:
    """Bring the stream of a model into another basis, in place. turn(m): m Q. built: of `stated_width`, whose configuration and
    attributes the model then has; None where the width remains."""
    done, modules = Narrowed(), dict[str, Any](model.named_modules())
    ratio = (width / parts.width) ** 0.5
    try:
        for norm, readers in parts.norms.items():
            gain = modules[norm].weight.double() + parts.offsets[norm]
            for name in readers:
                put(done, modules[name], "weight", turn(modules[name].weight.double() * gain) / ratio)
            put(done, modules[norm], "weight", torch.full((width,), 1 - parts.offsets[norm], device=gain.device))
            if isinstance(modules[norm], nn.RMSNorm):
                done.change(modules[norm], "normalized_shape", (width,))
        for name in parts.writers:
            put(done, modules[name], "weight", ratio * turn(modules[name].weight.double().T).T)
            if modules[name].bias is not None:
                put(done, modules[name], "bias", ratio * turn(modules[name].bias.double()[None])[0])
        embedding = modules[parts.embedding]
        start = 1.0 if parts.scaled else ratio  # its own scale, sqrt(p), becomes sqrt(k)
        put(done, embedding, "weight", start * turn(embedding.weight.double()))
        if built is not None:
            restate(done, model, parts, width, built)
    except BaseException:
        done.undo()
        raise
    return done


def put(done: Narrowed, module: Any, leaf: str, value: torch.Tensor) -> None:
    """Give a module another parameter, in the dtype of the one that it has; one that others share remains theirs."""
    old = getattr(module, leaf)
    done.change(module, leaf, nn.Parameter(value.to(old.dtype).contiguous(), requires_grad=old.requires_grad))


def restate(done: Narrowed, model: Any, parts: StreamParts, width: int, built: Any) -> None:
    """Let configurations, attributes of modules and ties be those of the narrowed model."""
    settings = settings_of_width(model, parts, width)
    for config in configs_of(model):
        for name, value in settings.items():
            done.change(config, name, value)
    if parts.tied is not None:
        done.change(model.config, "tie_word_embeddings", False)
        done.change(model, "all_tied_weights_keys", built.all_tied_weights_keys)
    fresh = dict(built.named_modules())
    for name, module in model.named_modules():
        for key, (_, other) in differing(module, fresh[name]).items():
            done.change(module, key, other)
    if parts.scaled:
        embedding = model.get_submodule(parts.embedding)
        done.change(embedding, "embed_scale", torch.full_like(embedding.embed_scale, width**0.5))


@torch.no_grad()
def check_turned(model: PreTrainedModel, parts: StreamParts) -> None:
    """Raise ValueError where a model is another one once its stream is turned by a rotation, which it is not afterwards.

    The rotation is a reflection behind a permutation with signs, which takes no more time than a copy of the weights."""
    random = torch.Generator().manual_seed(0)
    order = torch.randperm(parts.width, generator=random)
    signs = 2.0 * torch.randint(0, 2, (parts.width,), generator=random).double() - 1
    axis = torch.randn(parts.width, generator=random, dtype=torch.float64)
    axis /= axis.norm()

    def turn(rows: torch.Tensor) -> torch.Tensor:
        place = rows.device
        moved = rows[:, order.to(place)] * signs.to(place)
        along = axis.to(place)
        return moved - 2 * (moved @ along)[:, None] * along

    expected = answer_of(model)
    done = narrow(model, parts, turn, parts.width)
    try:
        found = answer_of(model)
    finally:
        done.undo()
    if not bool(expected.isfinite().all()):
        raise ValueError(
            f"{type(model).__name__} makes NaN or Inf of a short window: its weights are damaged, or its activations "
            f"overflow in {str(expected.dtype).removeprefix('torch.')}"
        )
    if not (apart := distance(expected, found)) <= tolerance(expected):
        raise ValueError(
            f"{type(model).__name__} is another model once its stream is turned (they differ by {apart:.2g}): more touches the "
            "stream than its embeddings, RMSNorms and the operators around them"
        )


@torch.no_grad()
def narrow_exactly(model: PreTrainedModel, parts: StreamParts, basis: torch.Tensor, built: nn.Module) -> Narrowed:
    """Narrow the stream of a model to a basis Q (p, k), in float64, and compare the model on a short window with the dense one
    that has Q Q^T before every norm.

    ValueError, after which the model is unchanged, where the two differ."""
    with ExitStack() as stack:
        for norm in parts.norms:
            handle = model.get_submodule(norm).register_forward_pre_hook(projecting(basis))
            stack.callback(handle.remove)
        expected = answer_of(model)
    done = narrow(model, parts, lambda rows: rows @ basis.to(rows.device), basis.shape[1], built)
    try:
        found = answer_of(model)
    except BaseException:
        done.undo()
        raise
    if not (apart := distance(expected, found)) <= tolerance(expected):
        done.undo()
        raise ValueError(
            f"{type(model).__name__} with a stream of {basis.shape[1]} channels is another model than the dense one within "
            f"them (they differ by {apart:.2g}): it makes more of its width than its configuration says"
        )
    return done


def projecting(basis: torch.Tensor) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    """A hook that replaces what a norm is given, x, by Q Q^T x."""

    def hook(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden, *others = args
        within = basis.to(hidden.device)
        return ((hidden.double() @ within @ within.T).to(hidden.dtype), *others)

    return hook


def distance(expected: torch.Tensor, found: torch.Tensor) -> float:
    """The largest difference of two answers over the largest entry of the first."""
    scale = float(expected.abs().max())
    most = float((found - expected).abs().max())
    return most / scale if scale > 0 else most


def tolerance(expected: torch.Tensor) -> float:
    """How far an answer may be from one that is equal but for rounding: norms of transformers compute in float32."""
    return math.sqrt(max(torch.finfo(each).eps for each in (expected.dtype, torch.float32)))
