"""What a word that nobody knows was perhaps meant to be."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["meant"]


def meant(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'sparsegpt'?)` for a word such as `sparsgpt`, and nothing for one that no known word is near."""
    near = get_close_matches(word.lower(), list(known), 1, 0.7)
    return f" (did you mean {near[0]!r}?)" if near else ""
