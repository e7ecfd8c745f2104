"""Training after pruning with little text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.results import read
from figures.markdown import figure, noted, table

HEAD = ("model", "as it is", "few windows", "and written ones", "and more of the text")
TEXTS = ("nothing", "few windows", "written", "more windows")


def rows_of(results: Mapping[str, Any]) -> list[list[str]]:
    """The divergence from the dense model, of every model by what it was trained on."""
    cells = results
    models = dict.fromkeys(name.split(": ")[0] for name in cells)
    return [
        [f"`{model.split(',')[0]}`,{model.split(',')[1]}".replace("%", " %"), *(
            figure(cells[f"{model}: {text}"]["divergence"]) if f"{model}: {text}" in cells else "-" for text in TEXTS
        )]
        for model in models
    ]  # fmt: skip


def written() -> str:
    """All models."""
    results = read("written")
    cell = next(each["keywords"] for name, each in results.items() if name.endswith(": written"))
    note = (
        f"KL(dense || pruned) in nats per byte on text that decided nothing. {cell['text']} windows of 128 bytes calibrated; "
        f"{cell['written']} more were written, or are the text's."
    )
    return noted(table(HEAD, rows_of(results)), note)
