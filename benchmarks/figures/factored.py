"""Single layers in other forms: beside matrices of low rank, and on grids of few bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from common.results import read
from figures.markdown import figure, geometric_mean, noted, significant, table, threads


def ratios(rows: Sequence[Mapping[str, Any]], way: str, base: str, key: str) -> float:
    """The geometric mean over operators of a figure of one way over that of another."""
    found = {(row["operator"], row["way"]): row[key] for row in rows}
    operators = dict.fromkeys(row["operator"] for row in rows)
    return geometric_mean([found[each, way] / found[each, base] for each in operators])


def seconds_of(rows: Sequence[Mapping[str, Any]], way: str) -> str:
    """What one operator takes, in the geometric mean."""
    return significant(geometric_mean([row["seconds"] for row in rows if row["way"] == way]))


def low_ranks() -> str:
    """Ways to keep half of the numbers, as ratios to `l0`."""
    results = read("low_rank")
    rows = results["rows"]
    ways = list(dict.fromkeys(row["way"] for row in rows))
    shown = []
    for way in ways:
        errors = [figure(ratios(rows, way, "l0", key), 3) for key in ("error", "test_error")]
        parameters = ratios(rows, way, "l0", "parameters")
        shown.append([f"`{way}`" if way == "l0" else way, f"{parameters:.3f}", *errors, seconds_of(rows, way)])
    note = (
        f"Geometric means over {len({row['operator'] for row in rows})} operators, over those of `l0` at 50 % zeros but for "
        f"the seconds; all are damped by {results['damping']:g} of the diagonal."
    )
    return noted(table(("way", "numbers", "error", "test error", "s"), shown), f"{note} {threads(1)}")


def quantised() -> str:
    """Ways to prune and quantise, as ratios to SparseGPT's answer before it is quantised."""
    results, shown = read("quantised"), []

    def of(pattern: str) -> list[Mapping[str, Any]]:
        """The rows of a pattern."""
        return [row for row in results["rows"] if row["pattern"] == pattern]

    patterns = list(dict.fromkeys(row["pattern"] for row in results["rows"]))
    base = "sparsegpt, not quantised"
    for way in dict.fromkeys(row["way"] for row in results["rows"]):
        errors = [figure(ratios(of(each), way, base, key), 3) for each in patterns for key in ("error", "test_error")]
        shown.append([way, *errors, seconds_of(of(patterns[0]), way)])
    head = ("way", *(f"{each.replace('%', ' %')}: {what}" for each in patterns for what in ("error", "test error")), "s")
    note = (
        f"Geometric means over {len({row['operator'] for row in results['rows']})} operators, over those of the first row; "
        f"seconds are those at {patterns[0]}. {results['bits']} bits, {results['group']} inputs to a scale."
    )
    return noted(table(head, shown), f"{note} {threads(1)}")
