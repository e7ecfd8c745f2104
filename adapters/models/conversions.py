"""Names that weights have on disk and in the model, where they differ: transformers' own map, applied to one tensor at a time.

Experts, for instance, are apart on disk (`experts.0.gate_proj.weight`, ...) and packed in the model (`experts.gate_up_proj`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
    revert_weight_conversion,
)

__all__ = ["Conversions"]


@dataclass(frozen=True)
class Source:
    """What a tensor of the model is made of.

    transform: the library's, by which it is made. keys: the names on disk in order, each with the pattern that it matches.
    first: the tensor of the model by which the transform calls its answer.
    """

    transform: Any
    keys: list[tuple[str, str]]
    first: str


class Conversions:
    """Which tensors of a checkpoint a model's are made of, and how they are written again.

    sources: by the model's name, of those that are not simply stored under it, with or without the model's prefix. keys: of the
    checkpoint, that they are made of. The library's reverse map writes them, by the entries that were used here.
    """

    def __init__(self, model: PreTrainedModel, stored: Collection[str]) -> None:
        self.model = model
        self.sources: dict[str, Source] = {}
        transforms = get_model_conversion_mapping(model)
        renamings = [each for each in transforms if isinstance(each, WeightRenaming)]
        converters = [each for each in transforms if isinstance(each, WeightConverter)]
        by_pattern = {pattern: each for each in converters for pattern in each.source_patterns}
        expected, prefix = model.state_dict(), model.base_model_prefix
        for key in sorted(stored, key=dot_natural_key):
            name, pattern = rename_source_key(key, renamings, converters, prefix, expected)
            if name not in expected or name in (key, f"{prefix}.{key}", key.removeprefix(f"{prefix}.")):
                continue
            transform = WeightRenaming(key, name) if pattern is None else by_pattern[pattern]
            source = self.sources.setdefault(name, Source(transform, [], name))
            source.keys.append((pattern or key, key))
            for target in transform.target_patterns[1:]:  # of one that makes several tensors
                self.sources.setdefault(name.replace(transform.target_patterns[0], target), source)
        vars(model)["_weight_conversions"] = [each for each in transforms if each.was_used()]

    @property
    def keys(self) -> set[str]:
        """The names on disk of all that is converted."""
        return {key for source in self.sources.values() for _, key in source.keys}

    def value(self, name: str, read: Callable[[str], torch.Tensor]) -> torch.Tensor:
        """Make one tensor of the model. read: gives a tensor of the checkpoint."""
        source = self.sources[name]
        transform = deepcopy(source.transform)
        for pattern, key in source.keys:
            transform.add_tensor(source.first, key, pattern, read(key))
        found = transform.convert(source.first, model=self.model, config=self.model.config)[name]
        value: torch.Tensor = found[0] if isinstance(found, list) else found
        return value

    def stored(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The tensors of the model as they are on disk: under which names, and whether together or apart."""
        if not self.sources:
            return dict(tensors)
        found: dict[str, torch.Tensor] = revert_weight_conversion(self.model, dict(tensors))
        return found
