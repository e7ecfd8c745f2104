"""FISTAPruner's own tables as far as one model allows: zeros, warm starts, DSnoT, error corrections, calibration sizes.

    python benchmarks/fistapruner_tables.py [--cells REGEX] [--out FILE]
    python benchmarks/fistapruner_tables.py --text FOLDER [--cells REGEX] [--out FILE]

Cells are named by what they stand for in the paper: Figure 3 (perplexity by sparsity and method), Table 3 (Wanda + DSnoT),
Figure 4(b) (calibration sizes in powers of two), Table 6 (starts from magnitude and dense weights), Table 11 (5 % zeros, with
errors of earlier operators corrected in the block, in the model, or not at all); and Algorithm 1 as it is printed beside the
one that is mended. `global magnitude` is one threshold for all operators.

Without texts a small llama is trained on bytes of the text that ships with Python, and figures are the perplexity per byte of
text that nothing else reads. With texts it is gemma-3-270m, measured as `common/protocol.py` says.
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
from common.protocol import TEXTS, Protocol
from common.results import RESULTS

from gramian.adapters import prune
from gramian.adapters.data.tokens import plain_windows
from gramian.adapters.measure.likelihood import perplexity
from gramian.tables import table

SPARSITIES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
CALIBRATE, JUDGED = 32, 128
CORRECTIONS = {"none": ("own", "dense"), "in blocks": ("block", "dense"), "in the model": ("model", "pruned")}


def cells() -> dict[str, dict[str, Any]]:
    """Name -> `samples`, calibration windows, and keywords of `prune`, or a fraction `global`; the dense model has none."""
    found: dict[str, dict[str, Any]] = {"dense": {}}
    methods = ("magnitude", "wanda", "sparsegpt", "fistapruner")
    for sparsity in SPARSITIES:
        for method in methods:
            found[f"figure 3, {sparsity:.0%} {method}"] = {"method": method, "sparsity": sparsity}
        found[f"figure 3, {sparsity:.0%} global magnitude"] = {"global": sparsity}
    for name, amount in (("25%", 0.25), ("50%", 0.5), ("2:4", "2:4")):
        for start in ("magnitude", "dense"):
            options = {"options": {"warm_start": start}}
            found[f"table 6, {name} fistapruner from {start}"] = {"method": "fistapruner", "sparsity": amount, **options}
        found[f"table 6, {name} magnitude"] = {"method": "magnitude", "sparsity": amount}
    for name, amount in (("50%", 0.5), ("2:4", "2:4")):
        rows = {"per_row": True} if name == "50%" else {}
        found[f"table 3, {name} wanda + dsnot"] = {"method": "dsnot", "sparsity": amount, "options": {"start": "wanda"}, **rows}
        found[f"table 3, {name} fistapruner"] = {"method": "fistapruner", "sparsity": amount}
        found[f"algorithm 1, {name} as printed"] = {"method": "fistapruner-printed", "sparsity": amount}
        found[f"algorithm 1, {name} mended"] = {
            "method": "fistapruner", "sparsity": amount, "options": {"warm_start": "wanda"}
        }  # fmt: skip
    for name, (target, inputs) in CORRECTIONS.items():
        found[f"table 11, 5% corrected {name}"] = {
            "method": "fistapruner", "sparsity": 0.05, "target": target, "calibrate_on": inputs
        }  # fmt: skip
    for samples in (1, 2, 4, 8, 16, 32):
        for method in methods[1:]:
            found[f"figure 4b, {samples} windows {method}"] = {"method": method, "sparsity": 0.5, "samples": samples}
    return found


def global_magnitude(model: Any, sparsity: float) -> None:
    """W on the largest |W_ij| of all operators of the blocks together, in place: one threshold for the model."""
    report = prune(copy.deepcopy(model), torch.zeros((1, 2), dtype=torch.int64), "magnitude", sparsity=0.0, progress=False)
    weights = [model.get_submodule(row.name).weight for row in report.operators]
    scores = torch.cat([weight.detach().abs().flatten() for weight in weights])
    order = torch.argsort(scores, stable=True)[: int(sparsity * len(scores) + 0.5)]
    kept = torch.ones(len(scores), dtype=torch.bool)
    kept[order] = False
    with torch.no_grad():
        for weight, mask in zip(weights, kept.split([weight.numel() for weight in weights])):
            weight.mul_(mask.view(weight.shape))


def pruned(keywords: Mapping[str, Any], dense: Any, windows: torch.Tensor) -> tuple[Any, dict[str, Any]]:
    """The model of a cell, and what its report says."""
    model, given = copy.deepcopy(dense), dict(keywords)
    samples = given.pop("samples", CALIBRATE)
    if "global" in given:
        global_magnitude(model, given["global"])
    elif given:
        report = prune(model, windows[:samples], progress=False, **given)
        return model, {"error": report.to_dict()["mean_error"], "seconds": report.seconds}
    return model, {}


def show(results: Mapping[str, Any]) -> None:
    rows = []
    for name, cell in results.items():
        seconds = f"{cell['seconds']:.0f}" if "seconds" in cell else "-"
        rows.append([name, *(f"{value:.3f}" for value in cell["perplexity"].values()), seconds])
    texts = next(iter(results.values()))["perplexity"]
    print(table(["model", *texts, "prune s"], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, metavar="FOLDER", help="where the protocol's texts are, for gemma-3-270m")
    parser.add_argument("--cells", default="", metavar="REGEX", help="run only cells whose name the expression finds")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the result file")
    arguments = parser.parse_args()
    if arguments.text is None:
        small = cache(trained)

        def of_bytes(_: str, keywords: Mapping[str, Any]) -> dict[str, Any]:
            dense, windows, apart = small()
            chosen = torch.randperm(len(windows), generator=torch.Generator().manual_seed(0))[:CALIBRATE]
            model, found = pruned(keywords, dense, windows[chosen])
            return {**found, "perplexity": {"bytes": perplexity(model, apart[:JUDGED], batch=16).value}}

        out = arguments.out or RESULTS / "fistapruner_tables.json"
        show(resumed(cells(), arguments.cells, out, of_bytes))
        return
    out = arguments.out or RESULTS / "fistapruner_tables_model.json"
    losses = out.with_suffix("")
    losses.mkdir(parents=True, exist_ok=True)
    loaded = cache(lambda: Protocol.load(arguments.text))

    def run(name: str, keywords: Mapping[str, Any]) -> dict[str, Any]:
        protocol = loaded()
        model, found = pruned(keywords, protocol.model, plain_windows(protocol.calibration))
        return {**found, "perplexity": protocol.evaluate(model, tuple(TEXTS), losses, name)}

    show(resumed(cells(), arguments.cells, out, run))


if __name__ == "__main__":
    main()
