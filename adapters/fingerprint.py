"""What a run depends on: two runs with one fingerprint leave the same bytes."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.config.recipes import recipe_of
from gramian.adapters.data.tokens import Tokens, windows_of
from gramian.versions import versions

__all__ = ["fingerprint"]


def fingerprint(
    weights: str,
    tokens: Tokens,
    heldout: torch.Tensor | Tokens | None,
    config: PruneConfig,
    place: torch.device,
    others: Mapping[str, Any],
    recovery: Tokens | None = None,
) -> dict[str, Any]:
    """The fingerprint of a run, in JSON's terms. weights: `weights_digest` of the dense model. others: how it is saved.
    recovery: what makes up for removed units is fitted on, where that is not what calibrates."""
    settings = {name: value for name, value in recipe_of(config).items() if name != "jobs"}  # it changes no byte
    return {
        "method": {"name": config.method, "source": source_digest(config)},
        "settings": {name: value for name, value in settings.items() if name != "method"},
        "weights": weights,
        "calibration": tokens.digest,
        **({} if recovery is None else {"recovery": recovery.digest}),
        "heldout": None if heldout is None else windows_of(heldout, "held-out windows").digest,
        "threads": torch.get_num_threads(),
        "device": place.type,
        "versions": dict(versions()),
        **others,
    }


def source_digest(config: PruneConfig) -> str | None:
    """SHA-256 of the file of a method of the user's own, None for the toolkit's own methods."""
    if ":" not in config.method:
        return None
    function = config.recipe.decide
    file = getattr(sys.modules.get(getattr(function, "__module__", "")), "__file__", None)
    return None if file is None else hashlib.sha256(Path(file).read_bytes()).hexdigest()
