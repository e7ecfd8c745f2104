"""DSnoT, masks without new weights: against the same exchanges written out on the data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from least_squares import PATTERNS, size

from gramian.proofs.kit.strategies import Layer, layers, normal_layer
from gramian.solvers import NM, Pattern, Status, TopK, dsnot
from gramian.solvers.support.baselines import wanda
from gramian.solvers.support.dynamic import grow_and_prune
from gramian.solvers.support.starts import STARTS


def exchanged_by_hand(layer: Layer, mask: np.ndarray, group: int, steps: int) -> np.ndarray:
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
        solution = grow_and_prune(problem, pattern, xp.asarray(mask), steps=steps)
        point = xp.numpy(solution.weights)
        expected = exchanged_by_hand(layer, mask, pattern.group if isinstance(pattern, NM) else 16, steps)
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
    point = xp.numpy(grow_and_prune(layer.problem(xp), pattern, xp.asarray(mask)).weights)
    before = layer.row_losses(np.where(mask, layer.weight, 0.0))
    assert np.all(layer.row_losses(point) <= before + 1e-11 * (layer.magnitude(point) + size(layer)))
    assert np.all((point == 0) | (point == layer.weight)) and pattern.admits(xp.asarray(point != 0))
    assert start.certificate.violation == 0


def test_dsnot_arguments(xp):
    problem = normal_layer(101, 20, 8, 2).problem(xp)
    with pytest.raises(ValueError, match="steps must be a whole number of at least 0 but is -1"):
        grow_and_prune(problem, TopK(0.5), xp.asarray(np.zeros((2, 8), dtype=bool)), steps=-1)
    with pytest.raises(ValueError, match=r"mask must be \(2, 8\) and satisfy 50%"):
        grow_and_prune(problem, TopK(0.5), xp.asarray(np.ones((2, 8), dtype=bool)))


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_the_mask_of_every_start_is_improved(xp, pattern, start):
    layer = normal_layer(102, 40, 16, 6, condition=30.0, drift=0.3)
    mask = xp.numpy(STARTS[start](layer.problem(xp), pattern).weights) != 0
    for steps in (2, 50):
        solution = dsnot(layer.problem(xp), pattern, start=start, steps=steps)
        expected = exchanged_by_hand(layer, mask, pattern.group if isinstance(pattern, NM) else 16, steps)
        np.testing.assert_array_equal(xp.numpy(solution.weights), np.where(expected, layer.weight, 0.0))
        first = layer.loss(np.where(mask, layer.weight, 0.0)) / layer.energy
        np.testing.assert_allclose(solution.detail["start_error"], first, rtol=1e-9)
        assert solution.certificate.relative_error <= first and solution.status is Status.SEARCHED


def test_a_planted_mask_is_found(xp):
    """The first two weights cancel, so that the mask without them loses nothing. Magnitude keeps one of them, and not the
    third, which is small on a large channel: one exchange away."""
    inputs = np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 4.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    layer = Layer(inputs, np.array([[1.0, -1.0, 0.5, 3.0]]))
    for pattern in (TopK(0.5), TopK(0.5, per_row=True), NM(2, 4)):
        solution = dsnot(layer.problem(xp), pattern, start="magnitude")
        np.testing.assert_array_equal(xp.numpy(solution.weights), [[0.0, 0.0, 0.5, 3.0]])
        assert solution.certificate.objective == 0 and solution.detail["exchanges"] == 1
        assert dsnot(layer.problem(xp), pattern, start="magnitude", steps=0).certificate.objective == 2.5


@given(data=st.data())
@settings(max_examples=30)
def test_any_layer_and_start(xp, data):
    """Singular, dead, duplicated, tied, one row, one column, any scale, X* != X, float32: W on a mask as good."""
    layer = data.draw(layers(inputs=4, multiple=data.draw(st.sampled_from([1, 4]))))
    anywhere: list[Pattern] = [TopK(0.5), TopK(0.3, per_row=True), TopK(0.0), NM(1, 1)]
    pattern = data.draw(st.sampled_from(anywhere + ([NM(2, 4), NM(1, 2)] if layer.weight.shape[1] == 4 else [])))
    start, dtype = data.draw(st.sampled_from(sorted(STARTS))), data.draw(st.sampled_from(["float64", "float32"]))
    problem = layer.problem(xp, dtype)
    solution = dsnot(problem, pattern, start=start)
    point, dense = xp.numpy(solution.weights), xp.numpy(problem.anchor)
    assert point.dtype == dtype and np.all((point == 0) | (point == dense))
    assert pattern.admits(xp.asarray(point != 0)) and solution.certificate.violation == 0
    mask = xp.numpy(STARTS[start](problem, pattern).weights) != 0
    first = problem.double.loss(xp.asarray(np.where(mask, dense, 0.0), "float64"))
    assert solution.certificate.objective <= first + 1e-11 * (layer.magnitude(point.astype(float)) + size(layer))
    assert solution.certificate.objective == problem.double.loss(xp.asarray(point, "float64"))


def test_no_start_of_another_name(xp):
    problem = normal_layer(103, 20, 8, 2).problem(xp)
    with pytest.raises(ValueError, match="start must be one of magnitude, wanda, sparsegpt but is 'l0'"):
        dsnot(problem, TopK(0.5), start="l0")
    with pytest.raises(ValueError, match="steps must be a whole number of at least 0 but is -2"):
        dsnot(problem, TopK(0.5), steps=-2)
    with pytest.raises(ValueError, match="multiple of 3 inputs"):
        dsnot(problem, NM(1, 3))
