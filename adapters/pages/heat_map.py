"""Heat maps as tables: a row per block, a column per kind of operator, a number in every cell, and a shade that ranks it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gramian.adapters.pages.kinds import Grid
from gramian.adapters.pages.numerals import MISSING, finite, mean, per_cent
from gramian.adapters.pages.page import escape
from gramian.adapters.pages.style import HEAT

__all__ = ["Shades", "evenly_shaded", "heat_map", "shaded_by_size"]

UPRIGHT, NARROW = 66, 40  # letters that stand side by side above all columns of a map, and on a narrow screen


@dataclass(frozen=True)
class Shades:
    """edges: between the shades, rising."""

    edges: tuple[float, ...]

    def of(self, value: float) -> int:
        """The shade of a value."""
        return sum(value >= edge for edge in self.edges)


def shaded_by_size(values: Sequence[float | None]) -> Shades:
    """Shades in equal steps of the logarithm, from the smallest positive value to the largest; one for values all alike."""
    positive = [value for value in finite(values) if value > 0]
    if not positive or max(positive) <= 1.01 * min(positive):
        return Shades(())
    low, high = math.log(min(positive)), math.log(max(positive))
    return Shades(tuple(math.exp(low + (high - low) * step / HEAT) for step in range(1, HEAT)))


def evenly_shaded() -> Shades:
    """Shades in equal steps from 0 to 1, the same on every page."""
    return Shades(tuple(step / HEAT for step in range(1, HEAT)))


def heat_map(
    grid: Grid,
    values: Sequence[float | None],
    shades: Shades,
    caption: str,
    more: str,
    written: Callable[[float], str] = lambda value: per_cent(value, spare=True),
) -> str:
    """A heat map as HTML. values: of all rows of the grid; a cell of several rows shows the mean of the finite ones."""
    letters = len(grid.kinds) * max(map(len, grid.labels), default=0)
    heads = "".join(
        f'<th scope="col" title="{escape(kind)}"><span>{escape(label)}</span></th>'
        for kind, label in zip(grid.kinds, grid.labels)
    )
    bodies = []
    for name in grid.lists:
        lines = []
        if len(grid.lists) > 1:
            title = name or "outside the blocks"
            lines.append(f'<tr class="list"><th scope="rowgroup" colspan="{len(grid.kinds) + 1}">{escape(title)}</th></tr>')
        for block in (each for each in grid.blocks if each[0] == name):
            cells = "".join(cell(grid.cells.get((block, kind), ()), values, shades, written) for kind in grid.kinds)
            number = "" if block[1] is None else str(block[1])
            lines.append(f'<tr><th scope="row">{number}</th>{cells}</tr>')
        bodies.append("<tbody>\n" + "\n".join(lines) + "\n</tbody>")
    narrowest = f"min-width:{2.2 + 2.05 * len(grid.kinds):.4g}rem" if len(grid.kinds) > 8 else ""
    turned = " turned" if letters > UPRIGHT else " narrow-turned" if letters > NARROW else ""
    table = (
        f'<table style="{narrowest}">\n<caption>{escape(caption)}<span>{escape(more)}</span></caption>\n'
        f'<thead><tr><th scope="col">block</th>{heads}</tr></thead>\n' + "\n".join(bodies) + "\n</table>"
    )
    if narrowest:
        table = f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">{table}</div>'
    return f'<figure class="heat{turned}">{table}{key(shades, grid, values, written)}</figure>'


def cell(places: Sequence[int], values: Sequence[float | None], shades: Shades, written: Callable[[float], str]) -> str:
    """One cell."""
    some = [values[place] for place in places]
    if not any(value is not None for value in some):
        return f'<td class="none">{MISSING}</td>'
    middle = mean(some)
    if middle is None:
        return f'<td class="none">{per_cent(next(value for value in some if value is not None))}</td>'
    title = f' title="mean of {len(places)}"' if len(places) > 1 else ""
    return f'<td class="h{shades.of(middle)}"{title}>{written(middle)}</td>'


def key(shades: Shades, grid: Grid, values: Sequence[float | None], written: Callable[[float], str]) -> str:
    """What the shades that occur mean; nothing where there is one."""
    means = finite(mean(values[place] for place in places) for places in grid.cells.values())
    used = sorted({shades.of(value) for value in means})
    if not shades.edges or len(used) < 2:
        return ""
    items = []
    for shade in used:
        low = written(shades.edges[shade - 1]) if shade else ""
        high = written(shades.edges[shade]) if shade < len(shades.edges) else ""
        words = f"{low}–{high}" if low and high else f"below {high}" if high else f"from {low}"
        items.append(f'<li><i class="h{shade}"></i>{words}</li>')
    return f'<ul class="key" aria-label="shades, in per cent">{"".join(items)}</ul>'
