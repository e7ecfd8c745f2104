"""Perplexity of gemma-3-270m, pruned, before and after half an hour of `tune`.

    python benchmarks/tune.py --text FOLDER [--models FOLDER] [--cells REGEX] [--minutes N] [--out FILE]

`common/protocol.py` says what FOLDER holds and how perplexity is measured. The dense model is pruned on the protocol's 32
calibration windows, to half zeros or by a fifth of the parameters inside its blocks, and saved in the folder of --models, where
later cells find it; a model that is there already, as `l0-0.5` or `numerical-0.2`, is taken as it is. Then it is tuned on all
of WikiText-2's validation text, in windows of 512 tokens, with the dense model as the teacher, and measured as it is stored. No
test text decides anything.

A cell that is in the JSON file already, with the same keywords, is not run again.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from common.cells import resumed
from common.protocol import TEXTS, Protocol
from common.results import RESULTS
from figures.training import HEAD, tuned_rows

from gramian import load, prune, save, tune
from gramian.adapters.data.tokens import Tokens
from gramian.adapters.data.windows import text_windows
from gramian.tables import table

LENGTH = 512
PRUNED: dict[str, dict[str, Any]] = {
    "l0 50%": {"method": "l0", "sparsity": 0.5},
    "numerical 20%": {"method": "numerical", "ratio": 0.2},
}
TUNED: dict[str, dict[str, Any]] = {
    "kept": {"train": "kept", "precision": "bf16", "lr": 1e-4},
    "kept, distillation alone": {"train": "kept", "blend": 1.0},
    "kept, next token alone": {"train": "kept", "blend": 0.0},
    "lora": {"train": "lora"},
    "norms": {"train": "norms"},
}


def cells(minutes: float = 30) -> dict[str, dict[str, Any]]:
    """Name -> how the model is pruned, and keywords of `tune`."""
    return {
        f"{model}, {name}": {"pruned": pruning, "tuned": {**tuning, "minutes": minutes, "epochs": 2}}
        for model, pruning in PRUNED.items()
        for name, tuning in TUNED.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, metavar="FOLDER", help="where the protocol's texts are")
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="where pruned models are kept, or are already")
    parser.add_argument("--cells", default="", metavar="REGEX", help="run only cells whose name the expression finds")
    parser.add_argument("--minutes", type=float, default=30, help="of training in every cell (default %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS / "tune.json", metavar="FILE", help="the result file")
    arguments = parser.parse_args()
    losses = arguments.out.with_suffix("")  # per-token losses, a file for each cell and text
    losses.mkdir(parents=True, exist_ok=True)

    @cache
    def loaded() -> tuple[Protocol, Tokens]:
        protocol = Protocol.load(arguments.text)
        file = "wikitext2.valid.txt"
        return protocol, Tokens(text_windows((arguments.text / file).read_text(), protocol.tokenizer, LENGTH), file)

    with tempfile.TemporaryDirectory() as made:
        folder = arguments.models or Path(made)

        def run(name: str, keywords: Mapping[str, Any]) -> dict[str, Any]:
            protocol, tokens = loaded()
            pruning = keywords["pruned"]
            place = folder / "-".join(map(str, pruning.values()))
            if not place.exists():
                model, _ = load("demo")
                report = prune(model, protocol.calibration, **pruning)
                save(model, protocol.tokenizer, place, report=report)
            model, _ = load(place)
            base = name.partition(",")[0]
            before = protocol.evaluate(model, tuple(TEXTS), losses, base)
            tuned = tune(model, tokens, teacher=protocol.model, **keywords["tuned"])
            print(tuned, flush=True)
            after = protocol.evaluate(model, tuple(TEXTS), losses, name)
            return {"before": before, "perplexity": after, "report": tuned.to_dict(), "threads": torch.get_num_threads()}

        results = resumed(cells(arguments.minutes), arguments.cells, arguments.out, run)
    print(table(list(HEAD), tuned_rows(results)))


if __name__ == "__main__":
    main()
