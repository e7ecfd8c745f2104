"""The rest of the field: other ways to take bytes from the operators of the first blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.results import read
from figures.markdown import figure, listed, noted, perplexity, table, worse

PLAIN = {  # cells by the cell of as many bytes that they change
    "50% sparsegpt, owl": "50% sparsegpt",
    "50% sparsegpt, alpha": "50% sparsegpt",
    "50% sparsegpt, search": "50% sparsegpt",
    "50% sparsegpt, target of l0": "50% sparsegpt",
    "50% fistapruner": "50% sparsegpt",
    "50% dsnot": "50% wanda",
    "50% magnitude, global": "50% magnitude",
    "50% sparse-low-rank": "50% sparsegpt, target of l0",
    "50% low-rank": "50% sparsegpt, target of l0",
    "2:4 sparsegpt, target of l0": "2:4 sparsegpt",
    "2:4 fistapruner": "2:4 sparsegpt",
    "50% sparsegpt, two domains": "50% sparsegpt",
    "2:4 dsnot": "2:4 wanda",
}
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
    """All cells that were measured, and which is best of those that take as many bytes."""
    results = read("field")
    dense = read("end_to_end")["dense"]["perplexity"]
    blocks = next(iter(results.values()))["keywords"]["blocks"]
    alike: dict[str, list[str]] = {}
    for name, cell in sorted(results.items(), key=lambda item: item[1]["bytes"]):
        alike.setdefault(f"{cell['bytes'] / cell['dense_bytes']:.0%}", []).append(name)
    value = {name: (cell["bytes"], cell["perplexity"]["wikitext2"]) for name, cell in results.items()}
    best = {part: min(names, key=lambda each: value[each][1]) for part, names in alike.items() if len(names) > 1}
    front = [
        short(name)
        for name, (size, own) in value.items()
        if not any(other <= size and lower < own for other, lower in value.values())
    ]
    shown = listed([f"{short(name)} at {part.replace('%', ' %')}" for part, name in best.items()])
    note = (
        f"Blocks {blocks} of gemma-3-270m are compressed; the dense model is at {perplexity(dense['wikitext2'])} and "
        f"{perplexity(dense['ptb'])}. Of cells that take as many bytes the best on WikiText-2 are {shown}; "
        f"none that takes as few bytes is better than {listed(front)}."
    )
    note += worse(results, PLAIN, short, "as many bytes")
    return noted(table(list(HEAD), rows_of(results)), note)


def short(name: str) -> str:
    """A cell's name in a sentence."""
    return f"`{name}`".replace("%", " %")
