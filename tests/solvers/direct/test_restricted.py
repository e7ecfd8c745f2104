"""Least squares on a support: against planted optima, least squares row by row, cvxpy, brute force and closed forms."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from least_squares import answer, close, least_change, random_mask, unit_scale
from rounding import rounding, rounding_of_loss, rounding_of_solve

from gramian.proofs.kit.models import cvxpy_least_squares
from gramian.proofs.kit.strategies import Layer, layers, normal_layer
from gramian.solvers import Quadratic, Status, refit

# -- independent references --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", [1, 7])
def test_planted_optimum(xp, outputs):
    """slope + (V - W) G = S with S = 0 on the support and V = 0 off it makes V the only optimum."""
    rng, mask = np.random.default_rng(60), random_mask(60, (outputs, 12))
    gram = normal_layer(60, 40, 12, 1).inputs
    gram = gram.T @ gram
    optimum, off = np.where(mask, rng.normal(size=mask.shape), 0.0), np.where(mask, 0.0, rng.normal(size=mask.shape))
    slope = rng.normal(size=mask.shape)
    dense = optimum - np.linalg.solve(gram, (off - slope).T).T
    problem = Quadratic(*(xp.asarray(array) for array in (gram, dense, slope, np.full(outputs, 100.0))))
    solution = refit(problem, xp.asarray(mask))
    close(xp.numpy(solution.weights), optimum, rtol=1e-11)
    size = np.linalg.norm(gram) * (np.linalg.norm(optimum) + np.linalg.norm(dense)) + np.linalg.norm(slope)
    residual = rounding(12 * (3 * 12 + 1), size) / np.linalg.norm(slope - dense @ gram)  # (G + E) x = b, as solves do
    assert solution.status is Status.DIRECT and solution.certificate.residual <= residual < 1e-9
    assert solution.detail == {"singular_rows": 0}


@given(layer=layers(), data=st.data())
@settings(max_examples=60)
def test_least_squares_row_by_row(xp, layer: Layer, data):
    """Any layer: singular, dead, duplicated, one row, one column, fewer tokens than channels, scales 1e-6 and 1e6."""
    mask = data.draw(arrays(bool, layer.weight.shape), label="mask")
    expected, deficient = least_change(layer, mask)
    point, solution = answer(xp, layer, mask)
    close(point * unit_scale(layer), expected * unit_scale(layer), rtol=1e-6)
    assert solution.detail["singular_rows"] == deficient
    assert solution.status is (Status.SINGULAR if deficient else Status.DIRECT)
    assert np.all(layer.row_losses(point) <= layer.row_losses(expected) + 1e-11 * layer.magnitude(point))
    assert abs(solution.certificate.objective - layer.loss(point)) <= 1e-11 * layer.magnitude(point)
    start = np.linalg.norm(layer.outputs.T @ layer.inputs)
    size = np.linalg.norm(layer.inputs.T @ layer.inputs) * (np.linalg.norm(point) + np.linalg.norm(layer.weight))
    assert start == 0 or solution.certificate.residual * start <= 1e-9 * (size + start)


@pytest.mark.parametrize("drift", [0.0, 0.4])
def test_cvxpy_finds_nothing_better(xp, drift):
    layer, mask = normal_layer(61, 30, 8, 4, drift=drift), random_mask(61, (4, 8))
    point, solution = answer(xp, layer, mask)
    least = cvxpy_least_squares(layer.inputs, layer.outputs, support=mask)
    assert solution.certificate.objective == pytest.approx(least, rel=1e-8)
    assert layer.loss(point) == pytest.approx(least, rel=1e-8)


@pytest.mark.parametrize("drift", [0.0, 0.4])
def test_the_best_support_by_brute_force(xp, drift):
    """All 2^8 supports of one row at once: the refit of the best of k is the best k-sparse answer, and with e(k) its
    loss, least squares = e(8) <= e(7) <= ... <= e(0) = f(0), none above a refit, none of those above plain pruning."""
    layer = normal_layer(62, 20, 8, 1, condition=30.0, drift=drift)
    mask = np.array([[j in kept for j in range(8)] for k in range(9) for kept in combinations(range(8), k)])
    many = Layer(layer.inputs, np.repeat(layer.weight, len(mask), axis=0), layer.dense)
    point, _ = answer(xp, many, mask)
    refitted, plain = many.row_losses(point), many.row_losses(np.where(mask, many.weight, 0.0))
    slack = max(rounding_of_loss(layer, point[[row]]) for row in range(len(mask)))
    assert np.all(refitted <= plain + slack) and slack < 1e-9 * layer.energy
    chain = []
    for k in range(9):
        rows = np.flatnonzero(mask.sum(axis=1) == k)
        found = [np.linalg.lstsq(layer.inputs[:, mask[row]], layer.outputs[:, 0], rcond=None)[0] for row in rows]
        losses = [0.5 * np.sum((layer.inputs[:, mask[r]] @ v - layer.outputs[:, 0]) ** 2) for r, v in zip(rows, found)]
        best = int(np.argmin(losses))
        close(point[rows[best], mask[rows[best]]], found[best], rtol=1e-9)
        assert refitted[rows[best]] == pytest.approx(losses[best], abs=slack) and rows[best] == rows[np.argmin(refitted[rows])]
        chain.append(losses[best])
    assert np.all(np.diff(chain) <= slack) and chain[0] == pytest.approx(layer.energy)


@given(layer=layers(tokens=9, inputs=6, shifted=False, scales=(1.0,)), data=st.data())
@settings(max_examples=20)
def test_one_support_for_all_rows_in_closed_form(xp, layer: Layer, data):
    """Numerical Pruning, Eq. (11) and (12): dW^T = -G^-1 M (M^T G^-1 M)^-1 M^T W^T and the loss |X dW^T|^2 it leaves,
    tr(W_P ((G^-1)_PP)^-1 W_P^T), never less when one channel more is pruned."""
    width = layer.weight.shape[1]
    layer = Layer(np.vstack([layer.inputs, np.eye(width)]), layer.weight)  # G >= I
    gram = layer.inputs.T @ layer.inputs
    inverse, order = np.linalg.inv(gram), data.draw(st.permutations(range(width)), label="order")
    before = 0.0
    for count in range(width + 1):
        gone = list(order[:count])
        inner = np.linalg.solve(inverse[np.ix_(gone, gone)], layer.weight[:, gone].T)
        point, solution = answer(xp, layer, np.repeat(~np.isin(range(width), gone)[None, :], len(layer.weight), axis=0))
        size = np.max(np.abs(layer.weight), initial=1e-300)
        np.testing.assert_allclose(point, layer.weight - (inverse[:, gone] @ inner).T, rtol=0, atol=1e-10 * size)
        loss = float(np.sum(layer.weight[:, gone].T * inner))
        assert 2 * solution.certificate.objective == pytest.approx(loss, abs=1e-11 * layer.magnitude(point))
        assert loss >= before - 1e-11 * layer.magnitude(point)
        before = loss


# -- a ridge on the change ---------------------------------------------------------------------------------------------


def test_damped_by_hand(xp):
    """X = [[1, 1], [0, 1]], W = (1, 1), second pruned, gamma = 1: dW = (2/3, -1), |X dW|^2 = 10/9, with gamma / 2 |dW|^2
    it is 11/6. Undamped: dW = (1, -1) and loss 1. One unknown, to and from unit-diagonal coordinates: fewer than 16 roundings
    of numbers no larger than the answer, and as many on the way to losses, whose terms add up to at most 5 in size."""
    layer, mask = Layer(np.array([[1.0, 1.0], [0.0, 1.0]]), np.ones((1, 2))), xp.asarray([[True, False]])
    damped, plain = refit(layer.problem(xp).damped(0.5), mask), refit(layer.problem(xp), mask)
    np.testing.assert_allclose(xp.numpy(damped.weights), [[5 / 3, 0]], rtol=rounding(16, 1.0))
    assert 2 * damped.certificate.objective == pytest.approx(11 / 6, abs=rounding(32, 5.0))
    assert 2 * layer.problem(xp).loss(damped.weights) == pytest.approx(10 / 9, abs=rounding(32, 5.0))
    np.testing.assert_allclose(xp.numpy(plain.weights), [[2, 0]], rtol=rounding(16, 1.0))
    assert 2 * plain.certificate.objective == pytest.approx(1, abs=rounding(32, 5.0))


@given(layer=layers(shifted=False, scales=(1.0,)), data=st.data())
@settings(max_examples=20)
def test_damped(xp, layer: Layer, data):
    """v_K = w_K + (G_KK + gamma / 2 I)^-1 G_KP w_P; the loss grows and the change shrinks with gamma, from the least
    squares that change least to plain pruning."""
    mask, gram = data.draw(arrays(bool, layer.weight.shape), label="mask"), layer.inputs.T @ layer.inputs
    plain = np.where(mask, layer.weight, 0.0)
    size, before = max(1.0, np.max(np.abs(layer.weight))), None
    for gamma in (1e-5, 1e-2, 1.0, 1e12):
        point = xp.numpy(refit(layer.problem(xp).damped(gamma / 2), xp.asarray(mask)).weights)
        for row, kept in enumerate(mask):
            gone = ~kept
            inner = gram[np.ix_(kept, kept)] + gamma / 2 * np.eye(kept.sum())
            expected = layer.weight[row, kept] + np.linalg.solve(inner, gram[np.ix_(kept, gone)] @ layer.weight[row, gone])
            np.testing.assert_allclose(point[row, kept], expected, rtol=0, atol=1e-8 * size)
        figures = layer.row_losses(point), -np.sum((point - plain) ** 2, axis=1)
        if before is not None:
            assert all(np.all(old <= new + 1e-8 * (layer.magnitude(point) + size**2)) for old, new in zip(before, figures))
        before = figures
    np.testing.assert_allclose(point, plain, rtol=0, atol=1e-8 * size)


@pytest.mark.parametrize("ridge", ["plain", "unit diagonal"])
def test_the_limit_of_no_damping_changes_least(xp, ridge):
    """gamma -> 0 on a singular Gram: |dW| least, or sqrt(G_jj) |dW_j|, as without damping, if the ridge is in those units."""
    layer, mask = normal_layer(63, 5, 9, 3), random_mask(63, (3, 9), 0.9)
    layer = Layer(layer.inputs * np.logspace(0, 1, 9), layer.weight)
    scale = unit_scale(layer) if ridge == "unit diagonal" else np.ones(9)
    damping = 1e-8 * scale**2
    point = xp.numpy(refit(layer.problem(xp).damped(xp.asarray(damping)), xp.asarray(mask)).weights)
    for row, kept in enumerate(mask):
        target = layer.inputs[:, ~kept] @ layer.weight[row, ~kept]
        change = np.linalg.pinv((layer.inputs / scale)[:, kept], rcond=1e-9) @ target / scale[kept]
        np.testing.assert_allclose(point[row, kept], layer.weight[row, kept] + change, atol=1e-5)
    undamped = xp.numpy(refit(layer.problem(xp), xp.asarray(mask)).weights)
    assert np.allclose(point, undamped, atol=1e-5) == (ridge == "unit diagonal")


@pytest.mark.parametrize("kept", [False, True])
def test_all_supports_empty_or_full(xp, kept):
    for layer in (normal_layer(67, 20, 6, 3), normal_layer(67, 20, 6, 3, drift=0.3)):
        point, solution = answer(xp, layer, np.full((3, 6), kept))
        if kept:
            close(point, np.linalg.lstsq(layer.inputs, layer.outputs, rcond=None)[0].T)
        assert solution.status is Status.DIRECT
        assert kept or solution.certificate.relative_error == pytest.approx(1, rel=1e-12)
    plain = normal_layer(67, 20, 6, 3)
    np.testing.assert_array_equal(answer(xp, plain, np.full((3, 6), kept))[0], plain.weight * kept)


# -- singular Grams ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("missing", [1, 2])
def test_a_rank_deficit_never_passes_for_a_factorisation(xp, seed, missing):
    """Cholesky of a matrix short of one rank succeeds about every second time, on a pivot that is rounding."""
    rng = np.random.default_rng(seed)
    width = int(rng.integers(3, 9))
    inputs = rng.normal(size=(max(1, width - missing), width))
    layer = Layer(inputs, rng.normal(size=(2, width)), inputs + 0.3 * rng.normal(size=inputs.shape))
    mask = np.ones((2, width), dtype=bool)
    point, solution = answer(xp, layer, mask)
    close(point, least_change(layer, mask)[0])
    assert solution.status is Status.SINGULAR and solution.detail["singular_rows"] == 2


def test_duplicate_channels_share_the_change(xp):
    """Channels x, 2 x and x, the third pruned: any v_1 + 2 v_2 = w_1 + 2 w_2 + w_3 fits, and of the three v_j |x_j| the
    two that stay move by the same, w_3 |x| / 2."""
    rng = np.random.default_rng(64)
    column = rng.normal(size=(20, 1))
    layer = Layer(column * np.array([[1.0, 2.0, 1.0]]), np.array([[3.0, 5.0, 8.0]]))
    point, solution = answer(xp, layer, np.array([[True, True, False]]))
    np.testing.assert_allclose(point, [[3 + 4, 5 + 2, 0]], rtol=1e-12)
    assert (
        solution.status is Status.SINGULAR
        and solution.certificate.relative_error <= rounding_of_loss(layer, point) / layer.energy < 1e-9
    )


def test_dead_channels_keep_their_weights(xp):
    layer, mask = normal_layer(65, 40, 10, 6, drift=0.2, dead=3), random_mask(65, (6, 10), 0.7)
    dead = ~np.any(layer.inputs, axis=0)
    mask[0, dead], mask[1] = True, dead  # nothing but dead channels in the second row
    mask[2] &= ~dead
    point, solution = answer(xp, layer, mask)
    live = layer.inputs[:, ~dead].T @ layer.inputs[:, ~dead]  # eigenvectors of a dead channel mix with live ones by rounding
    close(point[:, dead], np.where(mask, layer.weight, 0.0)[:, dead], rtol=rounding_of_solve(live, len(mask), 40))
    expected, _ = least_change(layer, mask & ~dead)
    close(point[:, ~dead], expected[:, ~dead])
    assert solution.status is Status.SINGULAR
    assert solution.detail["singular_rows"] == np.sum(np.any(mask & dead, axis=1)) < 6


def test_nothing_ever_came_in(xp):
    problem = Quadratic(xp.asarray(np.zeros((3, 3))), xp.asarray(np.arange(6.0).reshape(2, 3)))
    mask = np.array([[True, False, True], [True, True, True]])
    solution = refit(problem, xp.asarray(mask))
    np.testing.assert_array_equal(xp.numpy(solution.weights), np.where(mask, np.arange(6.0).reshape(2, 3), 0))
    assert solution.certificate.objective == solution.certificate.residual == 0


# -- units and precision -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [40, 6])
@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_units_do_not_matter(xp, tokens, unit):
    """V follows W, and sqrt(G_jj) V_j stays when a channel is rescaled; singular or not."""
    layer, mask = normal_layer(69, tokens, 10, 4, drift=0.2), random_mask(69, (4, 10), 0.8)
    point, solution = answer(xp, layer, mask)
    slack = rounding_of_loss(layer, point) / layer.energy
    assert slack < 1e-9
    for inputs, weight in ((unit, 1.0), (1.0, unit), (unit, unit)):
        moved, other = answer(xp, layer.scaled(inputs, weight), mask)
        close(moved, point * weight)
        assert other.status is solution.status
        assert other.certificate.relative_error == pytest.approx(solution.certificate.relative_error, rel=1e-9, abs=slack)
    channels = np.logspace(0, np.log10(unit), 10)
    scaled = Layer(layer.inputs * channels, layer.weight / channels, layer.dense * channels)
    close(answer(xp, scaled, mask)[0] * channels, point, rtol=1e-7)


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
def test_float32(xp, scale):
    layer, mask = normal_layer(70, 60, 16, 5, condition=30.0, drift=0.2).scaled(inputs=scale), random_mask(70, (5, 16))
    point, solution = answer(xp, layer, mask, "float32")
    assert solution.weights.dtype == xp.dtype("float32") and solution.status is Status.DIRECT
    expected = least_change(layer, mask)[0]
    close(point, expected, rtol=1e-3)
    assert layer.loss(point) <= layer.loss(expected) * (1 + 1e-6)
    rounded = layer.problem(xp, "float32").double  # solved in float64: only the weights are rounded
    close(point, xp.numpy(refit(rounded, xp.asarray(mask)).weights), rtol=1e-6)
