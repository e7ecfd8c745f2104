"""What it brings to fit all that is left of a block together, after its operators are pruned, and other ways to do it.

    python benchmarks/block_refits.py [--models FOLDER] [--cells REGEX] [--out FILE]
    python benchmarks/block_refits.py --text FOLDER [--cells REGEX] [--out FILE]

Without a text, a llama and a gemma3 of four blocks are trained on bytes of the built-in text, pruned with 64 windows of it, and
judged by their mean loss per byte on windows that trained and calibrated nothing. `--models` keeps them for the next time. With
one, gemma-3-270m is pruned and judged as `common/protocol.py` says.

By default blocks are refitted as `--refit block` does. Of the llama, also with other targets and steps; and by conjugate
gradients (`common/block_rivals.py`): of all weights, of those in which the block is linear, of norms alone.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Mapping
from contextlib import nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from common.block_rivals import GaussNewton
from common.byte_models import held_loss, train, windows_of
from common.cells import resumed
from common.protocol import TEXTS, Protocol
from common.results import RESULTS
from transformers import AutoConfig, AutoModelForCausalLM

from gramian.adapters import builtin_text, prune
from gramian.adapters.passes import block_refits
from gramian.adapters.passes.block_fits import RATE, BlockFit
from gramian.tables import table

SHAPE: dict[str, Any] = {
    "vocab_size": 258, "hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 6,
    "num_key_value_heads": 3, "head_dim": 16, "max_position_embeddings": 256,
}  # fmt: skip
TYPES: dict[str, dict[str, Any]] = {"llama": SHAPE, "gemma3_text": SHAPE | {"sliding_window": 64}}
LENGTH, STEPS, WINDOWS, JUDGED = 128, 1200, 64, 256
AMOUNTS: dict[str, dict[str, Any]] = {
    "sparsegpt 50%": {"method": "sparsegpt", "sparsity": 0.5},
    "sparsegpt 2:4": {"method": "sparsegpt", "sparsity": "2:4"},
    "l0 50%": {"method": "l0", "sparsity": 0.5},
    "l0 2:4": {"method": "l0", "sparsity": "2:4"},
    "numerical 20%": {"method": "numerical", "ratio": 0.2},
    "numerical 50%": {"method": "numerical", "ratio": 0.5},
}
FITS: dict[str, Any] = {  # how blocks are fitted, beside how they are by default
    "half as long steps": partial(BlockFit, rate=RATE / 2),
    "twice as long steps": partial(BlockFit, rate=2 * RATE),
    "ten epochs": partial(BlockFit, epochs=10),
    "Gauss-Newton": partial(GaussNewton, steps=8),
    "Gauss-Newton, three times": partial(GaussNewton, parts=("", "", ""), steps=8),
    "down and up by least squares": partial(GaussNewton, parts=("down_proj", "up_proj"), steps=16),
    "norms alone": partial(GaussNewton, parts=("norm", "norm"), steps=16),
}
TARGETS = {"a quarter of the correction": 0.25, "the whole correction": 1.0}


def cells(types: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Name -> the model, keywords of `prune`, and how blocks are fitted."""
    found: dict[str, dict[str, Any]] = {}
    for kind in types:
        found[f"{kind}: dense"] = {"model": kind}
        for name, amount in AMOUNTS.items():
            found[f"{kind}: {name}"] = {"model": kind, **amount}
            found[f"{kind}: {name}, blocks"] = {"model": kind, **amount, "refit": "block"}
    for kind, name in (
        (kind, name) for kind in types for name in ("sparsegpt 50%", "l0 50%", "l0 2:4") if kind != "gemma3_text"
    ):
        how = {"model": kind, **AMOUNTS[name], "refit": "block"}
        found |= {f"{kind}: {name}, {target}": {**how, "target_blend": blend} for target, blend in TARGETS.items()}
        known = FITS if kind in TYPES else {fit: each for fit, each in FITS.items() if "steps" in fit}
        found |= {f"{kind}: {name}, {fit}": {**how, "fit": fit} for fit in known}
    return found


def trained(kind: str, windows: torch.Tensor, folder: Path | None) -> Any:
    """A model of a type, from the folder if it is there."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **TYPES[kind]), dtype=torch.float32)
    file = None if folder is None else folder / f"{kind}.pt"
    if file is not None and file.exists():
        model.load_state_dict(torch.load(file, weights_only=True))
        return model.eval().requires_grad_(False)
    train(model, windows, STEPS)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), file)
    return model


def pruned(dense: Any, tokens: Any, heldout: torch.Tensor, keywords: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A copy, pruned as a cell says, and what its report says, of blocks as means before and after."""
    how = {name: value for name, value in keywords.items() if name not in ("model", "fit")}
    model, fit = copy.deepcopy(dense), FITS.get(keywords.get("fit", ""))
    if "method" not in how:
        return model, {}
    with nullcontext() if fit is None else mock.patch.object(block_refits, "BlockFit", fit):
        report = prune(model, tokens, heldout=heldout, progress=False, **how)
    found = {"seconds": report.seconds, "mean_error": report.mean_error, "mean_heldout_error": report.mean_heldout_error}
    if report.blocks:
        found |= {"refit_seconds": sum(row.seconds for row in report.blocks), "epochs": [row.epochs for row in report.blocks]}
        for key in ("error", "aside_error", "heldout_error"):
            found[key] = [statistics.mean(pair) for pair in zip(*(getattr(row, key) for row in report.blocks))]
    return model, found


def bytes_cell(models: Any, name: str, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """A cell of a model over bytes."""
    windows, apart = windows_of(builtin_text(), LENGTH), windows_of(builtin_text("heldout"), LENGTH)
    chosen = windows[torch.randperm(len(windows), generator=torch.Generator().manual_seed(0))[:WINDOWS]]
    model, report = pruned(models(keywords["model"]), chosen, apart[JUDGED : JUDGED + 16], keywords)
    found = {"loss": held_loss(model, apart[:JUDGED]), "report": report}
    print(name, found["loss"], report.get("refit_seconds", 0), flush=True)
    return found


def protocol_cell(protocol: Any, losses: Path, name: str, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """A cell of gemma-3-270m."""
    known = protocol()
    model, report = pruned(known.model, known.calibration, known.heldout, keywords)
    return {"report": report, "perplexity": known.evaluate(model, tuple(TEXTS), losses, name.replace("/", " "))}


def show(results: Mapping[str, Any]) -> None:
    rows = []
    for name, cell in results.items():
        figures = [cell["loss"]] if "loss" in cell else list(cell["perplexity"].values())
        rows.append([name, ", ".join(f"{each:.4f}" for each in figures), f"{cell['report'].get('refit_seconds', 0):.1f}"])
    print(table(["cell", "loss, or perplexity", "s in refits"], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, metavar="FOLDER", help="where the protocol's texts are")
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="where models over bytes are kept")
    parser.add_argument("--cells", default="", metavar="REGEX", help="run only cells whose name the expression finds")
    parser.add_argument("--out", type=Path, default=RESULTS / "block_refits.json", metavar="FILE", help="the result file")
    arguments = parser.parse_args()
    if arguments.text is None:
        models = cache(lambda kind: trained(kind, windows_of(builtin_text(), LENGTH), arguments.models))
        show(resumed(cells(TYPES), arguments.cells, arguments.out, partial(bytes_cell, models)))
        return
    losses = arguments.out.with_suffix("")
    losses.mkdir(parents=True, exist_ok=True)
    protocol = cache(lambda: Protocol.load(arguments.text))
    show(resumed(cells({"gemma-3-270m": None}), arguments.cells, arguments.out, partial(protocol_cell, protocol, losses)))


if __name__ == "__main__":
    main()
