"""Which proposed depth-2 modules are what they seem: on a copy, to remove units is the same as to zero them.

The copy runs the model's own code in the model's own shapes, but its weights are drawn at random, biases and gains of norms
with them: zero biases, unit gains and zeroed weights would prove nothing. Of every kind of block one is copied, the others
pass on what enters them, and a short window of random vectors enters in place of embedded tokens. A unit group is proven when,
for several choices of units, the block computes the same with the units' columns of the consumer zeroed as with the units cut
out, and the narrow model the same with a cache as without.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from gramian.adapters.models.discovery import Calls, is_operator, noted
from gramian.adapters.models.families import Structure
from gramian.adapters.models.proposals import Proposal, proposals
from gramian.adapters.models.stand_ins import kind_of_block
from gramian.adapters.models.tasks import trunk_of
from gramian.adapters.models.units import UnitGroup, axis, operator, read_unit_group, rearrange, width

__all__ = ["Proven", "rehearsed"]

LENGTH, CACHED = 10, 6  # vectors of the window, and how many of them enter before the cache is used
TOLERANCE = 1e-3  # of float32, relative to the block's output; what is wrong is wrong by more than a hundredth


@dataclass(frozen=True)
class Proven:
    """What can be removed. structures: by the full name of every block. refused: why not, by the full name of a consumer. rows:
    what a table says of every block, which was to be proven; None where it was proposed."""

    structures: Mapping[str, tuple[Structure, ...]]
    refused: Mapping[str, str]
    rows: Mapping[str, tuple[Structure, ...]] | None = None


@torch.no_grad()
def rehearsed(
    model: PreTrainedModel, lists: Mapping[str, nn.ModuleList], rows: Mapping[str, tuple[Structure, ...]] | None = None
) -> Proven:
    """Prove or refuse the depth-2 modules of every block, those of rows or else those that are proposed. lists: lists of blocks
    by their full names. rows: depth-2 modules by the full names of blocks.

    ValueError: a model that cannot be run for it.
    """
    kinds: dict[Any, list[str]] = {}
    for path, blocks in lists.items():
        for index, block in enumerate(blocks):
            kinds.setdefault((path, kind_of_block(block)), []).append(f"{path}.{index}")
    stage = Stage(model, [names[0] for names in kinds.values()], {name: names[0] for names in kinds.values() for name in names})
    try:
        stages = stage.stages()
    except Exception as error:  # stock code raises anything
        raise ValueError(
            f"units of {type(model).__name__} cannot be found: a short window does not run through it ({first_line(error)})"
        ) from error
    cached, shared = stage.agrees_with_cache(), shared_weights(model)
    structures: dict[str, tuple[Structure, ...]] = {}
    refused: dict[str, str] = {}
    for (path, _), names in kinds.items():
        found: list[Structure] = []
        guesses = proposals(stage.block(names[0]), stages[names[0]], model.config.get_text_config(), path)
        if rows is not None:
            guesses = [Proposal(each.consumer, "heads" if each.unit_size else "channels", (each,)) for each in rows[names[0]]]
        for proposal in guesses:
            form, reason = stage.first_proven(names[0], proposal, cached)
            paths = [proposal.consumer, *(path for path, _ in form.producers)] if form else []
            if twice := sorted({f"{name}.{path}" for name in names for path in paths} & shared):
                form, reason = None, f"{proposal.kind} cannot be removed: {twice[0]} has weights that are used elsewhere too"
            if form is not None:
                found.append(form)
            else:
                refused |= {f"{name}.{proposal.consumer}": reason for name in names}
        structures |= dict.fromkeys(names, tuple(found))
    return Proven({name: structures[name] for path, blocks in lists.items() for name in names_in(path, blocks)}, refused, rows)


def shared_weights(model: nn.Module) -> set[str]:
    """The full names of modules whose weights have another name too."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name.rpartition(".")[0])
    return {name for each in names.values() if len(each) > 1 for name in each}


def names_in(path: str, blocks: nn.ModuleList) -> list[str]:
    """The full names of the blocks of a list."""
    return [f"{path}.{index}" for index in range(len(blocks))]


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
        size = model.get_input_embeddings().embedding_dim
        self.windows = [torch.randn(1, LENGTH, size, generator=self.generator) for _ in range(2)]

    def cast(self, model: PreTrainedModel, played: Sequence[str], blocks: Mapping[str, str]) -> dict[int, Any]:
        """What the copy has in place of every tensor, by its identity: in blocks that run, and outside all blocks, random ones
        in float32 on the CPU; else, and for what nothing reads, the model's own."""
        chosen: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        kept = {id(tensor) for name in blocks if name not in played for tensor in model.get_submodule(name).parameters()}
        kept |= {id(tensor) for tensor in model.get_input_embeddings().parameters()}
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

    def block(self, name: str) -> nn.Module:
        """A block."""
        module: nn.Module = self.model.get_submodule(name)
        return module

    def recorder(self, name: str) -> Callable[..., None]:
        """A hook that notes what a block answers, for itself and for blocks of its kind."""

        def note(module: nn.Module, arguments: Any, answer: Any) -> None:
            self.answers[name] = answer

        return note

    def bystander(self, actor: str) -> Callable[..., Any]:
        """A forward method that passes on what enters, in the form in which a block of the same kind has answered."""

        def passing(*arguments: Any, **keywords: Any) -> Any:
            states, answer = arguments[0] if arguments else keywords["hidden_states"], self.answers[actor]
            return (states, *answer[1:]) if isinstance(answer, tuple) else states

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

    def first_proven(self, name: str, proposal: Proposal, cached: bool) -> tuple[Structure | None, str]:
        """Find the first form of a proposal that is proven, else the reason why there is none."""
        reasons = []
        for form in proposal.forms:
            reason = self.tried(name, form, cached)
            if reason is None:
                return form, ""
            reasons.append(reason)
        if not reasons:
            return None, f"{proposal.kind} cannot be removed: its operators are in none of the forms that are known"
        return None, f"{proposal.kind} cannot be removed: {spanning(self.block(name), proposal.forms[0]) or reasons[0]}"

    def tried(self, name: str, form: Structure, cached: bool) -> str | None:
        """Remove units of one block; None where that is the same as to zero them, else what happened."""
        try:
            unit_group = read_unit_group(self.model, name, form)
        except ValueError as error:
            return str(error)
        for units, groups in choices(unit_group):
            with Understudy(self, name) as dense:
                masked = dense.with_columns_zeroed(unit_group, units)
            if difference(masked, dense.output) < TOLERANCE:
                return f"zeroing columns of {form.consumer} changes nothing"
            with Understudy(self, name) as narrow:
                try:
                    rearrange(self.model, unit_group, units, groups)
                    whole = self.run()
                    apart = difference(self.answer(name), masked)
                    drift = difference(self.run_cached(), whole) if cached else 0.0
                except Exception as error:  # stock code raises anything
                    return f"its forward pass fails on fewer of them ({first_line(error)})"
            del narrow
            if not apart < TOLERANCE:
                return f"cut out and zeroed they differ, by {apart:.2g} of its output"
            if not drift < TOLERANCE:
                return f"once some are cut out, a cache changes what it computes, by {drift:.2g}"
        return None

    def answer(self, name: str) -> torch.Tensor:
        """The hidden states that a block has answered."""
        answer = self.answers[name]
        states: torch.Tensor = answer[0] if isinstance(answer, tuple) else answer
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


def choices(unit_group: UnitGroup) -> list[tuple[np.ndarray, np.ndarray]]:
    """Some units and groups to keep: about half of the groups, twice, and one unit less of every group."""
    random, found = np.random.default_rng(0), []
    for part in (2, 3) if unit_group.groups > 1 else ():
        groups = np.sort(random.permutation(unit_group.groups)[: max(1, unit_group.groups // part)])
        found.append((unit_group.of_groups(groups), groups))
    if unit_group.members > 1:
        flags = np.ones((unit_group.groups, unit_group.members), dtype=bool)
        flags[np.arange(unit_group.groups), random.integers(unit_group.members, size=unit_group.groups)] = False
        found.append((np.flatnonzero(flags), np.arange(unit_group.groups)))
    return found


def spanning(block: nn.Module, form: Structure) -> str:
    """Say which parameters beside the operators there are for every unit, so that units are not independent; empty where none
    are found."""
    owner = block.get_submodule(form.owner)
    if form.unit_size is None:
        return ""
    operators = {f"{path}." for path, _ in form.producers} | {f"{form.consumer}."}
    counts = {width_at(block, path) for path, _ in form.producers} | {width_at(block, form.consumer, "inputs")}
    for name, parameter in owner.named_parameters():
        path = f"{form.owner}.{name}".removeprefix(".")
        if not path.startswith(tuple(operators)) and parameter.numel() in counts:
            return f"{path.rpartition('.')[0]} spans all heads of a projection"
    for name, module in owner.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) > 1:
            return f"{form.owner}.{name} has a part for every head".removeprefix(".")
    return ""


def width_at(block: nn.Module, path: str, side: Any = "outputs") -> int:
    """The inputs or outputs of an operator."""
    module: Any = block.get_submodule(path)
    return width(module, side)


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


def first_line(error: Exception) -> str:
    """The first line of what was raised."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
