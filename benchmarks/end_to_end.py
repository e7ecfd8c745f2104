"""Perplexity of pruned models on a fixed protocol, beside what the published codes reach on it.

    python benchmarks/end_to_end.py --text FOLDER [--cells REGEX] [--out FILE]

`common/protocol.py` says what FOLDER holds and how perplexity is measured. All seven operators of all blocks are pruned.

Three targets (FISTAPruner, Appendix E) are compared at three sparsities with a short search from a Wanda start, on WikiText-2
alone, because nine models take many minutes.

A cell that is in the JSON file already, with the same keywords, is not run again. Differences between two of our models are
paired: the script prints the mean over tokens of the difference of negative log-likelihood, with its standard error.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from common.cells import resumed
from common.clock import phases
from common.protocol import TEXTS, Protocol
from common.results import RESULTS, read, summary

from gramian.adapters import prune
from gramian.adapters.measure.likelihood import Perplexity, paired_difference
from gramian.tables import table


def cells() -> dict[str, dict[str, Any]]:
    """Name -> keywords of `prune`; the dense model has none."""
    fista = {"method": "fistapruner"}
    found: dict[str, dict[str, Any]] = {"dense": {}}
    for name, amount in (("50%", {"sparsity": 0.5}), ("2:4", {"sparsity": "2:4"})):
        found[f"sparsegpt {name}"] = {"method": "sparsegpt", **amount}
        found[f"wanda {name}"] = {"method": "wanda", **amount}
        for warm in ("sparsegpt", "wanda"):
            found[f"fistapruner from {warm} {name}"] = {**fista, **amount, "options": {"warm_start": warm}}
        found[f"fistapruner, refit {name}"] = {**fista, **amount, "refit": "support"}
        found[f"l0 {name}"] = {"method": "l0", **amount}
    for sparsity, max_lambdas in ((0.5, 4), (0.2, 2), (0.1, 2)):
        short = {"warm_start": "wanda", "max_lambdas": max_lambdas}  # enough to compare, not the best that can be had
        for target, inputs in (("own", "dense"), ("block", "dense"), ("model", "pruned")):
            found[f"{100 * sparsity:g}% target {target}"] = {
                **fista, "sparsity": sparsity, "options": short, "calibrate_on": inputs, "target": target
            }  # fmt: skip
    return found


def show(results: dict[str, Any], losses: Path) -> None:
    """The table of the published codes and of our models, then paired differences of ours."""
    rows = [
        [f"{row['code']}, published code", row["pattern"], "-", "-", f"{row['wikitext2']:.2f}", f"{row['ptb']:.1f}", "-"]
        for row in read("published")["perplexity"]["rows"]
    ]
    for name, cell in results.items():
        report = cell.get("report") or {}
        error, heldout = report.get("mean_error"), report.get("mean_heldout_error")
        rows.append(
            [
                name,
                report.get("settings", {}).get("pattern", "-"),
                "-" if error is None else f"{error:.5f}",
                "-" if heldout is None else f"{heldout:.5f}",
                f"{cell['perplexity']['wikitext2']:.2f}",
                f"{cell['perplexity']['ptb']:.1f}" if "ptb" in cell["perplexity"] else "-",
                f"{report['seconds']:.0f}" if report else "-",
            ]
        )
    print(table(["model", "pattern", "mean error", "held-out", "WikiText-2", "PTB", "prune s"], rows))
    print("\nPaired differences of negative log-likelihood per token (nats, mean +- standard error; negative: first is better)")
    for pattern in ("50%", "2:4"):
        for first in (f"l0 {pattern}", f"fistapruner from sparsegpt {pattern}", f"fistapruner from wanda {pattern}"):
            for second in (f"sparsegpt {pattern}", f"wanda {pattern}"):
                for text in TEXTS:
                    paths = [losses / f"{name} {text}.pt" for name in (first, second)]
                    if not all(path.exists() for path in paths):
                        print(f"  {first} - {second}, {text}: per-token losses are missing, delete the cells to run them again")
                    else:
                        a, b = (Perplexity(0.0, torch.load(path, weights_only=True)) for path in paths)
                        mean, error = paired_difference(a, b)
                        print(f"  {first} - {second}, {text}: {mean:+.4f} +- {error:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, metavar="FOLDER", help="where the protocol's texts are")
    parser.add_argument("--cells", default="", metavar="REGEX", help="run only cells whose name the expression finds")
    parser.add_argument("--out", type=Path, default=RESULTS / "end_to_end.json", metavar="FILE", help="the result file")
    arguments = parser.parse_args()
    losses = arguments.out.with_suffix("")  # per-token losses, a file for each cell and text
    losses.mkdir(parents=True, exist_ok=True)

    @cache
    def loaded() -> tuple[Protocol, dict[str, torch.Tensor]]:
        protocol = Protocol.load(arguments.text)
        return protocol, {key: value.clone() for key, value in protocol.model.state_dict().items()}

    def run(name: str, keywords: Mapping[str, Any]) -> dict[str, Any]:
        protocol, original = loaded()
        protocol.model.load_state_dict(original)
        cell: dict[str, Any] = {}
        short = " target " in name
        if keywords:
            with phases() as seconds:
                report = prune(protocol.model, protocol.calibration, heldout=None if short else protocol.heldout, **keywords)
            cell["report"] = summary(report.to_dict(), "operators")
            cell["phases"], cell["threads"] = dict(seconds), torch.get_num_threads()
            print(report, flush=True)
        texts = ("wikitext2",) if short else tuple(TEXTS)
        return cell | {"perplexity": protocol.evaluate(protocol.model, texts, losses, name)}

    results = resumed(cells(), arguments.cells, arguments.out, run)
    show(results, losses)


if __name__ == "__main__":
    main()
