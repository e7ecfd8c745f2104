"""Settings of a model written as they are: its configuration, and how it generates text.

The library refuses to write some settings that it reads and works with, such as a temperature without sampling, or a padding
token of -1. Here they are written all the same, and settings for generating text byte for byte as they were read where nobody
has changed them since.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedModel

from gramian.adapters.files import write_bytes
from gramian.adapters.models.origins import GENERATION, origin_of

__all__ = ["weights_alone", "write_config", "write_generation"]

CONFIG = "config.json"
REFUSED = (ValueError, TypeError, StrictDataclassError)  # what the library raises for settings that it does not write


def write_config(config: Any, folder: Path) -> bool:
    """Write `config.json`. Returned is whether the library does so by itself."""
    try:
        config.save_pretrained(folder)
    except REFUSED:
        write_bytes(folder / CONFIG, config.to_json_string(use_diff=True).encode())
        return False
    return True


def write_generation(model: PreTrainedModel, folder: Path) -> None:
    """Write `generation_config.json` of a model that generates text: a copy of the file that its settings came from, if they
    are still the same. ValueError where they are nothing that JSON can say."""
    settings = getattr(model, "generation_config", None)
    if settings is None or not model.can_generate():
        return
    origin = origin_of(model)
    if origin is not None and origin.generation == settings.to_dict() and (origin.folder / GENERATION).is_file():
        shutil.copyfile(origin.folder / GENERATION, folder / GENERATION)
        return
    said = settings.to_diff_dict()
    said.pop("compile_config", None)  # how to compile on one machine is no setting of the model
    write_bytes(folder / GENERATION, (json.dumps(said, indent=2, sort_keys=True) + "\n").encode())


@contextmanager
def weights_alone(model: PreTrainedModel, config: bool) -> Iterator[None]:
    """Let `save_pretrained` of a model write no settings for generating text while the context is open, and where `config` no
    configuration either."""
    before = {"generation_config": getattr(model, "generation_config", None), **({"config": model.config} if config else {})}
    for name, settings in before.items():
        if settings is not None:
            setattr(model, name, unwritten(settings))
    try:
        yield
    finally:
        for name, settings in before.items():
            if settings is not None:
                setattr(model, name, settings)


def unwritten(settings: Any) -> Any:
    """A copy of settings that does nothing when it is to be saved."""
    twin = copy.copy(settings)
    own = type(settings)
    object.__setattr__(twin, "__class__", type(own.__name__, (own,), {"save_pretrained": lambda *given, **options: None}))
    return twin
