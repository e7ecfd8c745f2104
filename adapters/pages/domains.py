"""What was lost on every domain, where calibration text is of several: for tables, for the page, for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gramian.adapters.pages.numerals import mean, number, per_cent, plain_number
from gramian.adapters.pages.page import escape, table_of
from gramian.tables import figure

__all__ = ["domain_figures", "domain_lines", "domain_table", "figure_names"]


def figure_names(domain: str) -> tuple[str, str]:
    """What the errors on the calibration and held-out windows of a domain are called among the figures of a row."""
    return f"error on {domain}", f"held-out on {domain}"


def domain_figures(settings: Mapping[str, Any], details: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every domain with its weight, its windows and the means over rows of the errors on it; None where none was measured."""
    found = []
    for each in settings.get("domains") or ():
        calibration, heldout = (mean(number(row.get(name)) for row in details) for name in figure_names(str(each["name"])))
        found.append({**each, "mean_error": calibration, "mean_heldout_error": heldout})
    return found


def domain_lines(settings: Mapping[str, Any], details: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for every domain, below the table of a run."""
    lines = []
    for each in domain_figures(settings, details):
        heldout = "" if each["mean_heldout_error"] is None else f", held-out {figure(each['mean_heldout_error'])}"
        windows = f"{each['windows']} windows, each token counted {each['factor']:.4g} times"
        lines.append(
            f"domain {each['name']}: weight {each['weight']:.3g}, {windows}, mean error {figure(each['mean_error'])}{heldout}"
        )
    return lines


def domain_table(
    settings: Mapping[str, Any], details: Sequence[Mapping[str, Any]], perplexities: Mapping[str, Any]
) -> str | None:
    """The table of the page, with perplexity before and after where it was measured; None for one text."""
    rows = []
    for each in domain_figures(settings, details):
        name, measured = str(each["name"]), perplexities.get(str(each["name"]))
        pair = measured if isinstance(measured, Mapping) else {}
        shown = " → ".join(plain_number(number(pair.get(key))) for key in ("dense", "pruned")) if pair else ""
        cells = [f"{escape(name)}<small>{each['windows']} windows</small>", per_cent(number(each["weight"]))]
        rows.append([*cells, per_cent(each["mean_error"]), per_cent(each["mean_heldout_error"]), escape(shown)])
    if not rows:
        return None
    head = ["domain", "weight %", "error %", "held-out %", "perplexity"]
    return table_of("Means over all rows, on each domain alone", head, rows, more="Perplexity is that of held-out windows.")
