"""Pruned models after `tune`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.results import read
from figures.markdown import noted, table, threads

HEAD = ("model", "WikiText-2", "PTB", "zeros held", "tokens read", "minutes", "held-out loss")


def tuned_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """A row for every model that was pruned, and for every way in which it was tuned."""
    rows: list[list[str]] = []
    for name, cell in results.items():
        base, _, way = name.partition(", ")
        report, row = cell["report"], [f"`{base}`", *figures(cell["before"]), "-", "-", "-", "-"]
        if row not in rows:
            rows.append(row)
        zeros, checks = report["zeros"], report["checks"]
        rows.append(
            [
                f"… {way}", *figures(cell["perplexity"]),
                "-" if not zeros["before"] else "all" if zeros["after"] >= zeros["before"] else "lost",
                f"{report['tokens']:,}", f"{report['seconds'] / 60:.0f}",
                f"{checks[0]['loss']:.3f} to {checks[-1]['loss']:.3f}",
            ]
        )  # fmt: skip
    return rows


def figures(perplexity: Mapping[str, float]) -> list[str]:
    """Perplexities of both texts."""
    return [f"{perplexity['wikitext2']:.2f}", f"{perplexity['ptb']:.1f}"]


def tuned() -> str:
    """Perplexity before and after."""
    results, dense = read("tune"), read("end_to_end")["dense"]["perplexity"]
    note = f"The dense model is at {' and '.join(figures(dense))}. {threads(next(iter(results.values()))['threads'])}"
    return noted(table(HEAD, tuned_rows(results)), note)
