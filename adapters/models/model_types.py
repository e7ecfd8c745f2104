"""Whether units of a model type can be removed, read from the configuration of a local directory: neither torch nor
transformers is imported, so that a model of an unknown family is refused at once."""

from __future__ import annotations

import json
from pathlib import Path

from gramian.adapters.models.families import family_named
from gramian.adapters.models.stacks import STACKS

__all__ = ["check_model_type"]


def check_model_type(path: str | Path, units: bool = False) -> None:
    """Raise ValueError, which names the known types, for a directory whose `config.json` states a model type of which no units
    are known.

    units: whether units are to be removed; weights can be zeroed in models of any type. Nothing is said of what is no directory
    (a hub id, a GGUF file), nor where the configuration is unreadable or states no type: `load` says what is wrong there.
    """
    if not units:
        return
    try:
        config = json.loads((Path(path).expanduser() / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return
    stated = config.get("model_type") if isinstance(config, dict) else None
    if isinstance(stated, str) and stated not in STACKS:
        family_named(stated)
