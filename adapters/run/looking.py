"""Passes that look at the dense model, and write nothing."""

from __future__ import annotations

__all__ = ["Looking"]


class Looking:
    """What such passes have in common: the stream follows the dense model, and no operator changes."""

    follows = "dense"
    taps_dense = False

    def written(self, index: int) -> list[str]:
        """Nothing is written."""
        return []
