"""How large a model may be that units are removed from: parameters, those that a token meets, or bytes of its weights."""

from __future__ import annotations

import re
from typing import Any

from gramian.adapters.config.settings import Kind

__all__ = ["BUDGET", "read_budget"]

KINDS = ("params", "active", "bytes")
COUNTS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
SIZES = {"": 1, "b": 1} | {
    f"{letter}{end}": base**power
    for power, letter in enumerate("kmgt", start=1)
    for end, base in (("", 10**3), ("b", 10**3), ("ib", 2**10))
}


def read_budget(text: str) -> tuple[str, int]:
    """What is counted and how many of it there may be: `params=4B`, `active=500M`, `bytes=8GB` or `bytes=1.5GiB`.

    ValueError for any other text."""
    found = re.fullmatch(r"(\w+)=(\d+(?:\.\d+)?) ?([A-Za-z]*)", text)
    kind, number, unit = found.groups() if found else ("", "0", "")
    scales = SIZES if kind == "bytes" else COUNTS
    if kind not in KINDS or unit.lower() not in scales or float(number) <= 0:
        raise ValueError(f"{text!r} is no budget such as params=4B, active=500M or bytes=8GB")
    return kind, round(float(number) * scales[unit.lower()])


def is_budget(value: Any) -> bool:
    """Whether a value is a budget."""
    try:
        return isinstance(value, str) and bool(read_budget(value))
    except ValueError:
        return False


BUDGET = Kind("a budget such as params=4B, active=500M or bytes=8GB", is_budget, str, "str", "WHAT=SIZE")
