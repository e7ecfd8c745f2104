"""A scatter plot of held-out against calibration error, both on logarithmic axes, with a mark of its own for every kind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gramian.adapters.pages.numerals import per_cent
from gramian.adapters.pages.page import escape
from gramian.adapters.pages.style import MARKS

__all__ = ["Cloud", "scatter"]

SIZE, LEFT, ABOVE, BELOW, EDGE = 360, 52, 24, 38, 10  # of the drawing, and its margins
SHAPES = (  # around the origin, within a circle of radius 4
    "M-3.4 0a3.4 3.4 0 1 0 6.8 0a3.4 3.4 0 1 0-6.8 0", "M-3-3H3V3H-3Z", "M0-4L3.6 2.8H-3.6Z", "M0-4.2L4.2 0L0 4.2L-4.2 0Z",
    "M-3-3L3 3M-3 3L3-3", "M0-4V4M-4 0H4", "M0 4L3.6-2.8H-3.6Z", "M-3.6-1.5H3.6M-3.6 1.5H3.6",
)  # fmt: skip


@dataclass(frozen=True)
class Cloud:
    """Points of one kind. points: (calibration error, held-out error), positive and finite."""

    label: str
    points: tuple[tuple[float, float], ...]


def scatter(clouds: Sequence[Cloud], caption: str, more: str) -> str:
    """The plot as a figure of HTML, with a key; empty where there is no point."""
    drawn = [cloud for cloud in clouds if cloud.points]
    values = [value for cloud in drawn for point in cloud.points for value in point]
    if not values:
        return ""
    low, high = math.log10(min(values)), math.log10(max(values))
    room = max(0.05, 0.04 * (high - low))
    low, high = low - room, high + room
    width, height = SIZE - LEFT - EDGE, SIZE - BELOW - ABOVE

    def across(value: float) -> float:
        return LEFT + width * (math.log10(value) - low) / (high - low)

    def down(value: float) -> float:
        return ABOVE + height * (1 - (math.log10(value) - low) / (high - low))

    lines = []
    for tick in ticks(low, high):
        x, y, text = across(tick), down(tick), f"{per_cent(tick, spare=True)} %"
        lines.append(f'<path class="axis" d="M{x:.1f} {ABOVE}V{ABOVE + height}M{LEFT} {y:.1f}H{LEFT + width}"/>')
        lines.append(f'<text class="faint" x="{x:.1f}" y="{ABOVE + height + 14}" text-anchor="middle">{text}</text>')
        lines.append(f'<text class="faint" x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    lines.append(f'<path class="even" d="M{LEFT} {ABOVE + height}L{LEFT + width} {ABOVE}"/>')
    lines.append(f'<text x="{LEFT + width / 2:.1f}" y="{SIZE - 6}" text-anchor="middle">error on calibration text</text>')
    lines.append('<text x="0" y="11">error on held-out text</text>')
    for place, cloud in enumerate(drawn):
        marks = "".join(
            f'<use href="#mark-{place % MARKS}" x="{across(one):.1f}" y="{down(other):.1f}"/>' for one, other in cloud.points
        )
        lines.append(f'<g class="m{place % MARKS}" stroke-width="1.4">{marks}</g>')
    shapes = "".join(f'<path id="mark-{n}" d="{shape}"/>' for n, shape in enumerate(SHAPES[: len(drawn)]))
    total = sum(len(cloud.points) for cloud in drawn)
    above = sum(other > one for cloud in drawn for one, other in cloud.points)
    text = f"{total} points, of which {above} are above the line of equal errors. {more}"
    keys = "".join(
        f'<li><svg viewBox="-5 -5 10 10" aria-hidden="true"><path class="m{place % MARKS}" stroke-width="1.6" '
        f'd="{SHAPES[place % MARKS]}"/></svg>{escape(cloud.label)}</li>'
        for place, cloud in enumerate(drawn)
    )
    return (
        f'<figure class="plot"><figcaption>{escape(caption)}<span>{escape(more)}</span></figcaption>'
        f'<svg viewBox="0 0 {SIZE} {SIZE}" width="{SIZE * 3 // 2}" height="{SIZE * 3 // 2}" role="img" '
        f'aria-labelledby="scatter-title scatter-text"><title id="scatter-title">{escape(caption)}</title>'
        f'<desc id="scatter-text">{escape(text)}</desc><defs>{shapes}</defs>{"".join(lines)}</svg>'
        f'<ul class="key" aria-label="marks">{keys}</ul></figure>'
    )


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between powers of ten: powers, with 2 and 5 of each where there is room."""
    steps = (1.0,) if high - low > 2.5 else (1.0, 2.0, 5.0) if high - low > 0.6 else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
    found = [step * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for step in steps]
    return [value for value in found if low <= math.log10(value) <= high]
