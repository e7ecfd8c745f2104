"""Perplexity of shallower models: whole blocks removed by every score, beside heads and channels at equal parameters.

    python benchmarks/depth.py --text FOLDER [--cells REGEX] [--out FILE]

`common/protocol.py` says what FOLDER holds and how perplexity is measured. gemma-3-270m has eighteen blocks of one size: a
ratio of 20 % removes four of them (22.22 % of the parameters inside the blocks) and one of 50 % nine. `numerical` is asked for
the very part that went, with allocation by `loss`; its run at 50 % is that of `structured.py`. Of every score blocks are
removed with refits to the dense stream and without.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from common.cells import resumed
from common.protocol import TEXTS, Protocol
from common.results import RESULTS, summary

from gramian.adapters.models.block_lists import blocks_of
from gramian.tables import table

RATIOS = (0.2, 0.5)
BLOCKS = 18  # of gemma-3-270m, of one size
SCORES = ("output", "hidden", "finercut", "block-influence")


def cells() -> dict[str, dict[str, Any]]:
    """Name -> keywords of `prune`."""
    found: dict[str, dict[str, Any]] = {}
    for ratio in RATIOS:
        for score in SCORES:
            how = {"method": "depth", "ratio": ratio, "options": {"score": score}}
            found[f"{ratio:.0%} {score}"] = how
            found[f"{ratio:.0%} {score}, not refitted"] = {**how, "compensate": False}
    found["20% numerical"] = {"method": "numerical", "ratio": round(0.2 * BLOCKS) / BLOCKS}
    return found


def show(results: Mapping[str, Any]) -> None:
    rows = [
        [
            name,
            f"{cell['report']['ratio']:.2%}",
            "{:,} -> {:,}".format(*cell["report"]["parameters"]),
            ", ".join(map(str, sorted(cell["report"]["settings"].get("removed_blocks", [])))) or "-",
            *(f"{cell['perplexity'][text]:.2f}" for text in TEXTS),
            f"{cell['report']['seconds']:.0f}",
        ]
        for name, cell in results.items()
    ]
    print(table(["model", "removed", "parameters", "blocks", "WikiText-2", "PTB", "prune s"], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, metavar="FOLDER", help="where the protocol's texts are")
    parser.add_argument("--cells", default="", metavar="REGEX", help="run only cells whose name the expression finds")
    parser.add_argument("--out", type=Path, default=RESULTS / "depth.json", metavar="FILE", help="the result file")
    arguments = parser.parse_args()
    losses = arguments.out.with_suffix("")
    losses.mkdir(parents=True, exist_ok=True)
    loaded = cache(lambda: Protocol.load(arguments.text))

    def run(name: str, keywords: Mapping[str, Any]) -> dict[str, Any]:
        protocol = loaded()
        if len(blocks_of(protocol.model)) != BLOCKS:
            raise SystemExit(f"the model has {len(blocks_of(protocol.model))} blocks, not {BLOCKS}")
        model, report = protocol.pruned(keywords)
        return {
            "report": summary(report.to_dict(), "modules"),
            "perplexity": protocol.evaluate(model, tuple(TEXTS), losses, name),
        }

    show(resumed(cells(), arguments.cells, arguments.out, run))


if __name__ == "__main__":
    main()
