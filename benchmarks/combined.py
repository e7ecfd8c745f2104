"""What combines with `l0`: heads turned, blocks refitted, training, more text; each alone and all together.

    python benchmarks/combined.py --text FOLDER --models FOLDER [--cells REGEX] [--out FILE]

`common/protocol.py` says what FOLDER holds and how perplexity is measured. A cell prunes gemma-3-270m, to half zeros or to
2:4, and then may train what is kept (`tune`), with the dense model as the teacher: on the windows that calibrated, on these and
twice as many that the dense model goes on with from parts of them, or for half an hour on WikiText-2's validation text but for
the eight windows that errors are measured on: these say when it ends. A dense model trained alike shows how much of the gain is
the text's.
Pruned models stay in the folder of --models, and later cells take them from there. Under "more text" SparseGPT's moments and
the refits of its blocks have 4 and 15 times as many windows: 128, and all but the eight that errors are measured on.

Losses by token are kept beside the result file. Differences from the plain `l0` of the same amount are the means over tokens of
the difference of negative log-likelihoods, with their paired standard errors.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from common.cells import resumed
from common.protocol import TEXTS, Protocol
from common.results import RESULTS, summary
from figures.combined import HEAD, rows_of

from gramian import load, prune, save, tune
from gramian.adapters.data.tokens import Tokens
from gramian.adapters.data.windows import text_windows
from gramian.adapters.measure.likelihood import Perplexity, paired_difference
from gramian.tables import table

LENGTH, HELDOUT = 512, 8  # of windows; how many follow the 32 that calibrate and are only for errors
AMOUNTS: dict[str, Any] = {"50%": 0.5, "2:4": "2:4"}
ADDED: dict[str, dict[str, Any]] = {
    "l0": {},
    "l0, turned": {"rotate_heads": True},
    "l0, blocks": {"refit": "block"},
    "l0, turned, blocks": {"rotate_heads": True, "refit": "block"},
}
REORDERED = {"permute_channels": True}  # beside turned heads, where the pattern is n:m
KEPT = {"train": "kept", "precision": "bf16", "batch": 1, "at_once": 1}  # with little text many steps, each of them small
SAME = {"windows": 32, "tuned": {**KEPT, "lr": 2e-5, "epochs": 2}}
LONGER = {  # an epoch of the same windows and twice as many that the dense model goes on with
    "windows": 32, "tuned": {**KEPT, "lr": 2e-5, "written": 64},
}  # fmt: skip
WHOLE = {"windows": None, "tuned": {"train": "kept", "precision": "bf16", "lr": 1e-4, "epochs": 2, "minutes": 30}}
DENSE = ", trained on the same text"  # also of the dense model: what of the gain is the text's
TRAINED = {
    "": {},
    ", trained on the same text": SAME,
    ", trained on the same text, gone on with": LONGER,
    ", trained on all of the text": WHOLE,
}
LONG = ("files", "refitted_blocks", "recipe")  # of a report, which results do without
WINDOWS = (32, 128, None)  # of more text; None: all


def cells() -> dict[str, dict[str, Any]]:
    """Name -> keywords of `prune`, how many windows calibrate, and keywords of `tune`."""
    found: dict[str, dict[str, Any]] = {}
    for amount, sparsity in AMOUNTS.items():
        for added, more in ADDED.items():
            turned = REORDERED if "rotate_heads" in more and amount == "2:4" else {}
            pruned = {"method": "l0", "sparsity": sparsity, **more, **turned}
            for trained, how in TRAINED.items():
                found[f"{amount} {added}{trained}"] = {"pruned": pruned, **how}
    found[f"dense{DENSE}"] = {"pruned": None, **TRAINED[DENSE]}
    for count in WINDOWS:
        for name, more in (("sparsegpt", {}), ("sparsegpt, blocks", {"refit": "block"})):
            pruned = {"method": "sparsegpt", "sparsity": 0.5, **more}
            found[f"more text: {name}, {count or 'all'} windows"] = {"pruned": pruned, "calibrating": count}
    return found


def filed(name: str) -> str:
    """A cell's name as that of a file."""
    return name.replace(": ", " ").replace("2:4", "2-4").replace(", ", "-").replace(" ", "-")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, metavar="FOLDER", help="where the protocol's texts are")
    parser.add_argument("--models", type=Path, required=True, metavar="FOLDER", help="where pruned models are kept")
    parser.add_argument("--cells", default="", metavar="REGEX", help="run only cells whose name the expression finds")
    parser.add_argument("--out", type=Path, default=RESULTS / "combined.json", metavar="FILE", help="the result file")
    arguments = parser.parse_args()
    losses = arguments.out.with_suffix("")  # per-token losses, a file for each cell and text
    losses.mkdir(parents=True, exist_ok=True)

    @cache
    def loaded() -> tuple[Protocol, torch.Tensor]:
        protocol = Protocol.load(arguments.text)
        return protocol, text_windows((arguments.text / "wikitext2.valid.txt").read_text(), protocol.tokenizer, LENGTH)

    def windows(count: int | None) -> Tokens:
        """The first windows of the validation text, or all but those on which errors are measured."""
        protocol, text = loaded()
        first = len(protocol.calibration.windows)
        chosen = torch.cat([text[:first], text[first + HELDOUT :]]) if count is None else text[:count]
        if count is not None and count > first:
            chosen = torch.cat([text[:first], text[first + HELDOUT : count + HELDOUT]])
        return Tokens(chosen, source="wikitext2.valid.txt", seed=None)

    def run(name: str, keywords: Mapping[str, Any]) -> dict[str, Any]:
        protocol, _ = loaded()
        place = arguments.models / filed(name.partition(", trained")[0])
        if keywords["pruned"] is None:
            model = copy.deepcopy(protocol.model)
        elif not place.exists():
            model = copy.deepcopy(protocol.model)
            report = prune(model, windows(keywords.get("calibrating", 32)), heldout=protocol.heldout, **keywords["pruned"])
            print(report, flush=True)
            save(model, protocol.tokenizer, place, report=report)
        found: dict[str, Any] = {}
        if keywords["pruned"] is not None:
            model, _ = load(place)
            document = json.loads((place / "gramian.json").read_text())
            found["report"] = {name: value for name, value in summary(document, "operators").items() if name not in LONG}
        if tuning := keywords.get("tuned"):
            text = windows(keywords.get("windows"))
            trained = tune(model, text, teacher=protocol.model, heldout_tokens=protocol.heldout, **tuning)
            print(trained, flush=True)
            found["training"] = trained.to_dict()
        found["perplexity"] = protocol.evaluate(model, tuple(TEXTS), losses, filed(name))
        found["differences"] = differences(losses, name)
        return {**found, "threads": torch.get_num_threads()}

    results = resumed(cells(), arguments.cells, arguments.out, run)
    print(table(list(HEAD), rows_of(results)))


def differences(losses: Path, name: str) -> dict[str, tuple[float, float]]:
    """By text the mean difference from plain `l0` of the same amount, and its standard error, where both were measured."""
    base, found = f"{name.split()[0]} l0", {}
    for text in TEXTS:
        own, plain = (losses / f"{filed(each)} {text}.pt" for each in (name, base))
        if own != plain and plain.exists():
            one, other = (Perplexity(0.0, torch.load(file, weights_only=True)) for file in (own, plain))
            found[text] = paired_difference(one, other)
    return found


if __name__ == "__main__":
    main()
