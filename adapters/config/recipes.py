"""Recipes: the settings of a run as plain names and values, which repeat it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.config.run_config import RunConfig
from gramian.adapters.config.settings import settings_of
from gramian.extras import MODELS, need
from gramian.spelling import meant

__all__ = ["configs_of", "read_recipe", "recipe_of"]


def recipe_of(*configs: PruneConfig | RunConfig) -> dict[str, Any]:
    """The settings that are not the default, by name, as plain numbers, strings and lists."""
    return {
        each.name: each.kind.write(getattr(config, each.name))
        for config in configs
        for each in settings_of(config)
        if getattr(config, each.name) != each.default
    }


def read_recipe(path: Path) -> dict[str, Any]:
    """Read a recipe: a YAML or JSON file of names and values, or the `gramian.json` that a run has saved.

    FileNotFoundError for no file; ValueError, naming the file, for a file of another kind and for a name that is no setting.
    """
    if path.is_dir():
        path = path / "gramian.json"
    if not path.is_file():
        raise FileNotFoundError(f"no recipe {str(path)!r}: expected a YAML or JSON file of settings, or a gramian.json")
    text = path.read_text(encoding="utf-8")
    try:
        document = json.loads(text) if path.suffix == ".json" else yaml_of(text)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as a recipe: {error}") from error
    if path.name == "gramian.json" or (isinstance(document, Mapping) and "settings" in document):  # what a run has saved
        for name in ("settings", "recipe"):
            document = document.get(name) if isinstance(document, Mapping) else None
    if not isinstance(document, Mapping):
        raise ValueError(f"{path} is no recipe: expected names of settings and their values, such as `method: l0`")
    for name in document:
        check_name(str(name), path)
    values = dict(document)
    if isinstance(values.get("options"), Mapping):  # JSON has no infinity, so that a report spells it
        values["options"] = {name: math.inf if value == "inf" else value for name, value in values["options"].items()}
    return values


def yaml_of(text: str) -> Any:
    """Read YAML without anything that can execute; ValueError where it is none. `2:4` is text, and no number of base 60."""
    need("models", (*MODELS, "yaml"), "a recipe in YAML")
    import yaml

    reader_of: Any = type("Reader", (yaml.SafeLoader,), {})  # one of its own, as it gets constructors of its own

    def number(reader: Any, node: Any) -> Any:
        value = str(reader.construct_scalar(node))
        integer = node.tag.endswith(":int")
        return value if ":" in value else reader.construct_yaml_int(node) if integer else reader.construct_yaml_float(node)

    for tag in ("int", "float"):
        reader_of.add_constructor(f"tag:yaml.org,2002:{tag}", number)
    try:
        return yaml.load(text, reader_of)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def check_name(name: str, path: Path) -> None:
    """Raise ValueError for a name that is no setting."""
    known = [each.name for config in (PruneConfig, RunConfig) for each in fields(config)]
    if name not in known:
        raise ValueError(f"{path} has a setting {name!r}, which there is not{meant(name, known)}; there are {', '.join(known)}")


def configs_of(values: Mapping[str, Any]) -> tuple[PruneConfig, RunConfig]:
    """The two configurations of a recipe's values."""
    first, second = ({each.name for each in fields(config)} for config in (PruneConfig, RunConfig))
    return (
        PruneConfig(**{name: value for name, value in values.items() if name in first}),
        RunConfig(**{name: value for name, value in values.items() if name in second}),
    )
