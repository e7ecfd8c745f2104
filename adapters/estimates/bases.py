"""What it takes to choose bases before a support: heads that are turned, channels that come in another order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.estimates.figures import Rates
from gramian.adapters.targets import free_bases, orders_matter, shape_of
from gramian.solvers import NM, Pattern

__all__ = ["basis_seconds"]

INVERSE = 4.0  # times p^3: the Cholesky factor of a damped inverse, as of a sweep
TURNING = 80.0  # products of a weight with the basis of a head that five polar steps take
ENTRY = 4e-9  # seconds to compare one score with the bar of one group
SWEEPS = 4  # of rounds, one for every channel of a group


def basis_seconds(model: Any, config: PruneConfig, patterns: Mapping[str, Pattern], rates: Rates) -> dict[str, float]:
    """Seconds to choose the bases that a run changes, all of them; an empty dictionary where it changes none."""
    bases, _ = free_bases(model, config, patterns)
    spent = 0.0
    for name, basis in bases.items():
        rows, columns = shape_of(model, name)
        pattern = patterns.get(name)
        if config.rotate_heads and basis.turns:
            outputs, inputs = shape_of(model, basis.producers[0][0])
            spent += INVERSE * (columns**3 + inputs**3) / rates.double
            spent += TURNING * 2 * (rows * columns + outputs * inputs) * basis.size / rates.double
        if config.permute_channels and isinstance(pattern, NM) and orders_matter(basis, pattern):
            count = basis.size // pattern.group
            spent += INVERSE * columns**3 / rates.double
            spent += ENTRY * SWEEPS * pattern.group * basis.heads * rows * count**2
    return {"changes of basis": spent} if bases else {}
