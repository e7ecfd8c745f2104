"""What the seconds of a run go to."""

from __future__ import annotations

from common.results import read
from figures.markdown import noted, table, threads


def phases() -> str:
    """Seconds by phase of pruning runs."""
    results = read("phases")
    methods = results["rows"]
    names = dict.fromkeys(phase for row in methods for phase in row["phases"])
    rows = [[phase, *(f"{row['phases'][phase]:.1f}" if phase in row["phases"] else "-" for row in methods)] for phase in names]
    rows.append(["all", *(f"{row['seconds']:.0f}" for row in methods)])
    head = ["phase, s", *(f"`{row['method']}`" for row in methods)]
    return noted(
        table(head, rows), f"{methods[0]['operators']} operators of {results['blocks']} blocks. {threads(results['threads'])}"
    )
