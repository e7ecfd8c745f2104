"""The rest of the field: other ways to take bytes from the operators of the first blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.results import read
from figures.markdown import figure, noted, perplexity, table

HEAD = ("cell", "numbers", "bytes", "WikiText-2", "PTB", "held-out error", "minutes")


def rows_of(results: Mapping[str, Any]) -> list[list[str]]:
    """A row for every cell."""
    return [
        [
            name.replace("%", " %"),
            *(
                f"{part:.1%}".replace("%", " %")
                for part in (2 * cell["numbers"] / cell["dense_bytes"], cell["bytes"] / cell["dense_bytes"])
            ),
            *(perplexity(cell["perplexity"][text]) for text in ("wikitext2", "ptb")),
            figure(cell["report"]["mean_heldout_error"]),
            f"{cell['report']['seconds'] / 60:.1f}",
        ]
        for name, cell in results.items()
    ]


def others() -> str:
    """All cells that were measured, and which is best at no more bytes than 2:4 takes, and than half zeros."""
    results = read("field")
    dense = read("end_to_end")["dense"]["perplexity"]
    blocks = next(iter(results.values()))["keywords"]["blocks"]
    best = []
    for name in ("2:4 sparsegpt", "50% sparsegpt"):
        limit = results[name]["bytes"] * 1.02
        inside = [each for each, cell in results.items() if cell["bytes"] <= limit]
        best.append(min(inside, key=lambda each: results[each]["perplexity"]["wikitext2"]).replace("%", " %"))
    note = (
        f"Blocks {blocks} of gemma-3-270m are compressed; the dense model is at {perplexity(dense['wikitext2'])} and "
        f"{perplexity(dense['ptb'])}. Best on WikiText-2 at the bytes of 2:4 is `{best[0]}`, and at those of half "
        f"zeros `{best[1]}`."
    )
    return noted(table(list(HEAD), rows_of(results)), note)
