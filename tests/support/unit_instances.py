"""What the tests of removing and exchanging units share: losses after a refit by numpy's least squares, from X and W alone."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from gramian.proofs.kit.strategies import Layer
from gramian.solvers import RemovalPath, refit, unit_support


def refitted_loss(layer: Layer, units: np.ndarray) -> float:
    """min_V 1/2 |X* V^T - X W^T|^2 over weights on the channels of these units, a boolean (m,)."""
    channels = np.repeat(units, layer.weight.shape[1] // units.size)
    scale = np.linalg.norm(layer.inputs, axis=0)
    design = (layer.inputs / np.where(scale > 0, scale, 1.0))[:, channels]
    found = np.linalg.lstsq(design, layer.outputs, rcond=1e-9)[0]
    return 0.5 * float(np.sum((design @ found - layer.outputs) ** 2))


def magnitude(layer: Layer) -> float:
    """What losses could be without cancellation between channels: rounding, and a ridge, are relative to it."""
    return float(np.sum(layer.inputs**2, axis=0) @ np.sum(layer.weight**2, axis=0) + layer.energy)


def best_losses(layer: Layer, units: int) -> np.ndarray:
    """Least refitted loss over all masks that keep 0, 1, ..., m units, (m + 1,)."""
    best = np.empty(units + 1)
    for count in range(units + 1):
        masks = (np.isin(np.arange(units), kept) for kept in combinations(range(units), count))
        best[count] = min(refitted_loss(layer, mask) for mask in masks)
    return best


def order_of(xp: Any, path: RemovalPath) -> np.ndarray:
    """Units in order of removal, with what must hold of every path checked."""
    order, losses = xp.numpy(path.order), xp.numpy(path.losses)
    np.testing.assert_array_equal(np.sort(order), np.arange(path.units))
    assert losses.shape == order.shape and losses.dtype == np.float64 and np.all(np.isfinite(losses))
    assert 0 <= path.least <= losses[0] and np.all(np.diff(losses) >= 0) and path.loss(0) == losses[-1]
    return order


def refit_objective(problem: Any, mask: Any) -> float:
    return refit(problem.double, unit_support(mask, problem.shape)).certificate.objective
