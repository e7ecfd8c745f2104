"""A bar for long work that also runs without the extra `models`, which brings tqdm."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, TypeVar

__all__ = ["bar", "progress", "say"]

Item = TypeVar("Item")


def progress(items: Sequence[Item], what: str, unit: str) -> Iterable[Item]:
    """Return the items to iterate over, with a bar where tqdm is installed. what, unit: the bar's label and unit."""
    if find_spec("tqdm") is None:
        return items
    from tqdm import tqdm

    return tqdm(items, desc=what, unit=unit)


@contextmanager
def bar(total: int, what: str, unit: str, shown: bool = True) -> Iterator[Any]:
    from tqdm import tqdm

    with tqdm(total=total, desc=what, unit=unit, disable=not shown) as made:
        yield made


def say(text: str) -> None:
    print(text, flush=True)
