"""The configuration of a model from which whole blocks were deleted by hand, such as `del model.model.layers[3]`."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from gramian.adapters.models.block_lists import blocks_of

__all__ = ["config_of_layers", "layer_lists"]


def config_of_layers(model: PreTrainedModel) -> Any:
    """The model's configuration, or a copy that states as many blocks as there are, with what it says of each of them.

    ValueError where it says other things of the blocks that remain than of as many first ones: which of them the model follows
    depends on its class.
    """
    try:
        blocks = list(blocks_of(model))
    except (ValueError, AttributeError):  # nothing is known of its blocks
        return model.config
    stated = model.config.get_text_config()
    lists = layer_lists(stated)
    before = max([stated.num_hidden_layers, *(len(value) for key, value in lists.items() if key.endswith("layer_types"))])
    if len(blocks) > stated.num_hidden_layers or len(blocks) == before:
        return model.config
    if len(blocks) < stated.num_hidden_layers and len(blocks) == built_by(model):
        return model.config
    numbers = [number_of(block) for block in blocks]
    config = deepcopy(model.config)
    text = config.get_text_config()
    for key, value in lists.items():
        if len(value) != before:
            continue
        first = value[: len(blocks)]
        remaining = [None if number is None or number >= before else value[number] for number in numbers]
        if remaining != first and len({str(each) for each in value}) > 1:
            raise ValueError(
                f"the model has {len(blocks)} blocks, and {key} of its configuration has {before} entries, {remaining} for the "
                f"blocks that remain and {first} for the first ones: set model.config.{key} and num_hidden_layers"
            )
        setattr(text, key, first)
    text.num_hidden_layers = len(blocks)
    return config


def layer_lists(config: Any) -> dict[str, list[Any]]:
    """The lists that a configuration has of its layers, by name: with an entry for each of them, or some of their numbers."""
    return {key: value for key, value in config.to_dict().items() if "layer" in key and isinstance(value, list)}


def built_by(model: PreTrainedModel) -> int:
    """How many blocks the model's class builds by its configuration: fewer than layers where these share them, as in ALBERT."""
    build: Any = type(model)
    with torch.device("meta"):
        return len(blocks_of(build(deepcopy(model.config))))


def number_of(block: nn.Module) -> int | None:
    """The number that a block was built with, where its attention knows it."""
    known = (getattr(module, "layer_idx", None) for module in block.modules())
    found = {number for number in known if isinstance(number, int)}
    return found.pop() if len(found) == 1 else None
