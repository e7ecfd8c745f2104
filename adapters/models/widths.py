"""Widths of depth-2 modules in the configuration, where stock classes read them, or by layer for classes that build each layer.

Stock classes give every block the same widths, and some tie one width to another. `state_widths` puts the widths that they can
build into the configuration; `unstated_widths` lists the others, which the configuration then states by layer. Biases that
compensation may have added to consumers, and that the stock class does not build, are stated with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedModel

from gramian.adapters.models.own_classes import is_stock, make_stock, stock_config, stock_type
from gramian.adapters.models.uneven import Width, make_uneven
from gramian.adapters.models.unit_groups import believed, structures_of, unit_groups_of
from gramian.adapters.models.units import UnitGroup, kinds_of, operator, owner_of
from gramian.adapters.models.wrapped_operators import plain_operators

__all__ = ["state_widths", "stock_unit_groups", "unstated_widths"]


def stock_model(model: PreTrainedModel, edits: Mapping[str, int]) -> PreTrainedModel | None:
    """Build a model of the stock class and configuration of `model` with `edits`, without memory; None where the class refuses
    to."""
    build: Any = stock_type(type(model))
    try:
        with torch.device("meta"):
            built: PreTrainedModel = build(stock_config(model.config, edits))
            return built
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

    Whether a stock class can express widths is found out by building it without memory, since some refuse a number of heads
    that does not divide the hidden size. Other widths are stated by layer, and the model then is of a class that builds them,
    as are those of modules with a bias that the stock class does not build: it would load them without the bias, which is
    another model. The configuration's own numbers are then widths at least as large.
    """
    make_stock(model)
    state_common(model)
    state_by_layer(model)


def state_by_layer(model: PreTrainedModel) -> None:
    """Let the configuration of a model of a stock class state the widths that the class does not build, layer by layer."""
    try:
        widths = unstated_widths(model)
    except ValueError:  # a model that was changed by hand, as it cannot be saved
        return
    if widths and is_stock(model):
        make_uneven(model, unit_groups_of(model), widths)


def state_common(model: PreTrainedModel) -> None:
    """Let the configuration state the widths that all modules of a kind have in common, where the stock class can build
    them."""
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
    with plain_operators(model):
        return widths_of(model)


def widths_of(model: PreTrainedModel) -> dict[str, Width]:
    """Do what `unstated_widths` does for a model without wrapped operators."""
    if not believed(model) and not unlike_stock(model):
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
