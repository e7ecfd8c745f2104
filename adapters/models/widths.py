"""Widths of depth-2 modules outside the tensors: in the configuration where stock classes read them, else in a file beside it.

Stock classes give every block the same widths, and some tie one width to another. `state_widths` puts the widths that they can
build into the configuration; `unstated_widths` lists the others, which `narrow_class` builds when the model is loaded. Biases
that compensation may have added to consumers, and that the stock class does not build, are recorded with them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PretrainedConfig, PreTrainedModel

from gramian.adapters.files import write_json
from gramian.adapters.models.families import FAMILIES
from gramian.adapters.models.stacks import STACKS
from gramian.adapters.models.tasks import stock_class
from gramian.adapters.models.unit_groups import UnitGroup, kinds_of, operator, rearrange, unit_groups_of, width

__all__ = [
    "WIDTHS",
    "Width",
    "narrow_class",
    "read_widths",
    "state_widths",
    "stock_unit_groups",
    "unstated_widths",
    "write_widths",
]

WIDTHS = "gramian_widths.json"
FORMAT = 1


class Width(NamedTuple):
    """Units and groups of a module, and whether its consumer has a bias that the configuration does not give it."""

    units: int
    groups: int
    bias: bool = False


def stock_model(model: PreTrainedModel, edits: Mapping[str, int]) -> PreTrainedModel | None:
    """Build a model of the class and configuration of `model` with `edits`, without memory; None where the class refuses to."""
    config = model.config
    try:
        with torch.device("meta"):
            return type(model)(type(config).from_dict({**config.to_dict(), **edits}))
    except (ValueError, StrictDataclassError):
        return None


def stock_unit_groups(model: PreTrainedModel, edits: Mapping[str, int]) -> dict[str, UnitGroup]:
    """Find the depth-2 modules of `stock_model`; there are none where there is no such model."""
    built = stock_model(model, edits)
    return {} if built is None else unit_groups_of(built)


def state_widths(model: PreTrainedModel) -> None:
    """Make `model.config` state the widths of the model, for each kind of module whose widths stock classes can express.

    Other widths are not stated: the configuration then keeps widths at least as large. Whether a stock class can express
    widths is found out by building it without memory, since some refuse a number of heads that does not divide the hidden size.
    Nor are widths stated of modules with a bias that the stock class does not build: it would load them without the bias,
    which is another model.
    """
    for wanted in kinds_of(unit_groups_of(model).values()):
        if unstated_biases(model, set(wanted)):
            continue
        some = next(iter(wanted.values()))
        for edits in ({}, dict(zip(some.structure.keys, (some.units, some.groups, some.size)))):
            if wanted.items() <= stock_unit_groups(model, edits).items():
                for key, value in edits.items():
                    setattr(model.config, key, value)
                break


def unstated_biases(model: PreTrainedModel, names: Set[str]) -> set[str]:
    """Find those of some consumers that have a bias where the stock class builds none."""
    stock, biased = stock_model(model, {}), {name for name in names if operator(model, name).bias is not None}
    return set() if stock is None else {name for name in biased if operator(stock, name).bias is None}


def unstated_widths(model: PreTrainedModel) -> dict[str, Width]:
    """Find the widths of modules that are narrower than `model.config` states, or have a bias that it does not state, by name.

    ValueError where the configuration describes no model that this one is a narrower form of.
    """
    row = FAMILIES.get(model.config.model_type)
    if model.config.model_type not in STACKS and (row is None or not row.structures):
        return {}
    built, unit_groups, widths = stock_unit_groups(model, {}), unit_groups_of(model), {}
    for name, unit_group in unit_groups.items():
        if name not in built or built[name].size != unit_group.size:
            raise ValueError(
                f"{name} with its {unit_group.units} units of {unit_group.size} is nothing that the configuration describes"
            )
    biased = unstated_biases(model, set(unit_groups))
    for name, unit_group in unit_groups.items():
        if unit_group != built[name] or name in biased:
            narrowed(built[name], unit_group.units, unit_group.groups)
            widths[name] = Width(unit_group.units, unit_group.groups, name in biased)
    return widths


def narrowed(unit_group: UnitGroup, units: int, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """List the first `units` units and `groups` groups of a module; ValueError where it has fewer."""
    chosen = unit_group.resized(units, groups)
    if any((places < 0).any() for places in chosen):
        raise ValueError(
            f"{unit_group.name} has {units} units in {groups} groups, but {unit_group.units} in {unit_group.groups} by the "
            "configuration, which must state no less"
        )
    return chosen


def write_widths(folder: Path, widths: Mapping[str, Width]) -> None:
    """Record widths beside a configuration; where there are none, no file is written."""
    if widths:
        entries = {
            name: {"units": each.units, "groups": each.groups} | ({"bias": True} if each.bias else {})
            for name, each in widths.items()
        }
        write_json(folder / WIDTHS, {"format": FORMAT, "widths": entries})


def read_widths(folder: Path) -> dict[str, Width]:
    """Read what `write_widths` recorded; without its file there are no widths. ValueError for a damaged file."""
    file = folder / WIDTHS
    if not file.exists():
        return {}
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise ValueError(f"{WIDTHS} has format {document['format']!r}, this version of gramian reads {FORMAT}")
        entries = document["widths"].items()
        widths = {name: Width(entry["units"], entry["groups"], entry.get("bias", False)) for name, entry in entries}
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{WIDTHS} is damaged: {type(error).__name__} {error}") from error
    for name, each in widths.items():
        if any(type(number) is not int for number in each[:2]) or type(each.bias) is not bool:
            raise ValueError(f"{WIDTHS} is damaged: widths {tuple(each)} of {name} are not whole numbers")
    return widths


def narrow_class(config: PretrainedConfig, widths: Mapping[str, Width]) -> type[PreTrainedModel]:
    """Derive from the stock class of a configuration one that builds modules of these widths.

    Its `from_pretrained` builds without memory and reads the tensors as they are stored, so nothing wide is ever allocated. The
    models that it builds are instances of the stock class.
    """
    stock: Any = stock_class(config)

    def build(self: Any, config: PretrainedConfig) -> None:
        stock.__init__(self, config)
        unit_groups = unit_groups_of(self)
        for name, each in widths.items():
            if name not in unit_groups:
                raise ValueError(f"{WIDTHS} names {name!r}, which the configuration does not build")
            rearrange(self, unit_groups[name], *narrowed(unit_groups[name], each.units, each.groups))
            module = operator(self, name)
            if each.bias and module.bias is None:
                module.bias = torch.nn.Parameter(module.weight.new_zeros(width(module, "outputs")))
        self.__class__ = stock

    return type(stock.__name__, (stock,), {"__init__": build, "__module__": stock.__module__})
