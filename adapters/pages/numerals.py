"""Numbers as a person reads them on a page: few digits, thousands apart, and a word where there is none."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

__all__ = ["MISSING", "count", "duration", "finite", "mean", "number", "per_cent", "plain_number", "worst"]

MISSING = "–"  # what was not measured


def number(value: Any) -> float | None:
    """A number of a document, where JSON spells those that are not finite; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def finite(values: Iterable[float | None]) -> list[float]:
    """The values that were measured and are finite."""
    return [value for value in values if value is not None and math.isfinite(value)]


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the finite values, None without any."""
    found = finite(values)
    return sum(found) / len(found) if found else None


def worst(values: Iterable[float | None]) -> float | None:
    """The largest value; what is not finite is worse than any that is; None where nothing was measured."""
    found = [value for value in values if value is not None]
    return next((value for value in found if not math.isfinite(value)), max(found, default=None))


def per_cent(value: float | None, spare: bool = False) -> str:
    """A fraction in per cent without the sign, three digits at most. spare: with two where two are enough for a small cell."""
    if value is None:
        return MISSING
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "∞" if value > 0 else "−∞"
    share = 100 * value
    size = abs(share)
    if share == 0:
        return "0"
    if size < 0.001:
        return "<0.001" if share > 0 else ">−0.001"
    if size < 0.1:
        return f"{share:.3f}".replace("-", "−")
    digits = 2 if size < (0.995 if spare else 9.995) else 1 if size < 99.95 else 0
    return f"{share:,.{digits}f}".replace("-", "−")


def plain_number(value: float | None, digits: int = 4) -> str:
    """A number with so many digits that count, and thousands apart."""
    if value is None:
        return MISSING
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    if 1e-4 <= abs(value) < 1e7:
        places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        return f"{value:,.{places}f}".replace("-", "−")
    return f"{value:.{max(1, digits - 2)}e}".replace("-", "−")


def count(value: int) -> str:
    """A whole number with thousands apart."""
    return f"{value:,}"


def duration(seconds: float | None) -> str:
    """A time in the unit that suits it."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
