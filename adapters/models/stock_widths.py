"""Which equal widths the stock class of a model builds, found out by building it without memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import nn
from transformers import PreTrainedModel

from gramian.adapters.models.unit_groups import unit_groups_of
from gramian.adapters.models.units import UnitGroup
from gramian.adapters.models.widths import stock_model, stock_unit_groups

__all__ = ["stock_class_builds"]


def stock_class_builds(model: PreTrainedModel, kind: Mapping[str, UnitGroup], units: int, groups: int) -> bool:
    """Whether the class of a model builds all modules of a kind, by the full names of their consumers, with these units and
    groups, and everything that is no such module as the model has it.

    Some classes state widths nowhere; some tie the number of heads to the hidden size, or have it divide that."""
    some = next(iter(kind.values()))
    edits = dict(zip(some.structure.keys, (units, groups, some.size)))
    built = stock_model(model, edits) if edits else None
    if built is None:
        return False
    wanted = {name: replace(each, units=units, groups=groups) for name, each in kind.items()}
    here, there = elsewhere(model, model), elsewhere(built, model)
    found = stock_unit_groups(model, edits)
    return wanted.items() <= found.items() and here.items() <= there.items()


def elsewhere(model: nn.Module, known: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shapes of a model's parameters by name, but for those of operators of depth-2 modules, which `known` names."""
    apart = set()
    for name, unit_group in unit_groups_of(known).items():
        apart |= {name, *(f"{unit_group.block}.{path}" for path, _ in unit_group.structure.producers)}
    found = {name: tuple(each.shape) for name, each in model.named_parameters()}
    return {name: shape for name, shape in found.items() if name.rpartition(".")[0] not in apart}
