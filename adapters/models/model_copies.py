"""A copy of a model on which the removal of units is rehearsed: some of its blocks, with weights of their own, and a window.

Of every kind of block one is copied, with weights that are drawn at random, biases and gains of norms with them: zero biases,
unit gains and zeroed weights would prove nothing. The others pass on what enters them, and a short window of random vectors
enters in place of embedded tokens.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from gramian.adapters.models.discovery import Calls, is_operator, noted
from gramian.adapters.models.tasks import trunk_of
from gramian.adapters.models.units import UnitGroup, axis, operator

__all__ = ["TOLERANCE", "Stage", "Understudy", "difference"]

LENGTH, CACHED = 10, 6  # vectors of the window, and how many of them enter before the cache is used
TOLERANCE = 1e-3  # of float32, relative to the block's output; what is wrong is wrong by more than a hundredth


class Stage:
    """A copy of a model on which removals are rehearsed.

    played: the full names of the blocks that run, one of each kind. stands_for: the one of its kind, by every block."""

    def __init__(self, model: PreTrainedModel, played: Sequence[str], stands_for: Mapping[str, str]) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.played = played
        self.model: Any = copy.deepcopy(model, self.cast(model, played, stands_for))
        self.model.train(False)
        self.body = body_of(self.model)
        if getattr(self.model.config, "_attn_implementation", None) not in ("eager", "sdpa"):  # others run on GPUs alone
            self.model.config._attn_implementation = "eager"
        self.answers: dict[str, Any] = {}
        for name, actor in stands_for.items():
            if name == actor:
                self.block(name).register_forward_hook(self.recorder(name))
            else:
                self.block(name).forward = self.bystander(actor)
        for module in [each for name in played for each in self.block(name).modules()]:
            if packed(module):
                module.forward = silent
        embeddings: Any = model.get_input_embeddings()
        size: int = embeddings.embedding_dim
        self.windows = [torch.randn(1, LENGTH, size, generator=self.generator) for _ in range(2)]

    def cast(self, model: PreTrainedModel, played: Sequence[str], blocks: Mapping[str, str]) -> dict[int, Any]:
        """What the copy has in place of every tensor, by its identity: in blocks that run, and outside all blocks, random ones
        in float32 on the CPU; else, and for what nothing reads, the model's own."""
        chosen: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        kept = {id(tensor) for name in blocks if name not in played for tensor in model.get_submodule(name).parameters()}
        embeddings: Any = model.get_input_embeddings()
        kept |= {id(tensor) for tensor in embeddings.parameters()}
        kept |= {id(tensor) for module in model.modules() if packed(module) for tensor in module.parameters(recurse=False)}
        for name, parameter in body_of(model).named_parameters():
            if id(parameter) not in kept:
                chosen[id(parameter)] = nn.Parameter(self.drawn(name, parameter), requires_grad=False)
        for name, buffer in body_of(model).named_buffers():
            if buffer.is_meta:
                raise ValueError(f"{name} has no value, so that units cannot be found: load the model")
            chosen[id(buffer)] = buffer.to("cpu", torch.float32) if buffer.is_floating_point() else buffer.to("cpu")
        return chosen

    def drawn(self, name: str, parameter: torch.Tensor) -> torch.Tensor:
        """Random weights that keep the scale of what they multiply, gains around one and biases around zero."""
        values = torch.randn(parameter.shape, generator=self.generator)
        if parameter.ndim > 1:
            return values.mul_(parameter.shape[-1] ** -0.5)
        return values.mul_(0.3).add_(float(name.endswith("weight")))

    def block(self, name: str) -> Any:
        """A block."""
        return self.model.get_submodule(name)

    def recorder(self, name: str) -> Callable[..., None]:
        """A hook that notes what a block answers, for itself and for blocks of its kind."""

        def note(module: nn.Module, arguments: Any, answer: Any) -> None:
            self.answers[name] = answer

        return note

    def bystander(self, actor: str) -> Callable[..., Any]:
        """A forward method that passes on what enters, in the form in which a block of the same kind has answered."""

        def passing(*arguments: Any, **keywords: Any) -> Any:
            states, answer = arguments[0] if arguments else keywords["hidden_states"], self.answers[actor]
            return type(answer)([states, *answer[1:]]) if type(answer) in (tuple, list) else states

        return passing

    def run(self) -> torch.Tensor:
        """Run the window, and return the last hidden states."""
        return hidden(self.body(**self.inputs(LENGTH), **self.flag("use_cache", False)))

    def inputs(self, stop: int, start: int = 0) -> dict[str, torch.Tensor]:
        """The keywords of a part of the window; an encoder reads all of its own."""
        first, second = self.windows
        if self.model.config.is_encoder_decoder:
            return {"inputs_embeds": first, "decoder_inputs_embeds": second[:, start:stop]}
        return {"inputs_embeds": first[:, start:stop]}

    def flag(self, name: str, value: Any) -> dict[str, Any]:
        """A keyword, where the model has it."""
        return {name: value} if name in inspect.signature(self.body.forward).parameters else {}

    def run_cached(self) -> torch.Tensor:
        """The same in two parts, of which the second sees the first through the cache."""
        first = self.body(**self.inputs(CACHED), use_cache=True)
        cache = next(each for key in ("cache", "past_key_values") if (each := getattr(first, key, None)) is not None)
        keyword = self.flag("cache", cache) or {"past_key_values": cache}
        second = self.body(**self.inputs(LENGTH, CACHED), **keyword, use_cache=True)
        return torch.cat([hidden(first), hidden(second)], dim=1)

    def agrees_with_cache(self) -> bool:
        """Whether the model has a cache that changes nothing, as far as that can be told."""
        try:
            return difference(self.run_cached(), self.run()) < TOLERANCE
        except Exception:  # stock code without a cache raises anything
            return False

    def stages(self) -> dict[str, tuple[tuple[str, ...], ...]]:
        """Run the window, and list the operators of the blocks that run in the order in which it met them, those of one input
        together."""
        calls = {name: Calls() for name in self.played}
        with ExitStack() as stack:
            for name, each in calls.items():
                operators = {path: module for path, module in self.block(name).named_modules() if is_operator(module)}
                stack.enter_context(noted(operators, each))
            self.run()
        return {name: each.stages() for name, each in calls.items()}

    def answer(self, name: str) -> torch.Tensor:
        """The hidden states that a block has answered."""
        answer = self.answers[name]
        states: torch.Tensor = answer[0] if isinstance(answer, tuple | list) else answer
        return states


class Understudy:
    """A copy of a block that takes its place while the context is open; `output` is what the block itself answers."""

    def __init__(self, stage: Stage, name: str) -> None:
        self.stage, self.name = stage, name
        self.path, _, self.index = name.rpartition(".")

    def __enter__(self) -> Understudy:
        self.own = self.stage.block(self.name)
        self.put(copy.deepcopy(self.own))
        return self

    def __exit__(self, *_: object) -> None:
        self.put(self.own)

    def put(self, block: nn.Module) -> None:
        """Put a block in its place."""
        blocks: Any = self.stage.block(self.path)
        blocks[int(self.index)] = block

    def with_columns_zeroed(self, unit_group: UnitGroup, units: np.ndarray) -> torch.Tensor:
        """What the block answers with C_u = 0 for every unit but those given."""
        self.stage.run()
        self.output = self.stage.answer(self.name)
        module = operator(self.stage.model, unit_group.name)
        columns = unit_group.columns(np.setdiff1d(np.arange(unit_group.units), units))
        module.weight.index_fill_(axis(module, "inputs"), torch.from_numpy(columns), 0)
        self.stage.run()
        return self.stage.answer(self.name)


def packed(module: nn.Module) -> bool:
    """Whether a module holds weights of many experts, which the rehearsal does without."""
    return not isinstance(module, nn.modules.conv._ConvNd) and any(
        parameter.ndim > 2 for parameter in module.parameters(recurse=False)
    )


def silent(states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    """Answer zeros, in place of experts."""
    return torch.zeros_like(states)


def body_of(model: Any) -> Any:
    """The model without its head."""
    return model.base_model if model.config.is_encoder_decoder else trunk_of(model)


def hidden(answer: Any) -> torch.Tensor:
    """The last hidden states."""
    states: torch.Tensor = answer.last_hidden_state if hasattr(answer, "last_hidden_state") else answer[0]
    return states


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference of entries, relative to the largest entry."""
    return float((one - other).abs().max() / other.abs().max().clamp(min=1e-30))
