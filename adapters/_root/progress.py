"""A bar for long work that runs without the extra `models` too, which brings tqdm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import TypeVar

__all__ = ["progress"]

Item = TypeVar("Item")


def progress(items: Sequence[Item], what: str, unit: str) -> Iterable[Item]:
    """The items, with a bar where tqdm is installed. what, unit: what the bar says."""
    if find_spec("tqdm") is None:
        return items
    from tqdm import tqdm

    return tqdm(items, desc=what, unit=unit)
