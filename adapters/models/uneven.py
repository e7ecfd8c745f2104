"""Models whose layers have widths of their own: what `config.json` states of them.

Stock classes give every layer the same widths. `modeling_gramian.py` derives classes from them that do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from transformers import PretrainedConfig, PreTrainedModel

from gramian.adapters.models.block_lists import block_lists, walks_by_block
from gramian.adapters.models.families import Structure
from gramian.adapters.models.own_classes import check_ours, make_own
from gramian.adapters.models.units import COUNTS, UnitGroup, owner_of

__all__ = ["Width", "check_units", "make_uneven"]

HEADS, CHANNELS = ("num_attention_heads", "num_key_value_heads"), ("intermediate_size",)


class Width(NamedTuple):
    """Units and groups of a module, and whether its consumer has a bias that the stock class does not give it."""

    units: int
    groups: int
    bias: bool = False


def make_uneven(model: PreTrainedModel, unit_groups: Mapping[str, UnitGroup], widths: Mapping[str, Width]) -> None:
    """Give a model of a stock class, in place, the class that builds the widths that it has, and a configuration that states
    them. What it computes is unchanged, and `save_pretrained` then writes a directory that loads.

    unit_groups: its depth-2 modules by name. widths: those of them that the stock class does not build. ValueError for a model
    of no class of the library.
    """
    check_ours(model, "layers of different widths", "pad it, or prune it to equal widths")
    stated, by_layer = described(model, unit_groups, widths)
    make_own(model)
    own: Any = model.config
    own.uneven_units = stated
    if by_layer:
        own.per_layer_config = by_layer


def described(
    model: PreTrainedModel, unit_groups: Mapping[str, UnitGroup], widths: Mapping[str, Width]
) -> tuple[list[dict[str, Any]], dict[int, dict[str, int]]]:
    """Say where units are whose widths differ by layer, and how many each layer has, by setting of the layer. A width that is
    no setting of a layer stands in a list where the units are described."""
    found: dict[tuple[str, Structure, int], dict[int, UnitGroup]] = {}
    for unit_group in unit_groups.values():
        path, _, index = unit_group.block.rpartition(".")
        found.setdefault((path, unit_group.structure, unit_group.size), {})[int(index)] = unit_group
    stated: list[dict[str, Any]] = []
    by_layer: dict[int, dict[str, int]] = {}
    prefix = next(f"{name}." if name else "" for name, module in model.named_modules() if module is model.base_model)
    for (path, structure, size), members in found.items():
        if not any(each.name in widths for each in members.values()):
            continue
        if not path.startswith(prefix):
            raise ValueError(f"{path} of {type(model).__name__} is not a part of its {prefix[:-1]}, which other classes share")
        count, some = len(model.get_submodule(path)), next(iter(members.values()))  # type: ignore[arg-type]
        owner = owner_of(model, some.block, structure)
        counts = [each for each in COUNTS if hasattr(owner, each[0])] if structure.counts is None else structure.counts
        entry: dict[str, Any] = {
            "blocks": path.removeprefix(prefix),
            "producers": {name: " ".join(levels) for name, levels in structure.producers},
            "consumer": structure.consumer,
            "owner": structure.owner,
            "counts": dict(counts),
            "size": size,
        }
        keys = keys_of(structure, members)
        taken = any(key in each for key in keys for each in by_layer.values())
        settings = states_layers(model, path) and len(members) == count and not taken
        for level, key in zip(("units", "groups"), keys):
            numbers: list[Any] = [getattr(members[index], level) if index in members else None for index in range(count)]
            entry[level] = key if settings else numbers
            for layer, number in enumerate(numbers if settings else ()):
                by_layer.setdefault(layer, {})[key] = number
        if settings and structure.unit_size and not hasattr(model.config, "head_dim"):
            for each in by_layer.values():  # by which caches of a fixed size are laid out
                each["head_dim"] = size
        biases = [
            index in members and members[index].name in widths and widths[members[index].name].bias for index in range(count)
        ]
        stated.append({**entry, "biases": biases} if any(biases) else entry)
    return stated, by_layer


def keys_of(structure: Structure, members: Mapping[int, UnitGroup]) -> tuple[str, str]:
    """The settings of a layer that state its units and its groups; they are one where every unit is a group of its own."""
    known: tuple[str, ...] = structure.keys or (HEADS if structure.unit_size else CHANNELS)
    alone = len(known) == 1 or all(each.groups == each.units for each in members.values())
    return known[0], known[0] if alone else known[1]


def states_layers(model: PreTrainedModel, path: str) -> bool:
    """Whether the configuration can state settings by block of a list, and has not done so already."""
    config: Any = model.config
    layers = getattr(config, "num_hidden_layers", None)
    alone = walks_by_block(model) and block_lists(model) == (path,)
    return alone and not config.is_heterogeneous and layers == len(model.get_submodule(path))  # type: ignore[arg-type]


def check_units(config: PretrainedConfig) -> None:
    """Raise ValueError for a description of units that is none of ours; nothing where there is none."""
    stated = vars(config).get("uneven_units")
    if "uneven_units" not in vars(config):
        return
    texts = ("blocks", "consumer", "owner")
    entries: list[Any] = stated if isinstance(stated, list) and stated else [None]
    for each in entries:
        known = isinstance(each, dict) and all(isinstance(each.get(key), str) for key in texts)
        known = known and all(isinstance(each.get(key), (str, list)) for key in ("units", "groups"))
        known = known and all(isinstance(each.get(key), dict) for key in ("producers", "counts"))
        if not known or type(each.get("size")) is not int:
            raise ValueError(f"config.json states uneven_units {str(stated)[:80]!r}, which describe no units")
