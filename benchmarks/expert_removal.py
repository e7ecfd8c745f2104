"""Whole experts removed from a small trained mixture, by several scores: loss on held-out text.

    python benchmarks/expert_removal.py [--seeds 3] [--out FILE]

The mixtures are those of `experts.py`. A quarter or half of the experts of every layer go: those that the output of the mixture
misses least (`output`), those with the smallest scores of REAP (`reap`), those that are chosen least often (`frequency`); and
what remains is left as it is, or its down projections are fitted to what is missing (`refit`), or hidden channels of experts
that go may take the place of those of others, too (`refit, channels`). The figure is the mean loss per byte on windows that
trained and calibrated nothing.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import torch
from common.byte_models import held_loss, windows_of
from common.results import RESULTS, save
from experts import LENGTH, STEPS, trained

from gramian.adapters import builtin_text, prune
from gramian.adapters.methods.expert_methods import EXPERT_SCORES
from gramian.adapters.models.mixtures import mixtures_of
from gramian.versions import versions

WINDOWS = 64  # of calibration, of LENGTH bytes
PARTS = (0.25, 0.5)  # of the experts that go
AFTERWARDS: dict[str, dict[str, bool]] = {
    "nothing": {"compensate": False},
    "refit": {"compensate": True},
    "refit, channels": {"compensate": True, "refit_producers": True},
}


def rows_of(seed: int) -> list[dict[str, Any]]:
    """A row for each part, score, and what is done afterwards, and for the dense model."""
    windows, apart = windows_of(builtin_text(), LENGTH), windows_of(builtin_text("heldout"), LENGTH)[:128]
    dense = trained(windows, seed)
    chosen = windows[torch.randperm(len(windows), generator=torch.Generator().manual_seed(seed))[:WINDOWS]]
    mixtures = mixtures_of(dense).values()
    inside = sum(parameter.numel() for parameter in dense.model.layers.parameters())
    rows: list[dict[str, Any]] = [{"part": 0.0, "score": "dense", "seed": seed, "loss": held_loss(dense, apart)}]
    for part in PARTS:
        ratio = part * sum(each.size * each.count for each in mixtures) / inside
        for score in EXPERT_SCORES:
            for name, settings in AFTERWARDS.items():
                model = copy.deepcopy(dense)
                report = prune(
                    model, chosen, "experts", ratio=ratio, options={"score": score}, heldout=apart, progress=False, **settings
                )
                found = {"loss": held_loss(model, apart), "error": report.mean_error, "held-out": report.mean_heldout_error}
                rows.append(
                    {"part": part, "score": score, "afterwards": name, "seed": seed, **found, "seconds": report.seconds}
                )
                print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="how many models are trained")
    parser.add_argument("--out", type=Path, default=RESULTS / "expert_removal.json", metavar="FILE", help="the result file")
    arguments = parser.parse_args()
    rows = [row for seed in range(arguments.seeds) for row in rows_of(seed)]
    save(arguments.out, {"rows": rows, "length": LENGTH, "steps": STEPS, "windows": WINDOWS, "versions": dict(versions())})


if __name__ == "__main__":
    main()
