"""The figure of what more text brings, and what it costs: perplexity of gemma-3-270m against minutes.

    python benchmarks/text_and_time.py [--out FILE]

It draws what `combined.py` measured: models with half zeros, or 2:4, whose moments, refitted blocks and training
had 32 windows of text, or more; training may end before it has read all of them. A line joins models of one method and amount.
It needs the extra `report`.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.results import RESULTS, read

from gramian.adapters.files import write_bytes

TEXTS = {"wikitext2": "WikiText-2", "ptb": "PTB"}
TRAINED = {"": "", "trained on the same text": "trained, 32 windows", "trained on all of the text": "trained, all text"}
REFITS = {"sparsegpt": "SparseGPT 50 %", "sparsegpt, blocks": "SparseGPT 50 %, blocks refitted"}
MARKS = "osD^v"


def points() -> Iterator[tuple[str, str, float, dict[str, float]]]:
    """Line, label, minutes, and perplexity by text, of every model that was measured."""
    results = read("combined")
    for name, line in REFITS.items():
        for windows in ("32", "128", "all"):
            if cell := results.get(f"more text: {name}, {windows} windows"):
                yield line, f"{windows} windows", cell["report"]["seconds"] / 60, cell["perplexity"]
    for amount in ("50%", "2:4"):
        line = f"l0 {amount.replace('%', ' %')}"
        for trained, label in TRAINED.items():
            if cell := results.get(f"{amount} l0{trained and ', '}{trained}"):
                seconds = cell["report"]["seconds"] + cell.get("training", {}).get("seconds", 0)
                yield line, label or "32 windows", seconds / 60, cell["perplexity"]


def said() -> str:
    """What the figure shows, in words."""
    each = (
        f"{line}, {label}: {minutes:.1f} minutes, " + ", ".join(f"{name} {values[text]:.2f}" for text, name in TEXTS.items())
        for line, label, minutes, values in points()
    )
    return "; ".join(each)


def drawn() -> Any:
    """Perplexity against minutes, a panel for each text."""
    from matplotlib.figure import Figure

    figure, found = Figure(figsize=(9, 4.2), layout="constrained"), list(points())
    for axes, (text, title) in zip(figure.subplots(1, 2), TEXTS.items()):
        for mark, line in zip(MARKS, dict.fromkeys(each[0] for each in found)):
            own = [each for each in found if each[0] == line]
            axes.plot([each[2] for each in own], [each[3][text] for each in own], marker=mark, linewidth=0.8, label=line)
            for _, label, minutes, values in own:
                axes.annotate(label, (minutes, values[text]), (4, 4), textcoords="offset points", fontsize=7)
        axes.set(title=title, xlabel="minutes, pruning and training", ylabel="perplexity")
        axes.margins(x=0.25)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncol=4, fontsize=8)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "text_and_time.svg", metavar="FILE", help="the figure")
    out: Path = parser.parse_args().out
    import matplotlib

    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "text"})  # the same to the byte each time
    made = io.BytesIO()
    drawn().savefig(made, format="svg", metadata={"Date": None, "Description": said()})
    write_bytes(out, made.getvalue())
    print(f"{out}: {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
