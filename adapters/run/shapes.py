"""A model of which the shape is all that is needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from transformers import AutoConfig, PreTrainedModel

from gramian.adapters.models.loading import load, storage_of
from gramian.adapters.models.places import locate
from gramian.adapters.run.skeletons import skeleton

__all__ = ["shape_at"]


def shape_at(source: str | Path, dtype: str = "auto", loading: Callable[[], object] = lambda: None) -> PreTrainedModel:
    """The model that a directory or a hub id configures, without the memory of its parameters; a file that has no configuration
    of its own is loaded. loading(): called before that. ValueError or OSError for what is none of these."""
    place = Path(source) / "config.json"
    if not place.is_file() and (str(source) == "demo" or locate(source).gguf):
        loading()
        return load(source, dtype=dtype)[0]
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    return skeleton(config, storage_of(dtype, config.dtype))
