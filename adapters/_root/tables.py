"""Text tables, which a person reads at the end of a run."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["figure", "lines_of", "table"]

ALIKE = 8  # rows at most whose names differ by their last number alone; more, experts as a rule, stand in one line


def table(head: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """Align rows of cells under a head: the first `words` columns to the left, the others, figures, to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) if i < words else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths)))
        for row in [head, *rows]
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def lines_of(names: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Lines of a table by the name that each has, with the places of the names that it stands for: `experts.down_proj.* (64)`
    for many that differ by their last number alone, and else one by one."""
    families: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        stem, _, last = name.rpartition(".")
        families.setdefault(f"{stem}.*" if last.isdecimal() else name, []).append(place)
    lines: list[tuple[str, list[int]]] = []
    for family, places in families.items():
        if len(places) > ALIKE:
            lines.append((f"{family} ({len(places)})", places))
        else:
            lines += [(names[place], [place]) for place in places]
    return lines


def figure(value: float | None) -> str:
    """Write a number with three digits, and `-` for one that was not measured."""
    return "-" if value is None else f"{value:.3g}"
