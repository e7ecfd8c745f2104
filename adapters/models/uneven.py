"""Models whose layers have widths of their own: what `config.json` states of them, and which classes build it.

Stock classes give every layer the same widths. `modeling_gramian.py` derives classes from them that do not. It is written
beside a model, where stock `from_pretrained` runs it if it is trusted. Here its classes are those of this package: no file that
stands beside a model is ever run, or copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import transformers
from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto

from gramian.adapters.models import modeling_gramian
from gramian.adapters.models.block_lists import block_lists, walks_by_block
from gramian.adapters.models.factored_weights import ADAPTER, has_adapter
from gramian.adapters.models.families import Structure
from gramian.adapters.models.places import Place
from gramian.adapters.models.tasks import auto_class, stock_class
from gramian.adapters.models.units import COUNTS, UnitGroup, owner_of

__all__ = [
    "CODE",
    "Width",
    "built_class",
    "is_stock",
    "is_uneven",
    "loader_of",
    "make_stock",
    "make_uneven",
    "read_config",
    "stock_config",
    "stock_type",
]

CODE = "modeling_gramian.py"
OWN: Any = modeling_gramian
HEADS, CHANNELS = ("num_attention_heads", "num_key_value_heads"), ("intermediate_size",)


class Width(NamedTuple):
    """Units and groups of a module, and whether its consumer has a bias that the stock class does not give it."""

    units: int
    groups: int
    bias: bool = False


def is_uneven(config: PretrainedConfig) -> bool:
    """Whether a configuration states widths by layer in our form."""
    return isinstance(vars(config).get("uneven_units"), list)


def is_stock(model: PreTrainedModel) -> bool:
    """Whether the class of a model is one of the library's."""
    return getattr(transformers, type(model).__name__, None) is type(model)


def stock_type(own: type[Any]) -> type[Any]:
    """The library's class that a class of `modeling_gramian.py` is derived from, wherever that file was loaded; any other is
    returned."""
    if own.__module__.rpartition(".")[2] != modeling_gramian.__name__.rpartition(".")[2]:
        return own
    found: type[Any] = getattr(transformers, own.__name__)
    return found


def stock_config(config: PretrainedConfig, edits: Mapping[str, Any]) -> PretrainedConfig:
    """A copy of a configuration with `edits`, as stock classes have it: without widths by layer in our form."""
    settings = {**config.to_dict(), **edits}
    if is_uneven(config):
        settings = {key: value for key, value in settings.items() if key not in ours(config)}
    own: Any = stock_type(type(config))
    made: PretrainedConfig = own.from_dict(settings)
    return made


def ours(config: PretrainedConfig) -> tuple[str, ...]:
    """The settings that `make_uneven` has made."""
    units: Any = vars(config)["uneven_units"]
    by_layer = any(isinstance(each, dict) and isinstance(each.get("units"), str) for each in units)
    return ("uneven_units", "auto_map", *(("per_layer_config",) if by_layer else ()))


def make_stock(model: PreTrainedModel) -> None:
    """Give a model, in place, its stock class and a configuration without widths by layer in our form; its weights are left as
    they are."""
    config: Any = model.config
    if is_uneven(config):
        for key in ours(config):
            if key == "per_layer_config":
                config.per_layer_config = None
            else:
                vars(config).pop(key, None)
    config.__class__ = stock_type(type(config))
    model.__class__ = stock_type(type(model))


def make_uneven(model: PreTrainedModel, unit_groups: Mapping[str, UnitGroup], widths: Mapping[str, Width]) -> None:
    """Give a model of a stock class, in place, the class that builds the widths that it has, and a configuration that states
    them. What it computes is unchanged, and `save_pretrained` then writes a directory that loads.

    unit_groups: its depth-2 modules by name. widths: those of them that the stock class does not build. ValueError for a model
    of no class of the library.
    """
    name, config = type(model).__name__, model.config
    if not is_stock(model):
        raise ValueError(
            f"{name} is no class of transformers, of which alone layers of different widths are saved: pad it, or prune it to "
            "equal widths"
        )
    stated, by_layer = described(model, unit_groups, widths)
    config.__class__ = getattr(OWN, type(config).__name__)
    model.__class__ = getattr(OWN, name)
    own: Any = config
    own.auto_map, own.uneven_units = classes_of(config), stated
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


def classes_of(config: PretrainedConfig) -> dict[str, str]:
    """The classes of `modeling_gramian.py` by the auto classes that load them."""
    module, name = CODE.removesuffix(".py"), type(config).__name__
    found = {"AutoConfig": f"{module}.{name}"}
    for auto, factory in sorted(vars(modeling_auto).items()):
        mapping = getattr(factory, "_model_mapping", None)
        stock = mapping.get(type(config), None) if auto.startswith("AutoModel") and mapping is not None else None
        if isinstance(stock, type) and getattr(getattr(stock, "config_class", None), "__name__", "") == name:
            found[auto] = f"{module}.{stock.__name__}"
    return found


def read_config(place: Place, trust_remote_code: bool) -> PretrainedConfig:
    """Read the configuration of a model: one that states widths by layer in our form without any code beside it, any other by
    the library."""
    if place.gguf:
        return read_by_library(place, trust_remote_code, gguf_file=place.gguf)
    try:
        document, _ = PretrainedConfig.get_config_dict(place.name)
        model_type = str(document.get("model_type", ""))
    except Exception:  # what is wrong there the library says below
        model_type = ""
    stock = model_type.removeprefix(modeling_gramian.PREFIX)
    if stock == model_type or stock not in CONFIG_MAPPING:
        return read_by_library(place, trust_remote_code)
    own: Any = getattr(OWN, CONFIG_MAPPING[stock].__name__)
    config: PretrainedConfig = own.from_pretrained(place.name)
    check_units(config)
    return config


def read_by_library(place: Place, trust_remote_code: bool, **file: str) -> PretrainedConfig:
    """Read a configuration as stock transformers does."""
    config: PretrainedConfig = AutoConfig.from_pretrained(place.name, trust_remote_code=trust_remote_code, **file)
    return config


def check_units(config: PretrainedConfig) -> None:
    """Raise ValueError for a description of units that is none of ours."""
    stated = vars(config).get("uneven_units")
    texts = ("blocks", "consumer", "owner")
    entries: list[Any] = stated if isinstance(stated, list) and stated else [None]
    for each in entries:
        known = isinstance(each, dict) and all(isinstance(each.get(key), str) for key in texts)
        known = known and all(isinstance(each.get(key), (str, list)) for key in ("units", "groups"))
        known = known and all(isinstance(each.get(key), dict) for key in ("producers", "counts"))
        if not known or type(each.get("size")) is not int:
            raise ValueError(f"config.json states uneven_units {str(stated)[:80]!r}, which describe no units")


def built_class(config: PretrainedConfig, classifier: bool = False) -> Any:
    """The class that models of a configuration are instances of; None where the library has none. classifier: whether what was
    saved as a classifier of texts is built as one."""
    stock = stock_class(config, classifier)
    return getattr(OWN, stock.__name__) if stock is not None and is_uneven(config) else stock


def loader_of(config: PretrainedConfig, folder: Path, classifier: bool = False) -> str:
    """How a directory of a model with this configuration is loaded without this package, as a line of Python."""
    trusted = ", trust_remote_code=True" if (folder / CODE).is_file() else ""
    loader = f"{auto_class(config, classifier).__name__}.from_pretrained({str(folder)!r}{trusted})"
    return f"PeftModel.from_pretrained({loader}, {str(folder / ADAPTER)!r})" if has_adapter(folder) else loader
