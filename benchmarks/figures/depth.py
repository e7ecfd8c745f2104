"""Whole blocks removed from gemma-3-270m, beside heads and channels at equal parameters."""

from __future__ import annotations

from typing import Any

from common.results import read
from figures.markdown import apart, noted, perplexity, table

RATIOS = ("20%", "50%")
METHODS = {
    "output": "`depth`: divergence of the output",
    "output, not refitted": "… nothing refitted",
    "hidden": "`score=hidden`",
    "hidden, not refitted": "`score=hidden`, nothing refitted",
    "finercut": "`score=finercut`",
    "finercut, not refitted": "`score=finercut`, nothing refitted",
    "block-influence": "`score=block-influence` (ShortGPT)",
    "block-influence, not refitted": "`score=block-influence` (ShortGPT), nothing refitted",
    "numerical": "`numerical`: heads and channels",
}


def shallower() -> str:
    """Both ratios side by side, the lowest perplexity of every column in bold, and which blocks went."""
    results = {**read("depth"), "50% numerical": read("structured")["50% compensated, loss"]}  # the very same run
    measured = [name for name in METHODS if all(f"{ratio} {name}" in results for ratio in RATIOS)]
    head, columns = ["method"], [[METHODS[name] for name in measured]]
    for ratio in RATIOS:
        found = [results[f"{ratio} {name}"] for name in measured]
        shown = ratio.replace("%", " %")
        for text, title in (("wikitext2", "WikiText-2"), ("ptb", "PTB")):
            values = [cell["perplexity"][text] for cell in found]
            head.append(f"{shown}: {title}")
            columns.append([f"**{perplexity(value)}**" if value == min(values) else perplexity(value) for value in values])
        head.append("blocks")
        columns.append([gone(cell) for cell in found])
    ours, units = (results[f"20% {name}"] for name in ("output", "numerical"))
    parameters = ours["report"]["parameters"]
    return noted(
        table(head, [list(row) for row in zip(*columns)]),
        f"At 20 % four blocks of eighteen go, {100 * ours['report']['ratio']:.2f} % of the parameters inside the blocks, and "
        f"{parameters[1] / 1e6:.1f} of {parameters[0] / 1e6:.1f} million remain; `numerical` removes as many. There `depth` is "
        f"{apart(ours['perplexity']['wikitext2'], units['perplexity']['wikitext2'])} it on WikiText-2.",
    )


def gone(cell: dict[str, Any]) -> str:
    """The blocks that went, in the order of the model."""
    return ", ".join(map(str, sorted(cell["report"]["settings"].get("removed_blocks", [])))) or "-"
