"""Where the seconds of a run went: its phases, and the solvers' part by kind of operator."""

from __future__ import annotations

from gramian.adapters.pages.bars import shares
from gramian.adapters.pages.numerals import duration, number
from gramian.adapters.pages.records import Run, mapping

__all__ = ["seconds_spent", "spent"]


def spent(run: Run) -> list[tuple[str, float]]:
    """Parts of the run with their seconds, the largest of the kinds first. What solvers did not take went into running the
    model and gathering moments; measures before and after the run come besides."""
    grid = run.grid
    kinds = [
        (f"solving {label}", sum(run.rows[place].seconds for place in grid.of_kind(kind)))
        for kind, label in zip(grid.kinds, grid.labels)
    ]
    kinds.sort(key=lambda part: -part[1])
    solving = sum(seconds for _, seconds in kinds)
    blocks = run.document.get("refitted_blocks")
    if refitting := sum(
        number(mapping(each).get("seconds")) or 0.0 for each in (blocks if isinstance(blocks, list | tuple) else ())
    ):
        kinds, solving = [*kinds, ("refitting blocks", refitting)], solving + refitting
    rest = [("running the model, gathering moments", run.seconds - solving)] if run.seconds > solving else []
    phases = [(str(name), seconds) for name, value in mapping(run.document.get("phases")).items() if (seconds := number(value))]
    return [*rest, *kinds, *phases]


def seconds_spent(run: Run) -> str:
    """The table of the parts, with bars."""
    parts = spent(run)
    whole = sum(seconds for _, seconds in parts)
    if whole <= 0:
        return "<p>No time was recorded.</p>"
    solving = sum(row.seconds for row in run.rows)
    more = f"{duration(run.seconds)} from the first block to the last"
    if solving > run.seconds > 0:
        more += "; solvers took longer together, since several ran at once, or an earlier part of the run is not in its time"
    rows = [(name, seconds / whole, duration(seconds)) for name, seconds in parts]
    return shares(("part", "time"), rows, "Seconds by part", more)
