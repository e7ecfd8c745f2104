"""Text tables, which a person reads at the end of a run."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["figure", "table"]


def table(head: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """Align rows of cells under a head: the first `words` columns to the left, the others, figures, to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) if i < words else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths)))
        for row in [head, *rows]
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def figure(value: float | None) -> str:
    """Write a number with three digits, and `-` for one that was not measured."""
    return "-" if value is None else f"{value:.3g}"
