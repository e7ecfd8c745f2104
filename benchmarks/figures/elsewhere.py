"""Smaller models where there is no gramian."""

from __future__ import annotations

from typing import Any

from common.results import read
from figures.markdown import noted, table

HEAD = ("removed", "loads", "logits apart", "cache", "Trainer's checkpoint", "saved again", "harness")


def shown(value: Any) -> str:
    """What came of a try: a figure, `equal` where it is none at all, or a dash where it failed."""
    if isinstance(value, bool):
        return "equal" if value else "differs"
    if value == 0:
        return "equal"
    return f"{value:.0e}" if isinstance(value, float) else "-"


def tried() -> str:
    """A row for every type, allocation and ratio."""
    results = read("smaller_models")
    rows = []
    for name, found in results["rows"].items():
        tries = (shown(found.get(key)) for key in ("apart", "cache", "trainer", "saved again"))
        harness = found.get("harness")
        rows.append(
            [
                name.replace("%", " %"),
                f"{100 * found['removed']:.1f} %" if "removed" in found else "-",
                found.get("loads", "-"),
                *tries,
                f"{harness:.2f}" if isinstance(harness, float) else "-",
            ]
        )
    stock = sum(found.get("loads") == "stock" for found in results["rows"].values())
    return noted(
        table(("model, widths, ratio", *HEAD), rows),
        f"Of {len(rows)} models {stock} load with stock classes. Logits are compared with those of `gramian.load`, and after a "
        f"step of Trainer with those of the trained model; figures are relative to the largest logit. The last column is a "
        f"log-likelihood. With transformers {results['versions']['transformers']}.",
    )
