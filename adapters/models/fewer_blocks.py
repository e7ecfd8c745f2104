"""Whole blocks cut out of a model: its list of blocks, the numbers that blocks know, and what its configuration says of them.

A configuration states the blocks that remain by their number, by lists with an entry for every block (`layer_types`,
`no_rope_layers`), by lists of numbers of blocks (`mlp_only_layers`) and by counts from the first one
(`first_k_dense_replace`). What was rewritten is believed only where the model's class builds the very blocks that remain by it,
as it will when the model is loaded: the same modules, shapes and flags, in the same order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from gramian.adapters.models.block_lists import blocks_of, blocks_path
from gramian.adapters.models.remaining_layers import layer_lists

__all__ = ["Cut", "cut_blocks", "stated_blocks"]

NUMBER = re.compile(r"(layer|block|decoder_layer)_(idx|index|id|number|num)|idx")  # attributes that hold a block's own number
COUNTS = ("first_k_dense_replace", "max_window_layers")  # how many of the first blocks are of one kind
STATES = ("training", "gradient_checkpointing")  # flags that say how a module is run, not what it is
Plain = bool | int | float | str | None


@dataclass(frozen=True, eq=False)
class Stated:
    """How the blocks that remain are stated. settings: of the configuration. built: the model that its class builds by them, on
    the meta device."""

    settings: Mapping[str, Any]
    built: nn.Module


@dataclass(eq=False)
class Cut:
    """A model without some of its blocks, and the way back.

    before: attributes as they were, by their owner and name. blocks: the list, and all that was in it."""

    blocks: nn.ModuleList
    present: list[nn.Module]
    before: list[tuple[Any, str, Any]] = field(default_factory=list)

    def change(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute and remember what it was."""
        self.before.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    def undo(self) -> None:
        """Give the model its blocks back."""
        fill(self.blocks, self.present)
        for owner, name, value in reversed(self.before):
            setattr(owner, name, value)


def stated_blocks(model: PreTrainedModel, kept: Sequence[int]) -> Stated:
    """Find the settings of the configuration by which the model's class builds the blocks that remain. kept: their numbers, in
    ascending order.

    ValueError, naming the block or what the configuration says, where no settings that are known of do that.
    """
    reason = ""
    for settings in readings(model.config.get_text_config(), kept):
        config = deepcopy(model.config)
        try:
            apply(config.get_text_config(), settings)
            config = type(config).from_dict(config.to_dict())  # as it will be read from its file
            build: Any = type(model)
            with torch.device("meta"):
                built = build(config)
        except Exception as error:  # checks of stock configurations raise anything
            reason = f"its configuration refuses what is left ({(str(error).splitlines() or [''])[0][:200]})"
            continue
        reason = mismatch(model, built, kept)
        if not reason:
            return Stated(settings, built)
    gone = sorted(set(range(len(blocks_of(model)))) - set(kept))
    which = f"block {gone[0]}" if len(gone) == 1 else f"blocks {', '.join(map(str, gone))}"
    raise ValueError(f"the configuration of {type(model).__name__} cannot state it without {which}: {reason}")


def cut_blocks(model: PreTrainedModel, kept: Sequence[int]) -> Cut:
    """Cut a model to some of its blocks, in place, with configuration, numbers of blocks and all, so that it runs with a cache
    at once and what is saved loads with stock classes. Errors, after which the model is unchanged, are those of
    `stated_blocks`."""
    stated = stated_blocks(model, kept)
    blocks = blocks_of(model)
    cut = Cut(blocks, list(blocks))
    for config in configs_of(model):
        for name, value in stated.settings.items():
            cut.change(config, name, deepcopy(value))
    fill(blocks, [cut.present[number] for number in kept])
    prefix = f"{blocks_path(model)}."
    fresh = dict(stated.built.named_modules())
    for name, module in model.named_modules():
        if name not in fresh:
            continue
        for key, value in plain_attributes(fresh[name]).items():
            counts = not name.startswith(prefix) and type(value) is int
            if (NUMBER.fullmatch(key) or counts) and getattr(module, key, value) != value:
                cut.change(module, key, value)
    return cut


def readings(config: Any, kept: Sequence[int]) -> Iterator[dict[str, Any]]:
    """What a configuration can say of the blocks that remain: where a list may be one of entries or one of numbers, both."""
    count = config.num_hidden_layers
    choices: dict[str, list[Any]] = {}
    for key, value in layer_lists(config).items():
        each = [[value[number] for number in kept]] if len(value) == count else []
        if all(type(number) is int for number in value) and sorted(set(value)) == value and not set(value) - set(range(count)):
            each.append([kept.index(number) for number in value if number in kept])
        if each:
            choices[key] = each
    said = config.to_dict()
    for key, value in said.items():
        if isinstance(value, str) and "pattern" in key and len(value) == count:
            choices[key] = ["".join(value[number] for number in kept)]
        elif (runs := expanded(value)) is not None and len(runs) == count:  # GPT-Neo: [[["global", "local"], 12]]
            choices[key] = [[[[runs[number] for number in kept], 1]]]
    for key in COUNTS:
        if isinstance(said.get(key), int):
            choices[key] = [sum(number < said[key] for number in kept)]
    if isinstance(step := said.get("decoder_sparse_step"), int) and step > 1:  # dense blocks are listed instead
        listed = set(said.get("mlp_only_layers") or [])
        dense = [place for place, number in enumerate(kept) if number in listed or (number + 1) % step]
        choices |= {"decoder_sparse_step": [1], "mlp_only_layers": [dense]}
    for values in product(*choices.values()):
        yield {**dict(zip(choices, values)), "num_hidden_layers": len(kept)}


def expanded(value: Any) -> list[Any] | None:
    """The entries of runs [[entries, times], ...]; None for anything else."""
    if not (isinstance(value, list) and value):
        return None
    if not all(isinstance(run, list | tuple) and len(run) == 2 and isinstance(run[0], list) for run in value):
        return None
    return [entry for entries, times in value for _ in range(times) for entry in entries]


def apply(config: PretrainedConfig, settings: Mapping[str, Any]) -> None:
    """Set what is stated."""
    for name, value in settings.items():
        setattr(config, name, deepcopy(value))


def configs_of(model: PreTrainedModel) -> list[Any]:
    """The configurations that parts of a model hold of its blocks: one object as a rule, and copies of it."""
    text = model.config.get_text_config()
    found: dict[int, Any] = {id(text): text}
    for module in model.modules():
        config = getattr(module, "config", None)
        if type(config) is type(text):
            found[id(config)] = config
    return list(found.values())


def mismatch(model: PreTrainedModel, built: Any, kept: Sequence[int]) -> str:
    """What differs between the blocks that remain and those that a class builds, or outside the blocks; empty where nothing."""
    path = blocks_path(model)
    blocks, fresh = blocks_of(model), built.get_submodule(path)
    if len(fresh) != len(kept):
        return f"{len(fresh)} blocks are built by it, and {len(kept)} remain"
    inside = f"{path}."
    shapes, expected = (
        {name: tuple(each.shape) for name, each in whole.named_parameters() if not name.startswith(inside)}
        for whole in (model, built)
    )
    for name in shapes:
        if name in expected and shapes[name] != expected[name]:
            return f"{name} is {shapes[name]}, and would be {expected[name]}"
    for place, number in enumerate(kept):
        if reason := unlike(blocks[number], fresh[place]):
            return f"{path}.{number} would be built as number {place}, where {reason}"
    return ""


def unlike(block: nn.Module, fresh: nn.Module) -> str:
    """What differs between two blocks: modules, shapes, or plain attributes other than their number; empty where nothing."""
    mine, theirs = dict(block.named_modules()), dict(fresh.named_modules())
    if other := mine.keys() ^ theirs.keys():
        return f"{min(other)} would be {'missing' if min(other) in mine else 'new'}"
    for name, module in mine.items():
        if type(module) is not type(theirs[name]):
            return f"{name} would be a {type(theirs[name]).__name__}"
        for leaf, parameter in module.named_parameters(recurse=False):
            shape = getattr(getattr(theirs[name], leaf, None), "shape", None)
            if shape != parameter.shape:
                return f"{name}.{leaf} would have another shape".removeprefix(".")
        attributes, others = plain_attributes(module), plain_attributes(theirs[name])
        for key in attributes.keys() & others.keys():
            if not NUMBER.fullmatch(key) and attributes[key] != others[key]:
                return f"{name}.{key} is {attributes[key]!r} and would be {others[key]!r}".removeprefix(".")
    return ""


def plain_attributes(module: nn.Module) -> dict[str, Plain]:
    """The attributes of a module that are flags, numbers or words."""
    return {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, Plain) and not key.startswith("_") and key not in STATES
    }


def fill(blocks: nn.ModuleList, modules: Sequence[nn.Module]) -> None:
    """Let a list of blocks hold these, in order."""
    blocks._modules.clear()
    for number, module in enumerate(modules):
        blocks._modules[str(number)] = module
