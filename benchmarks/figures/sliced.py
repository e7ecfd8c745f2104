"""A narrower stream beside fewer units, on a small llama over bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.results import read
from figures.markdown import figure, noted, table

HEAD = ("removed by", "of the blocks' parameters", "width of the stream", "KL", "perplexity")


def rows_of(results: Mapping[str, Any]) -> list[list[str]]:
    """A row for every cell."""
    return [
        [
            name.partition(" ")[2],
            f"{1 - cell['parameters'][1] / cell['parameters'][0]:.1%}".replace("%", " %"),
            str(cell["width"]),
            figure(cell["divergence"]),
            figure(cell["perplexity"], 3),
        ]
        for name, cell in results.items()
    ]


def narrower() -> str:
    """All cells that were measured."""
    results = read("sliced")
    dense = next(iter(results.values()))["dense_perplexity"]
    return noted(table(HEAD, rows_of(results)), f"The dense model is at {dense:.3f}.")
