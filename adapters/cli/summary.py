"""The table of a run on the command line: a line per kind of operator, and the worst ones."""

from __future__ import annotations

import math
from dataclasses import replace

from gramian.adapters.pages.numerals import mean, per_cent, worst
from gramian.adapters.pages.records import Run, run_of
from gramian.adapters.removal.report import StructuredReport
from gramian.adapters.report import Report, refits_shown
from gramian.tables import figure, table

__all__ = ["shown"]

ALL = 20  # rows of which all are shown
WORST = 10


def shown(report: Report | StructuredReport, verbose: bool) -> str:
    """The table of a report, with its totals: of many rows the kinds and the worst ones, unless `verbose`."""
    run = run_of(report.to_dict())
    if verbose or run is None or len(run.rows) <= ALL:
        return str(report)
    places = sorted(range(len(run.rows)), key=lambda place: -badness(run.rows[place].reported_error))[:WORST]
    part = chosen(report, places)
    totals = report.totals()
    below = totals if isinstance(totals, str) else "\n".join(totals)
    refits = "\n".join(refits_shown(report.blocks))
    text = "held-out" if run.has_heldout else "calibration"
    return (
        f"{kinds(run)}\n\nthe {WORST} {run.unit}s with the largest {text} error\n\n{table(*part.cells())}\n{refits}\n{below}\n"
        f"all {len(run.rows)} rows: --verbose, or gramian.json and report.html beside the model"
    )


def badness(error: float | None) -> float:
    """An error to sort by: undefined ones are last, since a layer without an output has none."""
    return -1.0 if error is None or math.isnan(error) else error


def chosen(report: Report | StructuredReport, places: list[int]) -> Report | StructuredReport:
    """The same report with some of its rows."""
    if isinstance(report, Report):
        return replace(report, operators=tuple(report.operators[place] for place in places))
    return replace(report, modules=tuple(report.modules[place] for place in places))


def kinds(run: Run) -> str:
    """A line per kind, with means, the worst, and the largest residual."""
    share = "zeros" if run.kind == "weights" else "stay"
    head = ["kind", "count", share, "error", "worst", "held-out", "worst", "worst KKT", "s"]
    rows = []
    for kind, label in zip(run.grid.kinds, run.grid.labels):
        some = [run.rows[place] for place in run.grid.of_kind(kind)]
        errors, heldout = [row.error for row in some], [row.heldout for row in some]
        rows.append(
            [
                label,
                str(len(some)),
                f"{per_cent(mean(row.share for row in some))}%",
                *(figure(value) for value in (mean(errors), worst(errors), mean(heldout), worst(heldout))),
                figure(worst(row.residual for row in some)),
                f"{sum(row.seconds for row in some):.1f}",
            ]
        )
    return table(head, rows)
