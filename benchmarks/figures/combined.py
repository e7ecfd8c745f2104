"""What combines with `l0`, on gemma-3-270m: each alone, and all together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from common.results import read
from figures.markdown import noted, table

HEAD = ("model", "WikiText-2", "nats from `l0`", "PTB", "nats from `l0`", "minutes", "threads")
TEXTS = {"wikitext2": "WikiText-2", "ptb": "PTB"}
GOALS = (
    "Goals: with the 32 windows, in 50 minutes, 26.0 and 98 at 50 %, 31.5 and 128 at 2:4; with all of the text, in two hours, "
)
GOALS += "24.0 and 92, 29.0 and 118."


def rows_of(results: Mapping[str, Any]) -> list[list[str]]:
    """A row for every cell: perplexity, its difference in nats from plain `l0` of the same amount, all minutes."""
    rows = []
    for name, cell in results.items():
        shown = []
        for text in TEXTS:
            mean, error = cell["differences"].get(text, (None, None))
            shown += [f"{cell['perplexity'][text]:.2f}", "-" if mean is None else f"{mean:+.3f} ± {error:.3f}"]
        seconds = cell.get("report", {}).get("seconds", 0) + cell.get("training", {}).get("seconds", 0)
        rows.append([name.replace("%", " %"), *shown, f"{seconds / 60:.0f}", str(cell["threads"])])
    return rows


def combined() -> str:
    """All cells that were measured."""
    results, dense = read("combined"), read("end_to_end")["dense"]["perplexity"]
    base, taught = "dense, trained on the same text", []
    for amount in ("50%", "2:4"):
        plain, trained = (results[f"{amount} l0{more}"]["perplexity"] for more in ("", base.removeprefix("dense")))
        alike = results[base]["perplexity"]
        pairs = [
            (name, math.log(plain[text] / dense[text]), math.log(trained[text] / alike[text])) for text, name in TEXTS.items()
        ]
        gaps = [f"{before:.3f} nats before and {after:.3f} after on {name}" for name, before, after in pairs]
        taught.append(f"{amount.replace('%', ' %')} {', '.join(gaps)}")
    said = (
        "Most of what training on the same text gains is that the model learns the text, as the dense model does when it is "
        f"trained alike. How far `l0` is from the dense model, both trained alike: {'; '.join(taught)}. "
    )
    rows = [["dense", f"{dense['wikitext2']:.2f}", "-", f"{dense['ptb']:.2f}", "-", "-", "-"], *rows_of(results)]
    return noted(table(HEAD, rows), said + GOALS)
