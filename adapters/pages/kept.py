"""Which heads, channels and experts stay: a strip of squares for few units, a bar for many, with the numbers beside them."""

from __future__ import annotations

from gramian.adapters.pages.bars import track
from gramian.adapters.pages.numerals import MISSING, count, per_cent
from gramian.adapters.pages.page import escape, table_of
from gramian.adapters.pages.records import Row, Run

__all__ = ["kept_units"]

STRIP = 64  # units at most that stand one by one
SQUARE, GAP, LINE = 9, 3, 16  # pixels of a square and between two; squares in a line


def kept_units(run: Run) -> str:
    """A table with a row per block and a column per kind of module."""
    tables = []
    for name in run.grid.lists:
        kinds = [
            place
            for place, kind in enumerate(run.grid.kinds)
            if any(key == (block, kind) for block in run.grid.blocks if block[0] == name for key in run.grid.cells)
        ]
        rows = []
        for block in (each for each in run.grid.blocks if each[0] == name):
            cells = []
            for kind in kinds:
                some = [run.rows[place] for place in run.grid.cells.get((block, run.grid.kinds[kind]), ())]
                cells.append("".join(f'<div title="{escape(row.name)}">{units(row, run)}</div>' for row in some) or MISSING)
            rows.append(["" if block[1] is None else str(block[1]), *cells])
        noun = "Experts" if run.kind == "experts" else "Heads and channels"
        caption = f"{noun} that stay" + (f", {name}" if len(run.grid.lists) > 1 and name else "")
        more = "Filled squares stay, hollow ones are removed." if any("<rect" in cell for row in rows for cell in row) else ""
        tables.append(table_of(caption, ["block", *(run.grid.labels[kind] for kind in kinds)], rows, more=more, kind="kept"))
    return "\n".join(tables)


def units(row: Row, run: Run) -> str:
    """The units of one module: one by one where few are known by number, else how many of them stay."""
    before, after = row.units or (0, 0)
    words = f"{count(after)} of {count(before)}, {per_cent(row.share, spare=True)} %"
    kept = run.kept.get(row.name)
    if kept is None or not 0 < before <= STRIP:
        return f"{track(row.share or 0.0)}<small>{words}</small>"
    there, step = set(kept), SQUARE + GAP
    squares = "".join(
        f'<rect class="{"bar" if unit in there else "out"}" x="{unit % LINE * step + 0.5:g}" y="{unit // LINE * step + 0.5:g}" '
        f'width="{SQUARE - 1}" height="{SQUARE - 1}"/>'
        for unit in range(before)
    )
    width, height = min(before, LINE) * step, -(-before // LINE) * step
    gone = ", ".join(str(unit) for unit in range(before) if unit not in there)
    alike = "".join(f"; alike {', '.join(map(str, group))}" for group in row.similar)
    removed = f"; without {gone}" if gone else ""
    return (
        f'<span class="strip"><svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(f"{after} of {before} stay{removed}")}">{squares}</svg></span>'
        f"<small>{words}{escape(removed)}{escape(alike)}</small>"
    )
