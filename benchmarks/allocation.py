"""How a budget is divided among operators and modules: equally, by outliers, by errors, or searched by the model's output.

    python benchmarks/allocation.py [--cells REGEX] [--out FILE]
    python benchmarks/allocation.py --text FOLDER [--cells REGEX] [--out FILE]

Without texts a small llama (four blocks of width 128) is trained for 600 steps on bytes of the text that ships with Python. Of
its weights, by `l0`, or of its heads and channels, by `numerical`, 50, 60 and 70 % are removed, on 64 windows of 128 bytes. The
figures are the mean divergence of the predictions from the dense model's, KL(dense || pruned) per byte, and the perplexity per
byte, on 128 windows that trained, calibrated and chose nothing; divergences of every eight windows are kept for paired
comparisons.

With texts it is gemma-3-270m, whose perplexity is measured as `common/protocol.py` says, and a search has 30 minutes.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common.byte_models import train, windows_of
from common.cells import resumed
from common.protocol import TEXTS, Protocol
from common.results import RESULTS, summary
from transformers import LlamaConfig, LlamaForCausalLM

from gramian.adapters import builtin_text, prune
from gramian.adapters.measure.differences import Compared, compared
from gramian.tables import table

LENGTH, STEPS, CALIBRATE, HELDOUT, JUDGED, TOGETHER = 128, 600, 64, 16, 128, 8
AMOUNTS = (0.5, 0.6, 0.7)
MINUTES = 30
WEIGHTS, UNITS = ("uniform", "owl", "search"), ("equal", "loss", "search")


def cells(weights: tuple[float, ...], units: tuple[float, ...]) -> dict[str, dict[str, Any]]:
    """Name -> keywords of `prune`."""
    found: dict[str, dict[str, Any]] = {}
    for method, name, amounts, allocations in (
        ("l0", "sparsity", weights, WEIGHTS), ("numerical", "ratio", units, UNITS)
    ):  # fmt: skip
        for amount in amounts:
            for allocation in allocations:
                bound = {"search_minutes": MINUTES} if allocation == "search" else {}
                keywords = {"method": method, name: amount, "allocation": allocation, **bound}
                found[f"{amount:.0%} {method}, {allocation}"] = keywords
    return found


def trained() -> tuple[LlamaForCausalLM, torch.Tensor, torch.Tensor]:
    """A small model, the windows of the text that it was trained on, and those of other text."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256, hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=256, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    model, windows = LlamaForCausalLM(config), windows_of(builtin_text(), LENGTH)
    train(model, windows, STEPS)
    return model, windows, windows_of(builtin_text("heldout"), LENGTH)


def judged(keywords: Mapping[str, Any], dense: Any, windows: torch.Tensor, apart: torch.Tensor) -> tuple[Any, Any, Compared]:
    """A copy of the small model pruned, the report, and how far it is from the dense one on text that decided nothing."""
    model = copy.deepcopy(dense)
    chosen = torch.randperm(len(windows), generator=torch.Generator().manual_seed(0))[: CALIBRATE + HELDOUT]
    report = prune(model, windows[chosen[:CALIBRATE]], heldout=windows[chosen[CALIBRATE:]], progress=False, **keywords)
    print(report, flush=True)
    return model, report, compared(model, dense, apart[:JUDGED], batch=16, progress=False)


def of_bytes(keywords: Mapping[str, Any], dense: Any, windows: torch.Tensor, apart: torch.Tensor) -> dict[str, Any]:
    """The small model pruned, and how far it is from the dense one on text that decided nothing."""
    _, report, found = judged(keywords, dense, windows, apart)
    assert found.divergence is not None and found.dense_losses is not None
    return {
        "report": summary(report.to_dict(), "operators" if "sparsity" in keywords else "modules"),
        "divergence": float(found.divergence.mean()),
        "divergence_by_eight": [round(float(each.mean()), 6) for each in np.split(found.divergence, JUDGED // TOGETHER)],
        "perplexity": math.exp(found.losses.mean()),
        "dense_perplexity": math.exp(found.dense_losses.mean()),
    }


def show(results: Mapping[str, Any]) -> None:
    rows = []
    for name, cell in results.items():
        of = cell["perplexity"]
        figures = [of[text] for text in TEXTS] if isinstance(of, dict) else [cell["divergence"], of]
        rows.append([name, *(f"{value:.4f}" for value in figures), f"{cell['report']['seconds']:.0f}"])
    print(table(["model", "divergence, or WikiText-2", "perplexity, or PTB", "prune s"], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, metavar="FOLDER", help="where the protocol's texts are, for gemma-3-270m")
    parser.add_argument("--cells", default="", metavar="REGEX", help="run only cells whose name the expression finds")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the result file")
    arguments = parser.parse_args()
    if arguments.text is None:
        small = cache(trained)
        out = arguments.out or RESULTS / "allocation.json"
        show(resumed(cells(AMOUNTS, AMOUNTS), arguments.cells, out, lambda _, keywords: of_bytes(keywords, *small())))
        return
    out = arguments.out or RESULTS / "allocation_model.json"
    losses = out.with_suffix("")
    losses.mkdir(parents=True, exist_ok=True)
    loaded = cache(lambda: Protocol.load(arguments.text))

    def run(name: str, keywords: Mapping[str, Any]) -> dict[str, Any]:
        protocol = loaded()
        model, report = protocol.pruned(keywords)
        return {
            "report": summary(report.to_dict(), "operators" if "sparsity" in keywords else "modules"),
            "perplexity": protocol.evaluate(model, tuple(TEXTS), losses, name),
        }

    show(resumed(cells((0.5, 0.6, 0.7), (0.2, 0.5)), arguments.cells, out, run))


if __name__ == "__main__":
    main()
