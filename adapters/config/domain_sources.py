"""Sources of calibration text with weights: what can be said of them before anything is read."""

from __future__ import annotations

from collections.abc import Mapping

from gramian.adapters.data.domains import split_samples
from gramian.adapters.data.source_names import has_labels

__all__ = ["check_domains"]


def check_domains(weights: Mapping[str, float], samples: int, recovery: str | None) -> None:
    """Raise ValueError for weights that are none, fewer samples than sources, and sources that cannot be one of several."""
    split_samples(weights, samples)
    for name in weights:
        if name == "self" or has_labels(name):
            what = "text sampled from the model" if name == "self" else "texts with labels"
            raise ValueError(f"calibration={name!r} is {what}, which cannot be one of several domains: give windows of text")
    if recovery is not None:
        raise ValueError(
            f"recovery_calibration={recovery!r} does not go with several calibration sources, on whose weights both steps "
            "agree: leave it out"
        )
