"""Widths of depth-2 modules outside the tensors: in the configuration where stock classes read them, else in a file beside it.

Stock classes give every block the same widths, and some tie one width to another. `state_widths` puts into the
configuration what they can build; `unstated_widths` is the rest, which `narrow_class` builds when the model is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PretrainedConfig, PreTrainedModel

from gramian.adapters.atomic import write_json
from gramian.adapters.families import FAMILIES, family_of
from gramian.adapters.structure import Part, parts_of, rearrange

__all__ = ["WIDTHS", "narrow_class", "read_widths", "state_widths", "stock_parts", "unstated_widths", "write_widths"]

WIDTHS = "gramian_widths.json"
FORMAT = 1


def stock_parts(model: PreTrainedModel, edits: Mapping[str, int]) -> dict[str, Part]:
    """The depth-2 modules that the class of a model builds by its configuration with `edits`; none where it refuses to."""
    config = model.config
    try:
        with torch.device("meta"):
            return parts_of(type(model)(type(config).from_dict({**config.to_dict(), **edits})))
    except (ValueError, StrictDataclassError):
        return {}


def state_widths(model: PreTrainedModel) -> None:
    """Make `model.config` state the widths of the model, for each kind of module whose widths stock classes can express.

    What they cannot stays as it was: the configuration then states widths at least as large. The stock class itself is
    asked, by building it without memory: some refuse a number of heads that does not divide the hidden size.
    """
    parts = parts_of(model)
    for structure in family_of(model).structures:
        wanted = {name: part for name, part in parts.items() if part.structure == structure}
        some = next(iter(wanted.values()))
        for edits in ({}, dict(zip(structure.keys, (some.units, some.groups, some.size)))):
            if wanted.items() <= stock_parts(model, edits).items():
                for key, value in edits.items():
                    setattr(model.config, key, value)
                break


def unstated_widths(model: PreTrainedModel) -> dict[str, tuple[int, int]]:
    """Units and groups of the modules that are narrower than `model.config` states, by name.

    ValueError when the configuration describes no model that this one is a narrower form of.
    """
    if model.config.model_type not in FAMILIES or not family_of(model).structures:
        return {}
    built = stock_parts(model, {})
    widths = {}
    for name, part in parts_of(model).items():
        if name not in built or built[name].size != part.size:
            raise ValueError(f"{name} with its {part.units} units of {part.size} is nothing that the configuration describes")
        if part != built[name]:
            narrowed(built[name], part.units, part.groups)
            widths[name] = (part.units, part.groups)
    return widths


def narrowed(part: Part, units: int, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """The first units and groups of a module, so many; ValueError where it has fewer."""
    chosen = part.resized(units, groups)
    if any((places < 0).any() for places in chosen):
        raise ValueError(
            f"{part.name} has {units} units in {groups} groups, but {part.units} in {part.groups} by the configuration, "
            "which must state no less"
        )
    return chosen


def write_widths(folder: Path, widths: Mapping[str, tuple[int, int]]) -> None:
    """Record widths (units and groups by module) beside a configuration; where there are none, no file."""
    if widths:
        entries = {name: {"units": units, "groups": groups} for name, (units, groups) in widths.items()}
        write_json(folder / WIDTHS, {"format": FORMAT, "widths": entries})


def read_widths(folder: Path) -> dict[str, tuple[int, int]]:
    """What `write_widths` recorded, none without its file. ValueError for a damaged one."""
    file = folder / WIDTHS
    if not file.exists():
        return {}
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise ValueError(f"{WIDTHS} has format {document['format']!r}, this version of gramian reads {FORMAT}")
        widths = {name: (entry["units"], entry["groups"]) for name, entry in document["widths"].items()}
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{WIDTHS} is damaged: {type(error).__name__} {error}") from error
    for name, pair in widths.items():
        if any(type(number) is not int for number in pair):
            raise ValueError(f"{WIDTHS} is damaged: widths {pair} of {name} are not whole numbers")
    return widths


def narrow_class(config: PretrainedConfig, widths: Mapping[str, tuple[int, int]]) -> type[PreTrainedModel]:
    """The stock class of a configuration, building models of these widths where they are given.

    `from_pretrained` of it builds without memory and reads the tensors as recorded, so nothing wide is ever allocated. The
    models it builds are instances of the stock class.
    """
    stock: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]

    def build(self: Any, config: PretrainedConfig) -> None:
        stock.__init__(self, config)
        parts = parts_of(self)
        for name, (units, groups) in widths.items():
            if name not in parts:
                raise ValueError(f"{WIDTHS} names {name!r}, which the configuration does not build")
            rearrange(self, parts[name], *narrowed(parts[name], units, groups))
        self.__class__ = stock

    return type(stock.__name__, (stock,), {"__init__": build, "__module__": stock.__module__})
