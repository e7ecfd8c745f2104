"""Training after pruning with little text: what the teacher writes beside it, and as much text that people wrote.

    python benchmarks/written.py [--cells REGEX] [--out FILE]

A small llama is trained on bytes of the text that ships with Python, pruned on a few of its windows, and trained further
(`tune`, the dense model as the teacher, divergence alone): on those windows; on these and windows that the teacher goes on with
(`written`); and on these and more windows of the text. Every training makes as many steps. Figures are of 128 windows of other
text that trained, calibrated and ended nothing; what says when training ends are 16 windows of the text.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from allocation import trained
from common.cells import resumed
from common.results import RESULTS
from figures.written import HEAD, rows_of

from gramian import prune, tune
from gramian.adapters.measure.differences import compared
from gramian.tables import table

FEW, MORE, HELDOUT, JUDGED = 16, 48, 16, 128  # windows of 128 bytes
STEPS, BATCH = 256, 4
PRUNED: dict[str, dict[str, Any]] = {
    "l0, 50%": {"method": "l0", "sparsity": 0.5},
    "l0, 2:4": {"method": "l0", "sparsity": "2:4"},
    "numerical, 50%": {"method": "numerical", "ratio": 0.5},
}
TEXTS = {"nothing": (0, 0), "few windows": (FEW, 0), "written": (FEW, MORE), "more windows": (FEW + MORE, 0)}
RATES = (1e-4, 3e-4)  # the better by the windows that say when training ends is taken


def cells() -> dict[str, dict[str, Any]]:
    """Name -> how the model is pruned, and how many windows of the text, and of the teacher's, it is trained on."""
    return {
        f"{pruned}: {name}": {"pruned": how, "text": text, "written": written}
        for pruned, how in PRUNED.items()
        for name, (text, written) in TEXTS.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", default="", metavar="REGEX", help="run only cells whose name the expression finds")
    parser.add_argument("--out", type=Path, default=RESULTS / "written.json", metavar="FILE", help="the result file")
    arguments = parser.parse_args()
    small = cache(trained)

    @cache
    def sparse(name: str) -> Any:
        """The model, pruned."""
        dense, windows, _ = small()
        model = copy.deepcopy(dense)
        prune(model, windows[chosen(windows)[:FEW]], progress=False, **PRUNED[name])
        return model

    def run(name: str, keywords: Mapping[str, Any]) -> dict[str, Any]:
        dense, windows, apart = small()
        order, best = chosen(windows), dict[str, Any]()
        text, ending = windows[order[: keywords["text"]]], windows[order[FEW + MORE :]]
        epochs = STEPS * BATCH // (keywords["text"] + keywords["written"]) if keywords["text"] else 0
        for rate in RATES if epochs else (0.0,):
            model, loss = copy.deepcopy(sparse(name.split(": ")[0])), 0.0
            if epochs:
                report = tune(
                    model, text, teacher=dense, heldout_tokens=ending, lr=rate, blend=1.0, epochs=epochs, batch=BATCH,
                    written=keywords["written"], checks=8, patience=8, positions=1.0, progress=False,
                )  # fmt: skip
                loss = report.checks[-1]["loss"]
            if not best or loss < best["ending_loss"]:
                found = compared(model, dense, apart[:JUDGED], batch=16, progress=False)
                assert found.divergence is not None
                best = {"lr": rate, "ending_loss": loss, "divergence": float(found.divergence.mean())}
        print(best, flush=True)
        return best

    print(table(list(HEAD), rows_of(resumed(cells(), arguments.cells, arguments.out, run))))


def chosen(windows: torch.Tensor) -> torch.Tensor:
    """The numbers of windows that are few, those that are more, and those that say when training ends."""
    return torch.randperm(len(windows), generator=torch.Generator().manual_seed(0))[: FEW + MORE + HELDOUT]


if __name__ == "__main__":
    main()
