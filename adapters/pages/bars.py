"""Bars: a figure before and after, and parts of a whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gramian.adapters.pages.numerals import plain_number
from gramian.adapters.pages.page import escape, table_of

__all__ = ["Bar", "bars", "shares", "track"]

WIDTH, LINE, VALUE = 360, 34, 66
LETTER, LONGEST = 6.8, 22  # the width of a letter, and letters of a label at most


@dataclass(frozen=True)
class Bar:
    """One bar."""

    label: str
    value: float


def bars(some: Sequence[Bar], caption: str, more: str, name: str, top: float = 0.0) -> str:
    """Bars from zero as a figure; the first is what the others are compared with. name: of the figure in the page. top: where
    the axis ends at least."""
    labels = [bar.label if len(bar.label) <= LONGEST else f"{bar.label[: LONGEST - 1]}…" for bar in some]
    left = 14 + LETTER * max(map(len, labels), default=0)
    largest = max([top, *(bar.value for bar in some if math.isfinite(bar.value))], default=0.0) or 1.0
    lines = []
    for place, (bar, label) in enumerate(zip(some, labels)):
        y = place * LINE
        width = (WIDTH - left - VALUE) * max(0.0, bar.value) / largest if math.isfinite(bar.value) else 0.0
        kind = "bar" if place else "rest"
        lines.append(f'<text x="0" y="{y + 20}">{escape(label)}</text>')
        lines.append(f'<rect class="{kind}" x="{left:.0f}" y="{y + 6}" width="{width:.1f}" height="20" rx="1"/>')
        lines.append(f'<text x="{left + width + 6:.1f}" y="{y + 20}" font-weight="600">{plain_number(bar.value)}</text>')
    height = len(some) * LINE
    said = "; ".join(f"{bar.label} {plain_number(bar.value)}" for bar in some)
    return (
        f'<figure class="plot"><figcaption>{escape(caption)}<span>{escape(more)}</span></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH * 3 // 2}" height="{height * 3 // 2}" role="img" '
        f'aria-labelledby="{name}-title {name}-text"><title id="{name}-title">{escape(caption)}</title>'
        f'<desc id="{name}-text">{escape(said)}</desc>{"".join(lines)}</svg></figure>'
    )


def track(share: float) -> str:
    """A bar in a cell of a table, for eyes alone: the number stands beside it."""
    return f'<span class="track" aria-hidden="true"><i style="width:{100 * min(1.0, max(0.0, share)):.1f}%"></i></span>'


def shares(head: tuple[str, str], parts: Sequence[tuple[str, float, str]], caption: str, more: str) -> str:
    """Parts of a whole as a table with a bar in every row. parts: text, share of the whole, and what that is in words."""
    rows = [
        [escape(label), f'<span class="share">{track(share)}<span>{100 * share:.0f} %</span></span>', escape(words)]
        for label, share, words in parts
    ]
    return table_of(caption, [head[0], "share of the whole", head[1]], rows, more=more, kind="parts")
