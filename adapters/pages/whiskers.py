"""Differences with their uncertainty, one line each, on an axis with zero: a dot, and a whisker of two standard errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gramian.adapters.pages.numerals import plain_number
from gramian.adapters.pages.page import escape

__all__ = ["Whisker", "whiskers"]

WIDTH, LINE, EDGE, AXIS = 360, 42, 12, 24


@dataclass(frozen=True)
class Whisker:
    """One difference. low, high: where its whisker ends, if not two standard errors of `spread` away."""

    label: str
    value: float
    spread: float = 0.0
    low: float | None = None
    high: float | None = None

    @property
    def ends(self) -> tuple[float, float]:
        """Where the whisker ends."""
        low = self.value - 2 * self.spread if self.low is None else self.low
        return low, self.value + 2 * self.spread if self.high is None else self.high


def whiskers(some: Sequence[Whisker], caption: str, more: str, name: str, middle: float = 0.0, ratio: bool = False) -> str:
    """The figure, empty where nothing is finite. name: of the figure in the page. middle: the value at the vertical line.
    ratio: whether values are ratios, and not differences."""
    drawn = [each for each in some if all(map(math.isfinite, (each.value, *each.ends)))]
    if not drawn:
        return ""
    low, high = min(middle, *(each.ends[0] for each in drawn)), max(middle, *(each.ends[1] for each in drawn))
    room = high - low or 1.0

    def across(value: float) -> float:
        return EDGE + (WIDTH - 2 * EDGE) * (value - low) / room

    height = LINE * len(drawn) + AXIS
    lines = []
    for place, each in enumerate(drawn):
        y, (left, right) = place * LINE + 28, each.ends
        text = f"× {each.value:.4f}" if ratio else f"{each.value:+.4f}".replace("-", "−")
        lines.append(f'<text x="0" y="{y - 13}">{escape(each.label)}</text>')
        lines.append(f'<text x="{WIDTH}" y="{y - 13}" text-anchor="end" font-weight="600">{text}</text>')
        lines.append(f'<path class="even" d="M{across(middle):.1f} {y - 9}v18"/>')
        lines.append(f'<path class="whisker" d="M{across(left):.1f} {y}H{across(right):.1f}"/>')
        lines.append(f'<circle class="bar" cx="{across(each.value):.1f}" cy="{y}" r="4.5"/>')
    for tick in dict.fromkeys((low, middle, high)):
        side = "start" if tick == low else "end" if tick == high else "middle"
        x = 0 if tick == low else WIDTH if tick == high else across(tick)
        if tick in (low, high) or 60 < across(tick) < WIDTH - 60:
            lines.append(
                f'<text class="faint" x="{x:.1f}" y="{height - 6}" text-anchor="{side}">{plain_number(tick, 3)}</text>'
            )
    said = "; ".join(f"{each.label} {each.value:.4f}, from {each.ends[0]:.4f} to {each.ends[1]:.4f}" for each in drawn)
    return (
        f'<figure class="plot"><figcaption>{escape(caption)}<span>{escape(more)}</span></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH * 3 // 2}" height="{height * 3 // 2}" role="img" '
        f'aria-labelledby="{name}-title {name}-text"><title id="{name}-title">{escape(caption)}</title>'
        f'<desc id="{name}-text">{escape(said)}</desc>{"".join(lines)}</svg></figure>'
    )
