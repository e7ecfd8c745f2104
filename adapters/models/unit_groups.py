"""The depth-2 modules of a model: those of its row in a table, else those that are found in its blocks and proven."""

from __future__ import annotations

from collections.abc import Mapping
from weakref import WeakKeyDictionary

from torch import nn

from gramian.adapters.models.block_lists import block_lists, block_names
from gramian.adapters.models.discovery import operator_names
from gramian.adapters.models.families import FAMILIES, SHIPPED, Structure, chosen_names
from gramian.adapters.models.rehearsal import Proven, rehearsed
from gramian.adapters.models.stacks import STACKS, blocks_in, follows_pruned, stacks_of
from gramian.adapters.models.units import UnitGroup, read_unit_group

__all__ = ["believed", "consumer_names", "proven_of", "refused_of", "remember", "structures_of", "unit_groups_of"]

PROVEN: WeakKeyDictionary[nn.Module, Proven] = WeakKeyDictionary()  # what is found once; it holds for narrower models too


def unit_groups_of(model: nn.Module, structures: Mapping[str, tuple[Structure, ...]] | None = None) -> dict[str, UnitGroup]:
    """Find the depth-2 modules of a model by the full names of their consumers, in order.

    structures: by the full names of blocks, those of a model of other widths; the model's own if not given. ValueError where
    operators do not fit together, and for a model in which no units can be removed.
    """
    unit_groups: dict[str, UnitGroup] = {}
    for block, found in (structures_of(model) if structures is None else structures).items():
        for structure in found:
            unit_group = read_unit_group(model, block, structure)
            unit_groups[unit_group.name] = unit_group
    return unit_groups


def believed(model: nn.Module) -> bool:
    """Whether a table says where the units of a model are, in a row that came with it."""
    model_type = type_of(model)
    row = FAMILIES.get(model_type)
    return model_type in STACKS or (row is not None and row.structures == getattr(SHIPPED.get(model_type), "structures", None))


def type_of(model: nn.Module) -> str:
    """The type of a model, empty where it has none."""
    return str(getattr(getattr(model, "config", None), "model_type", ""))


def rows_of(model: nn.Module) -> dict[str, tuple[Structure, ...]] | None:
    """What a table says of every block, by its full name; None where it says nothing."""
    model_type = type_of(model)
    row = FAMILIES.get(model_type)
    if model_type not in STACKS and (row is None or not row.structures):
        return None
    structures = {stack.blocks: stack.structures for stack in stacks_of(model)}
    return {block: structures[block.rpartition(".")[0]] for block in blocks_in(model)}


def structures_of(model: nn.Module) -> Mapping[str, tuple[Structure, ...]]:
    """Find the depth-2 modules of every block by its full name. ValueError for a model of which none are proven."""
    if believed(model):
        return rows_of(model) or {}
    proven = proven_of(model)
    if not any(proven.structures.values()):
        first: dict[str, str] = {}  # one name for each reason
        for name, reason in proven.refused.items():
            first.setdefault(reason, name)
        reasons = "; ".join(f"{name}: {reason}" for reason, name in first.items())
        raise ValueError(f"no units of {type(model).__name__} can be removed" + (f": {reasons}" if reasons else ""))
    return proven.structures


def refused_of(model: nn.Module) -> Mapping[str, str]:
    """Say of every consumer whose units cannot be removed why that is."""
    return {} if believed(model) else proven_of(model).refused


def proven_of(model: nn.Module) -> Proven:
    """Find and prove the depth-2 modules of a model, once, and again where blocks were removed or a table was changed."""
    known, rows = PROVEN.get(model), rows_of(model)
    if known is None or known.rows != rows or tuple(known.structures) != block_names(model):
        lists = {path: model.get_submodule(path) for path in block_lists(model)}
        known = PROVEN[model] = rehearsed(model, lists, rows)  # type: ignore[arg-type]
    return known


def remember(copy: nn.Module, model: nn.Module) -> None:
    """Let what was proven of a model hold for a copy of it."""
    if model in PROVEN:
        PROVEN[copy] = PROVEN[model]


def consumer_names(
    model: nn.Module, unit_groups: Mapping[str, UnitGroup], include: str | None, exclude: str | None
) -> list[str]:
    """List the consumers that `include` matches and `exclude` does not. Errors are those of `operator_names`."""
    if follows_pruned(model):
        return [name for name in operator_names(model, include, exclude) if name in unit_groups]
    return chosen_names(list(unit_groups), include, exclude)
