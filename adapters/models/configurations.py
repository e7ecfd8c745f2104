"""Configurations as they are read: those that are in our form without any code that stands beside them."""

from __future__ import annotations

from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig

from gramian.adapters.models import modeling_gramian
from gramian.adapters.models.own_classes import OWN, is_own
from gramian.adapters.models.places import Place
from gramian.adapters.models.uneven import check_units
from gramian.adapters.models.wrapped_operators import check_operators

__all__ = ["read_config"]


def read_config(place: Place, trust_remote_code: bool) -> PretrainedConfig:
    """Read the configuration of a model: one in our form, which states what stock classes do not build, without any code beside
    it, any other by the library."""
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
    check_stated(config)
    return config


def read_by_library(place: Place, trust_remote_code: bool, **file: str) -> PretrainedConfig:
    """Read a configuration as stock transformers does."""
    config: PretrainedConfig = AutoConfig.from_pretrained(place.name, trust_remote_code=trust_remote_code, **file)
    return config


def check_stated(config: PretrainedConfig) -> None:
    """Raise ValueError for a configuration in our form that states nothing, or what is none of ours."""
    check_units(config)
    check_operators(config)
    if not is_own(config):
        raise ValueError("config.json states no uneven_units and no wrapped_operators, which describe no units and no products")
