"""The classes of `modeling_gramian.py`, which build what stock classes do not, and how a model becomes one of them and back.

The file is written beside a model, where stock `from_pretrained` runs it if it is trusted. Here its classes are those of this
package: no file that stands beside a model is ever run, or copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto

from gramian.adapters.models import modeling_gramian
from gramian.adapters.models.factored_weights import ADAPTER, has_adapter
from gramian.adapters.models.tasks import auto_class, stock_class

__all__ = [
    "CODE",
    "OWN",
    "built_class",
    "check_ours",
    "is_own",
    "is_stock",
    "loader_of",
    "make_own",
    "make_stock",
    "stock_config",
    "stock_type",
]

CODE = "modeling_gramian.py"
OWN: Any = modeling_gramian
STATED = ("uneven_units", "wrapped_operators")  # in a configuration, lists of what stock classes do not build


def is_own(config: PretrainedConfig) -> bool:
    """Whether a configuration states, in our form, what stock classes do not build."""
    return any(isinstance(vars(config).get(key), list) for key in STATED)


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
    """A copy of a configuration with `edits`, as stock classes have it: without what it states in our form."""
    settings = {**config.to_dict(), **edits}
    if is_own(config):
        settings = {key: value for key, value in settings.items() if key not in ours(config)}
    own: Any = stock_type(type(config))
    made: PretrainedConfig = own.from_dict(settings)
    return made


def ours(config: PretrainedConfig) -> tuple[str, ...]:
    """The settings that were made by `make_own` and with it."""
    units: Any = vars(config).get("uneven_units") or ()
    by_layer = any(isinstance(each, dict) and isinstance(each.get("units"), str) for each in units)
    return (*STATED, "auto_map", *(("per_layer_config",) if by_layer else ()))


def make_stock(model: PreTrainedModel) -> None:
    """Give a model, in place, its stock class and a configuration without what it states in our form; its weights are left as
    they are."""
    config: Any = model.config
    if is_own(config):
        for key in ours(config):
            if key == "per_layer_config":
                config.per_layer_config = None
            else:
                vars(config).pop(key, None)
    config.__class__ = stock_type(type(config))
    model.__class__ = stock_type(type(model))


def check_ours(model: PreTrainedModel, what: str, instead: str) -> None:
    """Raise ValueError for a model of no class of the library, from which alone classes are derived here. what: is to be saved
    of it. instead: what would do."""
    if not is_stock(model) and stock_type(type(model)) is type(model):
        raise ValueError(f"{type(model).__name__} is no class of transformers, of which alone {what} are saved: {instead}")


def make_own(model: PreTrainedModel) -> None:
    """Give a model of a stock class, in place, the class here of the same name, and a configuration that names it; one that is
    of such a class is left as it is."""
    if not is_stock(model):
        return
    config = model.config
    config.__class__ = getattr(OWN, type(config).__name__)
    model.__class__ = getattr(OWN, type(model).__name__)
    config.auto_map = classes_of(config)


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


def built_class(config: PretrainedConfig, classifier: bool = False) -> Any:
    """The class that models of a configuration are instances of; None where the library has none. classifier: whether what was
    saved as a classifier of texts is built as one."""
    stock = stock_class(config, classifier)
    return getattr(OWN, stock.__name__) if stock is not None and is_own(config) else stock


def loader_of(config: PretrainedConfig, folder: Path, classifier: bool = False) -> str:
    """How a directory of a model with this configuration is loaded without this package, as a line of Python."""
    trusted = ", trust_remote_code=True" if (folder / CODE).is_file() else ""
    loader = f"{auto_class(config, classifier).__name__}.from_pretrained({str(folder)!r}{trusted})"
    return f"PeftModel.from_pretrained({loader}, {str(folder / ADAPTER)!r})" if has_adapter(folder) else loader
