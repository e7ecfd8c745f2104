"""Local search over supports on any layer: units, order, precision, fewer tokens than channels, one row or column."""

from __future__ import annotations

import numpy as np
import pytest
from least_squares import exchanges, improve, random_start, refit_loss

from gramian.proofs.kit.strategies import Layer, normal_layer
from gramian.solvers import NM, TopK
from gramian.solvers.support.exchange import exchange_weights


@pytest.mark.parametrize("unit, pattern", [(1e-6, TopK(0.5)), (1e6, NM(2, 4))], ids=str)
def test_units_do_not_matter(xp, unit, pattern):
    layer = normal_layer(92, 60, 16, 3, condition=30.0, drift=0.2)
    start = random_start(92, layer, pattern)
    point, solution = improve(xp, layer, pattern, start)
    channels = np.logspace(0, np.log10(unit), 16)
    scaled = Layer(layer.inputs * channels, layer.weight / channels, layer.dense * channels)
    for other, back in ((layer.scaled(unit, unit), unit), (layer.scaled(unit), 1.0), (scaled, 1 / channels)):
        moved, again = improve(xp, other, pattern, start * back)
        np.testing.assert_array_equal(moved != 0, point != 0)
        np.testing.assert_allclose(moved / back, point, rtol=1e-6, atol=1e-8)
        assert again.detail["exchanges"] == solution.detail["exchanges"]


@pytest.mark.parametrize("pattern", (TopK(0.5), TopK(0.5, per_row=True), NM(2, 4)), ids=str)
def test_rows_have_no_order_and_answers_no_chance(xp, pattern):
    layer = normal_layer(93, 60, 12, 5, condition=30.0)
    start, order = random_start(93, layer, pattern), np.random.default_rng(93).permutation(5)
    point, _ = improve(xp, layer, pattern, start)
    np.testing.assert_array_equal(improve(xp, layer, pattern, start)[0], point)
    moved, _ = improve(xp, Layer(layer.inputs, layer.weight[order]), pattern, start[order])
    np.testing.assert_allclose(moved, point[order], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("tokens", [60, 10])
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_float32(xp, tokens, scale):
    layer = normal_layer(94, tokens, 16, 4, condition=30.0, drift=0.2).scaled(inputs=scale)
    start = random_start(94, layer, TopK(0.5))
    single, found = improve(xp, layer, TopK(0.5), start, "float32")
    double, expected = improve(xp, layer, TopK(0.5), start)
    assert (expected.detail["ridge"] > 0) == (found.detail["ridge"] > 0) == (tokens < 16)
    assert found.certificate.objective < 0.6 * refit_loss(layer, start != 0)
    if tokens > 16:
        np.testing.assert_array_equal(single != 0, double != 0)
        np.testing.assert_allclose(single, double, rtol=1e-3)


@pytest.mark.parametrize("tokens", [3, 6, 11])
def test_fewer_tokens_than_channels(xp, tokens):
    layer = normal_layer(95, tokens, 12, 4, condition=10.0)
    for pattern in (TopK(0.5), TopK(0.75, per_row=True), NM(1, 4)):
        point, solution = improve(xp, layer, pattern, random_start(95, layer, pattern), rounds=30)
        assert solution.detail["ridge"] == pytest.approx(1e-7) and solution.detail["swap_optimal"] == 1
        assert all(gain <= 2e-6 * (loss + zero) for gain, loss, zero in exchanges(layer, point != 0, pattern))


def test_duplicate_channels(xp):
    """Two kept copies of a channel are one too many: the row takes something new for one of them."""
    layer = normal_layer(96, 60, 8, 1, condition=3.0)
    layer = Layer(np.hstack([layer.inputs, layer.inputs[:, :2]]), np.hstack([layer.weight, layer.weight[:, :2]]))
    start = np.where(np.isin(np.arange(10), [0, 1, 8, 9]), layer.weight, 0.0)
    point, solution = improve(xp, layer, TopK(0.6), start)
    kept = point[0] != 0
    assert not (kept[0] and kept[8]) and not (kept[1] and kept[9]) and np.sum(kept) == 4
    assert solution.certificate.objective < 0.9 * refit_loss(layer, start != 0) and solution.detail["ridge"] > 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1)])
def test_one_row_or_one_column(xp, shape):
    layer = normal_layer(97, 20, shape[1], shape[0])
    start = random_start(97, layer, TopK(0.4))
    point, solution = improve(xp, layer, TopK(0.4), start)
    assert solution.detail["swap_optimal"] == 1
    assert all(gain <= 1.1e-6 * loss for gain, loss, _ in exchanges(layer, point != 0, TopK(0.4)))
    if shape[1] == 1:  # one channel: the largest weights
        np.testing.assert_array_equal(point != 0, TopK(0.4).select(np.abs(layer.weight)))


def test_bad_arguments(xp):
    layer = normal_layer(98, 20, 8, 2)
    problem, start = layer.problem(xp), xp.asarray(random_start(98, layer, NM(2, 4)))
    for options in ({"rounds": -1}, {"candidates": 1}, {"candidates": 64, "widest": 32}):
        with pytest.raises(ValueError, match=r"must be a whole number of at least (0 but is -1|2 but is 1|64 but is 32)"):
            exchange_weights(problem, NM(2, 4), start, **options)
    for wrong in (xp.asarray(layer.weight), start[:, :4]):
        with pytest.raises(ValueError, match=r"start must be \(2, 8\) and satisfy 2:4"):
            exchange_weights(problem, NM(2, 4), wrong)
    with pytest.raises(ValueError, match="multiple of 3 inputs"):
        exchange_weights(problem, NM(1, 3), start)
