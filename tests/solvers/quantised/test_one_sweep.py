"""Pruning and quantisation in one sweep: planted weights, plain loops, all codes, and layers of every kind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quantised_by_hand import best_codes, loss_of, plain_sweep

from gramian.proofs.kit.backends import NUMPY
from gramian.proofs.kit.strategies import layers, normal_layer
from gramian.solvers import NM, Grid, Quadratic, TopK, quantise, sparsegpt, sparsegpt_quantised

DAMPING = 0.01


def damped(gram: np.ndarray) -> np.ndarray:
    return gram + DAMPING * np.mean(np.diag(gram)) * np.eye(len(gram))


def planted(bits: int, group: int, zeros: bool, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Weights on a grid, with two zeros in every four, and inputs that are correlated."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(-(2 ** (bits - 1)) + 1, 2 ** (bits - 1), size=(5, 4 * group)).astype(float)
    codes[:, ::group] = 2 ** (bits - 1) - 1  # every group reaches the end of its grid
    if zeros:
        codes.reshape(5, -1, 4)[:, :, 1::2] = 0
    scales = rng.integers(128, 256, size=(5, 4)) * 2.0 ** rng.integers(-12, -6, size=(5, 4))
    inputs = rng.normal(size=(150, 4 * group)) @ (np.eye(4 * group) + 0.3 * rng.normal(size=(4 * group, 4 * group)))
    return inputs, codes * np.repeat(scales, group, axis=1)


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("pattern", [0.0, NM(2, 4)])
def test_weights_on_a_grid_are_returned_as_they_are(xp, bits, pattern):
    inputs, weight = planted(bits, 16, zeros=pattern != 0.0)
    problem = Quadratic.from_data(xp.asarray(inputs), xp.asarray(weight))
    found = quantise(problem, pattern, bits=bits, group=16)
    np.testing.assert_array_equal(xp.numpy(found.weights), weight)
    assert found.loss == 0 and found.certificate.optimal and found.certificate.largest_gain == 0


@pytest.mark.parametrize("pattern", [TopK(0.5), NM(2, 4), 0.0])
@pytest.mark.parametrize(("bits", "group", "block"), [(4, 32, 128), (8, 16, 16), (2, 8, 40)])
def test_the_sweep_is_the_one_in_plain_loops(xp, pattern, bits, group, block):
    layer = normal_layer(50, 200, 80, 5, condition=30.0)
    found = quantise(layer.problem(xp), pattern, bits=bits, group=group, block=block, rounds=0)
    gram = damped(layer.inputs.T @ layer.inputs)
    expected = plain_sweep(gram, layer.weight, xp.numpy(found.mask), xp.numpy(found.scales), found.grid)
    np.testing.assert_allclose(xp.numpy(found.weights), expected, rtol=0, atol=1e-10)


@given(st.integers(0, 2**16), st.sampled_from([0.0, 0.5]))
def test_no_choice_of_codes_is_better_than_the_best(seed, pattern):
    """All codes tried: what is returned is never below that, no single move is better, and few rows are far from it."""
    layer = normal_layer(seed, 12, 5, 3, condition=20.0)
    found = quantise(layer.problem(NUMPY), pattern, bits=2, group=3, rounds=50)
    gram = damped(layer.inputs.T @ layer.inputs)
    mask, scales = np.asarray(found.mask), np.asarray(found.scales)
    least = best_codes(gram, layer.weight, mask, scales, found.grid)
    losses = loss_of(gram, layer.weight, np.asarray(found.weights))
    assert np.all(losses >= least * (1 - 1e-9))
    assert found.certificate.optimal
    codes = np.asarray(found.codes).astype(float)
    for row, column in zip(*np.nonzero(mask)):
        for code in range(found.grid.lowest, found.grid.highest + 1):
            moved = codes[row].copy()
            moved[column] = code
            point = moved * np.repeat(scales[row], 3)[:5]
            assert loss_of(gram, layer.weight[row], point[None])[0] >= losses[row] * (1 - 1e-9) - 1e-12


@pytest.mark.parametrize("pattern", [0.0, 0.5, "2:4"])
def test_moving_codes_lowers_the_loss_until_none_can_move(xp, pattern):
    layer = normal_layer(52, 300, 96, 8, condition=100.0)
    losses = [quantise(layer.problem(xp), pattern, group=32, rounds=rounds).certificate.objective for rounds in (0, 1, 2, 100)]
    assert losses[0] > losses[1] >= losses[2] >= losses[3]
    assert quantise(layer.problem(xp), pattern, group=32, rounds=100).certificate.optimal


def test_the_certificate_sees_codes_that_could_move():
    from dataclasses import replace

    from gramian.solvers.quantised.result import certify_codes

    layer = normal_layer(53, 60, 16, 3, condition=5.0)
    found = quantise(layer.problem(NUMPY), 0.5, group=8, rounds=100)
    problem = layer.problem(NUMPY).damped(DAMPING * float(np.mean(layer.problem(NUMPY).diagonal)))
    codes = np.array(found.codes)
    place = tuple(np.argwhere(found.mask & (codes < found.grid.highest))[0])
    worse = codes.copy()
    worse[place] += 1
    seen = certify_codes(problem, worse, found.scales, found.grid, found.mask)
    assert seen.feasible and not seen.optimal and seen.largest_gain > 0
    outside = codes.copy()
    outside[tuple(np.argwhere(~np.asarray(found.mask))[0])] = 1
    assert not certify_codes(problem, outside, found.scales, found.grid, found.mask).feasible
    assert not replace(seen, feasible=False).optimal


@pytest.mark.parametrize("support", ["l0", "wanda", "magnitude", "sparsegpt"])
def test_a_held_support_is_held(xp, support):
    layer = normal_layer(54, 120, 32, 4, condition=30.0)
    from gramian.solvers.quantised.one_sweep import SUPPORTS

    method = SUPPORTS[support]
    assert method is not None
    expected = xp.numpy(method(layer.problem(xp), NM(2, 4)).weights) != 0
    found = quantise(layer.problem(xp), NM(2, 4), group=32, support=support)
    np.testing.assert_array_equal(xp.numpy(found.mask), expected)
    assert not np.any(xp.numpy(found.weights)[~expected])


def test_rounding_at_once_is_worse_than_one_sweep():
    layer = normal_layer(55, 400, 128, 16, condition=1000.0)
    pruned = sparsegpt(layer.problem(NUMPY), NM(2, 4)).weights
    rounded = quantise(Quadratic(np.eye(128), pruned), 0.0, rounds=0, damping=0.0).weights
    assert not np.any(rounded[pruned == 0])
    together = quantise(layer.problem(NUMPY), NM(2, 4))
    assert together.loss < 0.8 * layer.problem(NUMPY).loss(rounded)


@given(layers(), st.sampled_from([0.0, 0.5, TopK(0.5, per_row=True)]), st.sampled_from([2, 4, 8]), st.sampled_from([1, 3, 64]))
def test_any_layer(layer, pattern, bits, group):
    """Feasible, exact zeros, scales that bfloat16 holds, codes that are the weights; sound certificates."""
    problem = layer.problem(NUMPY)
    found = quantise(problem, pattern, bits=bits, group=group)
    codes, mask, weights = (np.asarray(each) for each in (found.codes, found.mask, found.weights))
    scales = np.repeat(np.asarray(found.scales, np.float64), group, axis=1)[:, : codes.shape[1]]
    assert codes.dtype == np.int8 and found.certificate.feasible
    assert np.all(weights[~mask] == 0) and np.all(weights[codes == 0] == 0)
    np.testing.assert_array_equal(weights, (codes * scales).astype(weights.dtype))
    np.testing.assert_array_equal(np.frexp(scales)[0] * 2**8 % 1, 0)
    counted = pattern if isinstance(pattern, TopK) else TopK(pattern)
    assert counted.admits(mask) and np.isfinite(weights).all()


@pytest.mark.parametrize("power", [-20, 20])
def test_units_do_not_matter(xp, power):
    layer, unit = normal_layer(56, 60, 24, 5, condition=30.0), 2.0**power
    plain = quantise(layer.problem(xp), NM(2, 4), group=8)
    scaled = quantise(layer.scaled(inputs=unit).problem(xp), NM(2, 4), group=8)
    np.testing.assert_array_equal(xp.numpy(scaled.weights), xp.numpy(plain.weights))


def test_float32_stays_float32(xp):
    layer = normal_layer(57, 60, 16, 4, condition=10.0)
    found = quantise(Quadratic.from_data(xp.asarray(layer.inputs), xp.asarray(layer.weight)), 0.5, group=8)
    single = Quadratic(
        xp.asarray((layer.inputs.T @ layer.inputs).astype(np.float32)), xp.asarray(layer.weight.astype(np.float32))
    )
    small = quantise(single, 0.5, group=8)
    assert "float32" in str(small.weights.dtype) and "float32" in str(small.scales.dtype)
    assert small.loss <= 1.2 * found.loss


def test_dead_channels_and_nothing_to_keep():
    weight = np.array([[1.0, 2.0, 0.0, -3.0], [0.0, 0.0, 0.0, 0.0]])
    found = quantise(Quadratic(np.zeros((4, 4)), weight), 0.0, group=2)
    assert found.loss == 0 and np.all(found.scales > 0) and np.all(found.weights[1] == 0)
    np.testing.assert_allclose(found.weights[0], weight[0], atol=0.2)


def test_the_method_returns_what_quantise_has():
    layer = normal_layer(58, 60, 64, 4, condition=10.0)
    solution = sparsegpt_quantised(layer.problem(NUMPY), NM(2, 4), bits=4, group=32)
    found = quantise(layer.problem(NUMPY), NM(2, 4), bits=4, group=32)
    np.testing.assert_array_equal(solution.weights, found.weights)
    assert solution.detail["bytes"] == found.bytes == 4 * (64 // 2 + 2 * 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 1}, "bits must be a whole number of at least 2 but is 1"),
        ({"bits": 9}, r"bits must be a whole number in \[2, 8\] but is 9"),
        ({"group": 0}, "group must be a whole number of at least 1 but is 0"),
        ({"group": 6}, "a group of 6 inputs cuts through the groups of 4 of pattern 2:4: give a multiple of 4"),
        ({"support": "l1"}, "support must be one of sweep, l0, magnitude, wanda, sparsegpt but is 'l1'"),
        ({"rounds": -1}, "rounds must be a whole number of at least 0 but is -1"),
        ({"damping": -1}, r"damping must be in \[0, inf\) but is -1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        quantise(normal_layer(59, 30, 16, 2, condition=2.0).problem(NUMPY), NM(2, 4), **options)


def test_a_grid_says_what_it_takes():
    assert Grid(4, 64).bytes((10, 100)) == 10 * (50 + 4)
    assert Grid(3, 8).bytes((2, 8)) == 2 * (3 + 2)
