"""Models of uneven widths padded with zeros to widths that stock classes build."""

from __future__ import annotations

import copy
import dataclasses

from transformers import PreTrainedModel

from gramian.adapters.models.unit_groups import remember, unit_groups_of
from gramian.adapters.models.units import UnitGroup, kinds_of, rearrange
from gramian.adapters.models.widths import state_widths, stock_unit_groups, unstated_widths

__all__ = ["padded"]


def padded(model: PreTrainedModel) -> PreTrainedModel:
    """P_u = 0, C_u = 0 for every unit u that is added: build a model of one width per kind of module that computes the same.

    This is exact: a unit adds C_u h(P_u x) to its module, which is 0 whatever h is. The widths are the largest of any block
    where the stock class accepts them, else those that `model.config` states. The given model is unchanged, and returned where
    the stock class builds its widths; tensors outside its depth-2 modules are shared with it. ValueError: an unsupported
    family, a configuration that states less than the model has, a consumer with a bias where the stock class has none, for
    which zeros do not make up.
    """
    widths = unstated_widths(model)  # this raises where there is nothing to pad to
    if not widths:
        return model
    for name, each in widths.items():
        if each.bias:
            raise ValueError(f"{name} has a bias, which {type(model).__name__} cannot have: save it without padding")
    shared = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    twin = copy.deepcopy(model, shared)
    remember(twin, model)
    for kind in kinds_of(unit_groups_of(twin).values()):
        wide = common(twin, kind)
        for name, unit_group in kind.items():
            rearrange(twin, unit_group, *unit_group.resized(wide[name].units, wide[name].groups))
    state_widths(twin)
    for name in unstated_widths(twin):  # shapes fit, but not all that the class computes by
        stated = stock_unit_groups(twin, {})[name]
        unit_group = unit_groups_of(twin)[name]
        rearrange(twin, unit_group, *unit_group.resized(stated.units, stated.groups))
    state_widths(twin)
    return twin


def common(model: PreTrainedModel, kind: dict[str, UnitGroup]) -> dict[str, UnitGroup]:
    """Describe modules of one kind as they are padded: to their largest width, or to a width that the stock class builds."""
    some = next(iter(kind.values()))
    groups = max(unit_group.groups for unit_group in kind.values())
    units = groups * max(unit_group.members for unit_group in kind.values())
    wide = {name: dataclasses.replace(unit_group, units=units, groups=groups) for name, unit_group in kind.items()}
    edits = dict(zip(some.structure.keys, (units, groups, some.size)))
    return wide if wide.items() <= stock_unit_groups(model, edits).items() else stock_unit_groups(model, {})
