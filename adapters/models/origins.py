"""The directory that a model was loaded from, which the model remembers: what stands there beside its weights is saved with it.

A model carries its origin as plain values, so that copies of it have it too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedModel

__all__ = ["GENERATION", "Origin", "origin_of", "remember"]

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


def origin_of(model: PreTrainedModel) -> Origin | None:
    """Where a model comes from; None where it was not loaded from a directory here."""
    kept = getattr(model, ATTRIBUTE, None)
    return None if kept is None else Origin(Path(kept[0]), kept[1])
