"""DSnoT, masks without new weights: against the same exchanges written out on the data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from least_squares import PATTERNS, size

from gramian.proofs.kit.strategies import Layer, layers, normal_layer
from gramian.solvers import NM, Status, TopK
from gramian.solvers.support.baselines import wanda
from gramian.solvers.support.dynamic import dsnot


def grow_and_prune(layer: Layer, mask: np.ndarray, group: int, steps: int) -> np.ndarray:
    """DSnoT's idea by losses straight from the data, one row and one exchange after another."""
    mask = mask.copy()
    for row in range(len(mask)):

        def loss(kept: np.ndarray, row: int = row) -> float:
            return 0.5 * float(np.sum((layer.inputs[:, kept] @ layer.weight[row, kept] - layer.outputs[:, row]) ** 2))

        for _ in range(steps):
            now, kept = loss(mask[row]), mask[row].copy()
            alone = np.array([loss(kept ^ (np.arange(kept.size) == j)) - now for j in range(kept.size)])
            part = np.arange(kept.size) // group
            pairs = {
                i: alone[i] + min(alone[kept & (part == part[i])])
                for i in np.flatnonzero(~kept)
                if np.any(kept & (part == part[i]))
            }
            if not pairs:
                break
            i = min(pairs, key=pairs.get)
            both = {}
            for j in np.flatnonzero(kept & (part == part[i])):
                trial = kept.copy()
                trial[[i, j]] = True, False
                both[j] = loss(trial) - now
            j = min(both, key=both.get)
            if not both[j] < 0:
                break
            mask[row, [i, j]] = True, False
    return mask


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("drift", [0.0, 0.3])
def test_dsnot_is_grow_and_prune(xp, pattern, drift):
    layer = normal_layer(100, 40, 16, 6, condition=30.0, drift=drift)
    problem = layer.problem(xp)
    mask = xp.numpy(wanda(problem, pattern).weights) != 0
    for steps in (0, 1, 3, 50):
        solution = dsnot(problem, pattern, xp.asarray(mask), steps=steps)
        point = xp.numpy(solution.weights)
        expected = grow_and_prune(layer, mask, pattern.group if isinstance(pattern, NM) else 16, steps)
        np.testing.assert_array_equal(point, np.where(expected, layer.weight, 0.0))
        assert pattern.admits(xp.asarray(point != 0)) and solution.steps <= steps
        np.testing.assert_array_equal(np.sum(point != 0, axis=1), np.sum(mask, axis=1))
    assert layer.loss(point) < 0.9 * layer.loss(np.where(mask, layer.weight, 0.0))
    assert solution.status is Status.SEARCHED and solution.certificate.objective == pytest.approx(layer.loss(point))


@given(layer=layers(tokens=9, inputs=6), per_row=st.booleans())
@settings(max_examples=10)
def test_dsnot_never_raises_a_row_s_loss(xp, layer: Layer, per_row):
    pattern = TopK(0.5, per_row)
    start = wanda(layer.problem(xp), pattern)
    mask = pattern.select(np.abs(layer.weight))
    point = xp.numpy(dsnot(layer.problem(xp), pattern, xp.asarray(mask)).weights)
    before = layer.row_losses(np.where(mask, layer.weight, 0.0))
    assert np.all(layer.row_losses(point) <= before + 1e-11 * (layer.magnitude(point) + size(layer)))
    assert np.all((point == 0) | (point == layer.weight)) and pattern.admits(xp.asarray(point != 0))
    assert start.certificate.violation == 0


def test_dsnot_arguments(xp):
    problem = normal_layer(101, 20, 8, 2).problem(xp)
    with pytest.raises(ValueError, match="steps >= 0"):
        dsnot(problem, TopK(0.5), xp.asarray(np.zeros((2, 8), dtype=bool)), steps=-1)
    with pytest.raises(ValueError, match=r"mask must be \(2, 8\) and satisfy 50%"):
        dsnot(problem, TopK(0.5), xp.asarray(np.ones((2, 8), dtype=bool)))
