"""A bar for long work that also runs without the extra `models`, which brings tqdm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import TypeVar

__all__ = ["progress"]

Item = TypeVar("Item")


def progress(items: Sequence[Item], what: str, unit: str) -> Iterable[Item]:
    """Return the items to iterate over, with a bar where tqdm is installed. what, unit: the bar's label and unit."""
    if find_spec("tqdm") is None:
        return items
    from tqdm import tqdm

    return tqdm(items, desc=what, unit=unit)
