"""Widths of depth-2 modules outside the tensors: in the configuration where stock classes read them, else in a file beside it.

Stock classes give every block the same widths, and some tie one width to another. `state_widths` puts the widths that they can
build into the configuration; `unstated_widths` lists the others, which `narrow_class` builds when the model is loaded. Biases
that compensation may have added to consumers, and that the stock class does not build, are recorded with them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PretrainedConfig, PreTrainedModel

from gramian.adapters.files import write_json
from gramian.adapters.models.families import Structure
from gramian.adapters.models.tasks import stock_class
from gramian.adapters.models.unit_groups import believed, structures_of, unit_groups_of
from gramian.adapters.models.units import COUNTED, UnitGroup, kinds_of, operator, owner_of, read_unit_group, rearrange, width

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
FORMAT, FOUND = 1, 2  # FOUND says where units are, which FORMAT leaves to a table


class Width(NamedTuple):
    """Units and groups of a module, whether its consumer has a bias that the configuration does not give it, and where its
    units are, None where a table says so."""

    units: int
    groups: int
    bias: bool = False
    structure: Structure | None = None


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
    try:
        return {} if built is None else unit_groups_of(built, structures_of(model))
    except (ValueError, AttributeError):  # a block, or an operator of one, that it has not
        return {}


def alike(model: PreTrainedModel, edits: Mapping[str, int], wanted: Mapping[str, UnitGroup]) -> bool:
    """Whether `stock_model` has these modules as the model has them: widths, parameters, and what forward methods read."""
    built = stock_model(model, edits)
    if built is None or not wanted.items() <= stock_unit_groups(model, edits).items():
        return False
    if not believed(model) and not same_elsewhere(model, built, wanted):
        return False
    return believed(model) or all(
        settings_of(model, unit_group) == settings_of(built, unit_group) for unit_group in wanted.values()
    )


def same_elsewhere(model: PreTrainedModel, built: PreTrainedModel, wanted: Mapping[str, UnitGroup]) -> bool:
    """Whether two models have the same parameters, by name and shape, but for unit groups that are not wanted."""
    apart = set()
    for name, unit_group in unit_groups_of(model).items():
        if name not in wanted:
            apart |= {name, *(f"{unit_group.block}.{path}" for path, _ in unit_group.structure.producers)}
    here, there = (
        {name: tuple(each.shape) for name, each in one.named_parameters() if name.rpartition(".")[0] not in apart}
        for one in (model, built)
    )
    return here == there


def settings_of(model: PreTrainedModel, unit_group: UnitGroup) -> dict[str, Any]:
    """The numbers of the module that owns a unit group, and the shapes of the model's buffers."""
    owner = owner_of(model, unit_group.block, unit_group.structure)
    if not unit_group.structure.owner:  # the block, of which other modules may have other widths
        return {}
    found: dict[str, Any] = {}
    for name, module in owner.named_modules():
        numbers = {key: each for key, each in vars(module).items() if type(each) in (bool, int, float)}
        found |= {f"{name}.{key}": each for key, each in numbers.items() if key[0] != "_" and key != "training"}
    return found | {name: tuple(each.shape) for name, each in model.named_buffers() if not name.startswith(unit_group.block)}


def state_widths(model: PreTrainedModel) -> None:
    """Make `model.config` state the widths of the model, for each kind of module whose widths stock classes can express.

    Other widths are not stated: the configuration then keeps widths at least as large. Whether a stock class can express
    widths is found out by building it without memory, since some refuse a number of heads that does not divide the hidden size.
    Nor are widths stated of modules with a bias that the stock class does not build: it would load them without the bias,
    which is another model.
    """
    if not believed(model) and not unlike_stock(model):
        return
    for wanted in kinds_of(unit_groups_of(model).values()):
        if unstated_biases(model, set(wanted)):
            continue
        some = next(iter(wanted.values()))
        for edits in ({}, dict(zip(some.structure.keys, (some.units, some.groups, some.size)))):
            if alike(model, edits, wanted):
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
    row = believed(model)
    if not row and not unlike_stock(model):
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
            structure = None if row else unit_group.structure
            widths[name] = Width(unit_group.units, unit_group.groups, name in biased, structure)
    return widths


def unlike_stock(model: PreTrainedModel) -> bool:
    """Whether the model has other parameters than its class builds by its configuration, by name and shape."""
    stock = stock_model(model, {})
    here, there = ({name: tuple(each.shape) for name, each in one.named_parameters()} for one in (model, stock or model))
    return stock is not None and here != there


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
        found = list(dict.fromkeys(each.structure for each in widths.values() if each.structure is not None))
        entries = {
            name: {"units": each.units, "groups": each.groups}
            | ({"bias": True} if each.bias else {})
            | ({} if each.structure is None else {"structure": found.index(each.structure)})
            for name, each in widths.items()
        }
        document: dict[str, Any] = {"format": FORMAT, "widths": entries}
        if found:
            document |= {"format": FOUND, "structures": [asdict(each) for each in found]}
        write_json(folder / WIDTHS, document)


def read_widths(folder: Path) -> dict[str, Width]:
    """Read what `write_widths` recorded; without its file there are no widths. ValueError for a damaged file."""
    file = folder / WIDTHS
    if not file.exists():
        return {}
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if document["format"] not in (FORMAT, FOUND):
            raise ValueError(f"{WIDTHS} has format {document['format']!r}, this version of gramian reads {FORMAT} and {FOUND}")
        entries = document["widths"].items()
        structures = [read_structure(each) for each in document.get("structures", ())]
        widths = {
            name: Width(
                entry["units"],
                entry["groups"],
                entry.get("bias", False),
                structures[entry["structure"]] if "structure" in entry else None,
            )
            for name, entry in entries
        }
    except (KeyError, IndexError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{WIDTHS} is damaged: {type(error).__name__} {error}") from error
    for name, each in widths.items():
        if any(type(number) is not int for number in each[:2]) or type(each.bias) is not bool:
            raise ValueError(f"{WIDTHS} is damaged: widths {tuple(each)} of {name} are not whole numbers")
    return widths


def read_structure(document: Mapping[str, Any]) -> Structure:
    """Read where units are, as `write_widths` wrote it; TypeError for anything else."""
    fields = {name: frozen(value) for name, value in document.items()}
    structure = Structure(**fields)
    texts = [structure.owner, structure.consumer, structure.unit_size or "", structure.activation, structure.groups]
    producers = [text for path, levels in structure.producers for text in (path, *levels)]
    counts = [text for pair in structure.counts or () for text in pair]
    if not all(isinstance(text, str) for text in (*texts, *producers, *structure.keys, *counts)):
        raise TypeError("names of modules and attributes are texts")
    levels = {level for _, levels in structure.producers for level in levels}
    if not levels <= {"unit", "group"} or not {counted for _, counted in structure.counts or ()} <= set(COUNTED):
        raise TypeError(f"rows belong to a unit or a group, and attributes count one of {', '.join(COUNTED)}")
    return structure


def frozen(value: Any) -> Any:
    """Lists as tuples, at every depth."""
    return tuple(frozen(each) for each in value) if isinstance(value, list) else value


def narrow_class(config: PretrainedConfig, widths: Mapping[str, Width], classifier: bool = False) -> type[PreTrainedModel]:
    """Derive from the stock class of a configuration one that builds modules of these widths.

    Its `from_pretrained` builds without memory and reads the tensors as they are stored, so nothing wide is ever allocated. The
    models that it builds are instances of the stock class. classifier: whether what was saved as a classifier is built as one.
    """
    stock: Any = stock_class(config, classifier)

    def build(self: Any, config: PretrainedConfig) -> None:
        stock.__init__(self, config)
        known = unit_groups_of(self) if any(each.structure is None for each in widths.values()) else {}
        for stored, each in widths.items():
            name = placed(self, stored)
            unit_group = known.get(name) if each.structure is None else recorded(self, name, each.structure)
            if unit_group is None:
                raise ValueError(f"{WIDTHS} names {stored!r}, which the configuration does not build")
            rearrange(self, unit_group, *narrowed(unit_group, each.units, each.groups))
            module = operator(self, name)
            if each.bias and module.bias is None:
                module.bias = torch.nn.Parameter(module.weight.new_zeros(width(module, "outputs")))
        self.__class__ = stock

    return type(stock.__name__, (stock,), {"__init__": build, "__module__": stock.__module__})


def placed(model: PreTrainedModel, name: str) -> str:
    """The name of a module that was recorded of an encoder alone, or of one beside a head, in the other of these."""
    inside = f"{model.base_model_prefix}."
    known = dict(model.named_modules())
    return next((each for each in (name, name.removeprefix(inside), inside + name) if each in known), name)


def recorded(model: PreTrainedModel, name: str, structure: Structure) -> UnitGroup | None:
    """Read a unit group where the record says that it is; None where the model has none there."""
    block = name.removesuffix(f".{structure.consumer}")
    try:
        unit_group = read_unit_group(model, block, structure)
    except AttributeError:
        return None
    return unit_group if unit_group.name == name else None
