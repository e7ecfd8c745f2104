"""The page of `gramian solve`: several methods on the same problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from gramian.adapters.pages.attention import CONCERNS, Remark, remarks_as_html, sentence
from gramian.adapters.pages.bars import Bar, bars
from gramian.adapters.pages.heat_map import heat_map, shaded_by_size
from gramian.adapters.pages.kinds import grid_of
from gramian.adapters.pages.numerals import MISSING, count, duration, mean, number, per_cent, plain_number, worst
from gramian.adapters.pages.page import Card, Section, escape, page, table_of
from gramian.adapters.pages.scatter import Cloud, scatter
from gramian.tables import lines_of
from gramian.versions import versions

__all__ = ["page_of_solved"]


def page_of_solved(rows: Sequence[Mapping[str, Any]]) -> str:
    """A page of the rows that `gramian solve --json` writes: a row per file and method."""
    methods = list(dict.fromkeys(str(row["method"]) for row in rows))
    files = list(dict.fromkeys(named(row) for row in rows))
    by = {method: [row for row in rows if row["method"] == method] for method in methods}
    column = "heldout_error" if any("heldout_error" in row for row in rows) else "relative_error"
    text = "held-out text" if column == "heldout_error" else "calibration text"
    best = min(methods, key=lambda method: mean(number(row.get(column)) for row in by[method]) or 0.0)
    lead = [
        f"{count(len(files))} problem{'s' if len(files) > 1 else ''} solved by {', '.join(methods)}.",
        f"The smallest mean error on {text} is that of {best}." if len(methods) > 1 else "",
    ]
    sections = [Section("Certificates and statuses", remarks_as_html(remarks(rows)))]
    means = [Bar(method, 100 * (mean(number(row.get(column)) for row in by[method]) or 0.0)) for method in methods]
    if len(methods) > 1:
        sections.append(Section("Which method is nearest", bars(means, f"Mean error on {text}", "In per cent.", "means")))
    sections.append(Section("By method", summary(by)))
    sections.append(Section("Problem by problem", maps(by, column, text)))
    sections.append(Section("Every row", every_row(rows, len(methods) > 1)))
    known = ", ".join(f"{name} {each}" for name, each in versions().items())
    cards = [Card("problems", count(len(files))), Card("methods", count(len(methods)))]
    cards.append(Card("time", duration(sum(number(row.get("seconds")) or 0.0 for row in rows)), "of all solutions together"))
    return page(
        "gramian solve", "Problems solved", lead, cards, sections, f"Written by gramian; {known}. This page loads nothing."
    )


def named(row: Mapping[str, Any]) -> str:
    """The name of a problem, after its file."""
    return PurePath(str(row["file"])).name.removesuffix(".safetensors")


def residual_of(row: Mapping[str, Any]) -> float | None:
    """The KKT residual of a row."""
    certificate = row.get("certificate")
    return number(certificate.get("residual")) if isinstance(certificate, Mapping) else None


def remarks(rows: Sequence[Mapping[str, Any]]) -> list[Remark]:
    """Statuses that say that something was not reached, and the largest residuals."""
    found = []
    for status, kind in CONCERNS.items():
        if names := tuple(f"{named(row)} ({row['method']})" for row in rows if row.get("status") == status.value):
            title = f"{status.label.capitalize()}: {count(len(names))} of {count(len(rows))} solutions."
            found.append(Remark(kind, title, sentence(status.value), names))
    if not found:
        found.append(Remark("good", "Nothing needs attention.", "Every method ended as it should."))
    return found


def summary(by: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """A row per method."""
    lines = []
    for method, its in by.items():
        errors, heldout = ([number(row.get(name)) for row in its] for name in ("relative_error", "heldout_error"))
        lines.append(
            [
                f"{escape(method)}<small>{escape(str(its[0].get('pattern', '')))}</small>",
                per_cent(mean(errors)),
                per_cent(mean(heldout)),
                plain_number(worst(residual_of(row) for row in its), 2),
                duration(sum(number(row.get("seconds")) or 0.0 for row in its)),
            ]
        )
    head = ["method", "error %", "held-out %", "worst KKT", "time"]
    if all(line[2] == MISSING for line in lines):
        head, lines = [*head[:2], *head[3:]], [[*line[:2], *line[3:]] for line in lines]
    return table_of("Means over the problems", head, lines)


def maps(by: Mapping[str, Sequence[Mapping[str, Any]]], column: str, text: str) -> str:
    """A heat map per method, all in the same shades, and held-out against calibration error."""
    shades = shaded_by_size([number(row.get(column)) for its in by.values() for row in its])
    shown = []
    clouds = []
    for method, its in by.items():
        values = [number(row.get(column)) for row in its]
        shown.append(heat_map(grid_of([named(row) for row in its]), values, shades, method, f"Error on {text}, in per cent."))
        pairs = [(number(row.get("relative_error")), number(row.get("heldout_error"))) for row in its]
        clouds.append(Cloud(method, tuple((one, other) for one, other in pairs if one and other and one > 0 and other > 0)))
    shown.append(scatter(clouds, "Held-out against calibration error", "One mark per problem."))
    return f'<div class="pair">{"".join(shown)}</div>'


def every_row(rows: Sequence[Mapping[str, Any]], several: bool) -> str:
    """The table of all rows."""
    lines = []
    for name, places in lines_of([f"{named(row)}.{row['method']}" if several else named(row) for row in rows]):
        some = [rows[place] for place in places]
        below = f"{some[0].get('pattern', '')} · {str(some[0].get('status', '')).split(':')[0]}"
        lines.append(
            [
                f"{escape(name)}<small>{escape(below)}</small>",
                *(
                    per_cent(mean(number(row.get(key)) for row in some))
                    for key in ("sparsity", "relative_error", "heldout_error")
                ),
                plain_number(worst(residual_of(row) for row in some), 2),
            ]
        )
    table = table_of("All solutions", ["problem", "zeros %", "error %", "held-out %", "KKT"], lines)
    return f"<details><summary>Show the table of {count(len(rows))} rows</summary>\n{table}\n</details>"
