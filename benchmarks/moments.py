"""Second moments from float32 products beside float64 ones: how far they are off, and what they cost.

    python benchmarks/moments.py [--device cpu] [--width N] [--out FILE]

Batches have 2048 tokens and channels mixed with weights from 1 to 1e-3; inputs of the pruned path are 3 % off. Errors are the
largest over the entries, relative to sqrt(G_ii G_jj), with E_ii in the place of G_ii where the drift is. The smallest
eigenvalue of G is relative to its largest. Times are medians of 5 for one batch.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common.results import RESULTS, save

from gramian.adapters.devices import solver_array, usable_device
from gramian.solvers import Moments
from gramian.solvers.backend._xp import to_numpy
from gramian.solvers.core.moments import Products
from gramian.tables import table
from gramian.versions import versions

BATCHES, TOKENS, TIMES = 8, 2048, 5
KINDS: tuple[Products, ...] = ("float64", "float32")


def batches(width: int, device: torch.device) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Pairs of X* and X."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))[0]
    mix = torch.logspace(0, -3, width, dtype=torch.float64)[:, None] * mix
    found = []
    for _ in range(BATCHES):
        dense = torch.randn(TOKENS, width, generator=generator, dtype=torch.float64) @ mix
        star = dense * (1 + 0.03 * torch.randn(TOKENS, width, generator=generator, dtype=torch.float64))
        found.append((star.float().to(device), dense.float().to(device)))
    return found


def gathered(pairs: list[tuple[torch.Tensor, torch.Tensor]], products: Products) -> tuple[Moments, float]:
    """The moments, and seconds for one batch of them."""
    moments, seconds = Moments(pairs[0][0].shape[1]), []
    for star, dense in pairs:
        moments.update(solver_array(star), solver_array(dense), products=products)
    for _ in range(TIMES):
        started, again = time.perf_counter(), Moments(moments.width)
        again.update(solver_array(pairs[0][0]), solver_array(pairs[0][1]), products=products)
        to_numpy(again.require()[:1, :1])  # waits for a device
        seconds.append(time.perf_counter() - started)
    return moments, statistics.median(seconds)


def errors(exact: Moments, rounded: Moments) -> dict[str, float]:
    """Largest difference of G, C and E, by the names of their fields."""

    def both(name: str) -> tuple[np.ndarray, np.ndarray]:
        return to_numpy(getattr(exact, name)), to_numpy(getattr(rounded, name))

    inputs, drift = (np.sqrt(np.diag(both(name)[0])) for name in ("gram", "drift"))
    found = {}
    for name, scale in (
        ("gram", np.outer(inputs, inputs)), ("cross", np.outer(drift, inputs)), ("drift", np.outer(drift, drift))
    ):  # fmt: skip
        one, other = both(name)
        found[name] = float((np.abs(one - other) / scale).max())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default %(default)s)")
    parser.add_argument("--width", type=int, default=640, help="channels (default %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS / "moments.json", metavar="FILE", help="the result file")
    arguments = parser.parse_args()
    pairs = batches(arguments.width, usable_device(arguments.device))
    (exact, slow), (rounded, fast) = (gathered(pairs, kind) for kind in KINDS)
    eigenvalues = [np.linalg.eigvalsh(to_numpy(each.require())) for each in (exact, rounded)]
    smallest = [float(values[0] / values[-1]) for values in eigenvalues]
    rows: dict[str, Any] = {
        "errors": errors(exact, rounded),
        "smallest eigenvalue": dict(zip(KINDS, smallest)),
        "seconds": dict(zip(KINDS, (slow, fast))),
    }
    settings = {"device": arguments.device, "width": arguments.width, "threads": torch.get_num_threads()}
    save(arguments.out, {**settings, "versions": dict(versions()), **rows})
    shown = [[f"{what}: {name}", f"{value:.2e}"] for what, values in rows.items() for name, value in values.items()]
    print(table(["what", "value"], shown))


if __name__ == "__main__":
    main()
