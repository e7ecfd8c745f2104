"""The directory that a model was loaded from, which the model remembers: what stands there beside its weights is saved with it.

A model carries its origin as plain values, so that copies of it have it too.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import snapshot_download
from transformers import PreTrainedModel

from gramian.adapters.models.libraries import one_line

__all__ = ["BESIDE", "GENERATION", "Origin", "origin_of", "remember", "remember_hub"]

LOG = logging.getLogger(__name__)
BESIDE = ["*.json", "*.txt", "*.md", "*.model", "*.jinja", "LICENSE*", "NOTICE*", "[0-9]_*/*.safetensors"]  # on the hub
GENERATION = "generation_config.json"
ATTRIBUTE = "_gramian_origin"


class Origin(NamedTuple):
    """The directory, and the settings for generating text that its file gave, None where it has no such file."""

    folder: Path
    generation: dict[str, Any] | None


def remember(model: PreTrainedModel, folder: Path) -> None:
    """Let a model that has just been built from a directory remember it."""
    settings = getattr(model, "generation_config", None)
    found = settings.to_dict() if settings is not None and (folder / GENERATION).is_file() else None
    setattr(model, ATTRIBUTE, (str(folder.resolve()), found))


def remember_hub(model: PreTrainedModel, name: str) -> None:
    """Let a model remember the copy, in the hub's cache, of what stands beside it on the hub."""
    try:
        folder = snapshot_download(name, allow_patterns=BESIDE)
    except Exception as error:  # the model itself was read: whatever else there is, it can do without
        LOG.warning(f"what stands beside {name} on the hub cannot be read, and is not saved with it: {one_line(error)}")
    else:
        remember(model, Path(folder))


def origin_of(model: PreTrainedModel) -> Origin | None:
    """Where a model comes from; None where it was not loaded from a directory here."""
    kept = getattr(model, ATTRIBUTE, None)
    return None if kept is None else Origin(Path(kept[0]), kept[1])
