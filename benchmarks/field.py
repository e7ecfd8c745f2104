"""What else compresses operators, in the same path: wrapped cores, low rank, grids, other masks, other budgets.

    python benchmarks/field.py --text FOLDER [--blocks A:B] [--cells REGEX] [--out FILE]

`common/protocol.py` says what FOLDER holds and how perplexity is measured. The first blocks of gemma-3-270m are compressed, and
the others remain, each method with its own settings. Inside of those that have a method in them that is SparseGPT, so that what
is compared is what stands around it; beside those that aim at the dense model's output, as `l0` does, it stands with that
target. Bytes are those of the compressed operators: two for a stored number; for positions of zeros a bit a
weight, or of 2:4 two bits a kept one; codes and scales as they are packed, in which zeros take as much as other codes.

Two domains are 16 windows of WikiText-2's and 16 of PTB, of that part of its text that perplexity is not measured on.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from common.cells import resumed
from common.protocol import TEXTS, Protocol
from common.results import RESULTS, summary
from figures.field import HEAD, rows_of

from gramian import prune
from gramian.adapters.data.tokens import Tokens
from gramian.tables import table

OURS = {"target": "model", "target_blend": 0.5, "damping": "auto"}  # what `l0` and its like aim at by themselves
METHODS: dict[str, dict[str, Any]] = {
    "sparsegpt": {"method": "sparsegpt"},
    "sparsegpt, target of l0": {"method": "sparsegpt", **OURS},
    "l0": {"method": "l0"},
    "wanda": {"method": "wanda"},
    "dsnot": {"method": "dsnot"},
    "magnitude": {"method": "magnitude"},
    "fistapruner": {"method": "fistapruner"},
}
CELLS: dict[str, dict[str, Any]] = {
    **{f"50% {name}": {**how, "sparsity": 0.5} for name, how in METHODS.items()},
    "50% sparsegpt, owl": {"method": "sparsegpt", "sparsity": 0.5, "allocation": "owl"},
    "50% sparsegpt, alpha": {"method": "sparsegpt", "sparsity": 0.5, "allocation": "alpha"},
    "50% sparsegpt, search": {"method": "sparsegpt", "sparsity": 0.5, "allocation": "search", "search_minutes": 10.0},
    "50% magnitude, global": {"method": "magnitude", "sparsity": 0.5, "allocation": "magnitude"},
    "50% sparse-low-rank": {"method": "sparse-low-rank", "sparsity": 0.5, "options": {"support": "sparsegpt"}},
    "50% low-rank": {"method": "low-rank", "sparsity": 0.5},
    **{f"2:4 {name}": {**how, "sparsity": "2:4"} for name, how in METHODS.items()},
    "50% sparsegpt, two domains": {"method": "sparsegpt", "sparsity": 0.5, "domains": {"wikitext2": 0.5, "ptb": 0.5}},
    "2:4 sparse-low-rank": {"method": "sparse-low-rank", "sparsity": "2:4", "options": {"support": "sparsegpt", "rank": 16}},
    "2:4 armor": {"method": "armor", "sparsity": "2:4", "options": {"warm_start": "sparsegpt", "sweeps": 5}},
    "4 bits": {"method": "sparsegpt-quantised", "sparsity": 0.0},
    "4 bits, 50%": {"method": "sparsegpt-quantised", "sparsity": 0.5},
    "4 bits, 2:4": {"method": "sparsegpt-quantised", "sparsity": "2:4"},
    "8 bits, 2:4": {"method": "sparsegpt-quantised", "sparsity": "2:4", "options": {"bits": 8}},
}


def stored_bytes(row: Mapping[str, Any]) -> float:
    """The bytes of an operator by its row of a report."""
    size, detail = math.prod(row["shape"]), row["detail"]
    if "bytes" in detail:
        return float(detail["bytes"])
    if "core_zeros" in detail:
        kept = size - detail["core_zeros"]
        return 2 * kept + kept / 4 + 2 * float(detail["wrapper_parameters"])
    if "rank" in detail:
        alone = row["sparsity"] == 0
        return 2 * float(detail["parameters"]) + (0 if alone else size / 8)
    kept = size * (1 - row["sparsity"])
    return 2 * kept + (kept / 4 if ":" in row["pattern"] else size / 8)


def stored_numbers(row: Mapping[str, Any]) -> float:
    """The numbers of an operator that are no zeros by its row of a report: weights, and entries of factors."""
    size, detail = math.prod(row["shape"]), row["detail"]
    if "core_zeros" in detail:
        return float(size - detail["core_zeros"] + detail["wrapper_parameters"])
    if "rank" in detail:
        return float(detail["parameters"])
    return float(size * (1 - row["sparsity"]))


def domains_pruned(protocol: Protocol, keywords: Mapping[str, Any]) -> tuple[Any, Any]:
    """The same with as many windows of every domain, and weights by domain."""
    weights = keywords["domains"]
    count, length = len(protocol.calibration.windows) // len(weights), protocol.heldout.shape[1] - 1
    aside = protocol.apart("ptb", length)
    read = {"wikitext2": protocol.calibration.windows[:count], "ptb": aside[:count]}
    windows = {name: Tokens(each, source=name, seed=None) for name, each in read.items()}
    heldout = {"wikitext2": protocol.heldout, "ptb": aside[count : count + len(protocol.heldout)]}
    weighed = {name: (windows[name], weight) for name, weight in weights.items()}
    model = copy.deepcopy(protocol.model)
    report = prune(model, weighed, heldout=heldout, **{key: value for key, value in keywords.items() if key != "domains"})
    print(report, flush=True)
    return model, report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, metavar="FOLDER", help="where the protocol's texts are")
    parser.add_argument("--blocks", default=":6", metavar="A:B", help="the blocks that are compressed (default %(default)s)")
    parser.add_argument("--cells", default="", metavar="REGEX", help="run only cells whose name the expression finds")
    parser.add_argument("--out", type=Path, default=RESULTS / "field.json", metavar="FILE", help="the result file")
    arguments = parser.parse_args()
    losses = arguments.out.with_suffix("")
    losses.mkdir(parents=True, exist_ok=True)
    loaded = cache(lambda: Protocol.load(arguments.text))

    def run(name: str, keywords: Mapping[str, Any]) -> dict[str, Any]:
        protocol = loaded()
        model, report = domains_pruned(protocol, keywords) if "domains" in keywords else protocol.pruned(keywords)
        rows = report.to_dict()["operators"]
        other = {"mean_heldout_error": None} if "domains" in keywords else {}  # of other windows than those of all others
        return {
            "report": {**summary(report.to_dict(), "operators"), **other},
            "bytes": sum(map(stored_bytes, rows)),
            "numbers": sum(map(stored_numbers, rows)),
            "dense_bytes": sum(2 * math.prod(row["shape"]) for row in rows),
            "perplexity": protocol.evaluate(model, tuple(TEXTS), losses, name.replace(":", "-")),
        }

    cells = {name: {**how, "blocks": arguments.blocks} for name, how in CELLS.items()}
    print(table(list(HEAD), rows_of(resumed(cells, arguments.cells, arguments.out, run))))


if __name__ == "__main__":
    main()
