"""HTML tables: what a notebook shows of a report."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

__all__ = ["html_table"]


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """A plain HTML table of text, with the caption below it, one line of the page for each of its lines.

    The first column is aligned to the left and figures to the right, as in `gramian.tables.table`. All text is escaped, so a
    name that holds markup is shown as it is spelt.
    """
    below = "<br>".join(escape(line) for line in caption.splitlines())
    lines = [
        "<table>",
        f'<caption style="caption-side: bottom; text-align: left">{below}</caption>',
        f"<thead>{row_of(head, 'th')}</thead>",
        "<tbody>",
        *(row_of(row, "td") for row in rows),
        "</tbody>",
        "</table>",
    ]
    return "\n".join(lines)


def row_of(cells: Sequence[str], tag: str) -> str:
    """One row, whose cells are elements called `tag`."""
    sides = ["left", *["right"] * (len(cells) - 1)]
    return (
        "<tr>"
        + "".join(f'<{tag} style="text-align: {side}">{escape(cell)}</{tag}>' for side, cell in zip(sides, cells))
        + "</tr>"
    )
