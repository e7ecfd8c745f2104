"""ADMM over supports on any layer: singular, dead, duplicate and tied channels, units, order, precision."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from least_squares import USUAL, close, exact_count, search

from gramian.proofs.kit.references import support_least_squares
from gramian.proofs.kit.strategies import PATTERNS, Layer, layers, normal_layer, patterns
from gramian.solvers import NM, Quadratic, TopK, empirical_ridge, l0_admm


@given(layer=layers(inputs=8, multiple=4), data=st.data())
@settings(max_examples=40)
def test_any_layer(xp, layer: Layer, data):
    """Singular, dead, duplicate and tied channels, one row, fewer tokens than channels, scales 1e-6 and 1e6: the count,
    and the exact weights on whatever support was found."""
    pattern = data.draw(patterns(data.draw(st.sampled_from(sorted(PATTERNS, key=str))), layer.weight.shape[1]))
    point, solution = search(xp, layer, pattern, steps=20)
    assert np.sum(point == 0) >= exact_count(pattern, point.shape)
    expected, least = support_least_squares(layer.inputs, layer.outputs, point != 0)
    assert abs(layer.loss(point) - least) <= 1e-9 * layer.magnitude(expected)
    assert abs(solution.certificate.objective - layer.loss(point)) <= 1e-11 * layer.magnitude(point)
    gradient = np.linalg.norm(layer.outputs.T @ layer.inputs)
    size = np.linalg.norm(layer.inputs.T @ layer.inputs) * (np.linalg.norm(point) + np.linalg.norm(layer.weight))
    assert gradient == 0 or solution.certificate.residual * gradient <= 1e-9 * (size + gradient)


@pytest.mark.parametrize("shape", [(1, 8), (5, 1), (1, 1)])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.99])
def test_one_row_and_one_column(xp, shape, sparsity):
    layer = normal_layer(240, 20, shape[1], shape[0])
    for pattern in (TopK(sparsity), TopK(sparsity, per_row=True)):
        point, _ = search(xp, layer, pattern, steps=60)
        assert np.sum(point == 0) == exact_count(pattern, shape)
        if shape[1] == 1 and not pattern.per_row:
            largest = np.argsort(-np.abs(layer.weight[:, 0]))[: np.sum(point != 0)]
            np.testing.assert_array_equal(np.sort(largest), np.flatnonzero(point[:, 0]))


@pytest.mark.parametrize("pattern", [TopK(0.5), TopK(1 / 3, per_row=True), NM(2, 4), NM(1, 4), NM(3, 4)], ids=str)
def test_ties_keep_the_count(xp, pattern):
    for weight in (np.ones((3, 8)), np.tile([1.0, -1.0, 2.0, 2.0], (3, 2))):
        for inputs in (np.eye(8), np.tile(np.eye(4), (1, 2)), np.ones((1, 8))):
            solution = l0_admm(Layer(inputs, weight).problem(xp), pattern, steps=12)
            assert np.sum(xp.numpy(solution.weights) == 0) == exact_count(pattern, weight.shape)


@pytest.mark.parametrize("drift", [0.0, 0.3])
def test_a_pattern_that_asks_for_nothing(xp, drift):
    layer = normal_layer(241, 40, 8, 3, drift=drift)
    for pattern in (TopK(0.0), NM(4, 4)):
        point, _ = search(xp, layer, pattern, steps=20)
        close(point, np.linalg.lstsq(layer.inputs, layer.outputs, rcond=None)[0].T)
    natural = Layer(layer.inputs, np.where(layer.weight > 0, layer.weight, 0.0))  # zeros enough for the pattern
    point, solution = search(xp, natural, TopK(0.25), steps=20)
    np.testing.assert_array_equal(point, natural.weight)
    assert solution.certificate.objective == 0


@pytest.mark.parametrize("unit", [1.0, 1e-3])
@pytest.mark.parametrize("pattern", USUAL, ids=str)
def test_dead_channels_go_first(xp, pattern, unit):
    """However large their weights are, with a ridge from the evidence too, and the live ones are pruned as if alone."""
    layer = normal_layer(242, 80, 12, 6, condition=10.0).scaled(inputs=unit)
    inputs, weight = layer.inputs.copy(), layer.weight.copy()
    dead = np.arange(12) % 4 == 1
    inputs[:, dead], weight[:, dead] = 0, 1e3
    layer = Layer(inputs, weight)
    point, solution = search(xp, layer, pattern, steps=30)
    assert np.all(point[:, dead] == 0) and np.sum(point == 0) == exact_count(pattern, point.shape)
    problem = layer.problem(xp)
    for ridge in (0.1 * problem.diagonal, empirical_ridge(problem, pattern, 80).ridge):
        damped = l0_admm(problem.damped(ridge), pattern, steps=30)
        assert np.all(xp.numpy(damped.weights)[:, dead] == 0)
        assert problem.relative_error(damped.weights) <= 3 * solution.certificate.relative_error
    if isinstance(pattern, TopK):
        rest = TopK(1 - np.sum(point != 0) / np.sum(~dead) / 6, pattern.per_row)
        alone = search(xp, Layer(inputs[:, ~dead], weight[:, ~dead]), rest, steps=30)[1]
        assert solution.certificate.objective == pytest.approx(alone.certificate.objective, rel=0.15)


def test_nothing_but_dead_channels(xp):
    """Groups without a live channel keep their first weights as they were."""
    problem = Quadratic(xp.asarray(np.zeros((4, 4))), xp.asarray(np.arange(8.0).reshape(2, 4) + 1))
    point = xp.numpy(l0_admm(problem, NM(2, 4)).weights)
    np.testing.assert_array_equal(point, [[1, 2, 0, 0], [5, 6, 0, 0]])


def test_duplicate_channels_stand_in_for_each_other(xp):
    """Every channel twice: half of the weights would do for no error at all."""
    layer = normal_layer(243, 60, 6, 4)
    twice = Layer(np.repeat(layer.inputs, 2, axis=1), np.random.default_rng(243).normal(size=(4, 12)))
    for pattern in (TopK(0.5, per_row=True), NM(1, 2), NM(2, 4)):
        point, solution = search(xp, twice, pattern, steps=60)
        assert solution.certificate.relative_error <= 0.01
        if pattern == NM(1, 2):  # one of each pair must stay, and takes over all that the other did
            close(point.reshape(4, 6, 2).sum(axis=2), twice.weight.reshape(4, 6, 2).sum(axis=2))


# -- units, order and precision ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [80, 10])
@pytest.mark.parametrize("pattern", USUAL, ids=str)
def test_units_do_not_matter(xp, tokens, pattern):
    """To the bit for powers of two, those of single channels included; in the support for 1e-6 and 1e6."""
    layer = normal_layer(250, tokens, 16, 5, condition=10.0, drift=0.2)
    point, _ = search(xp, layer, pattern, steps=40)
    channels = 2.0 ** np.random.default_rng(250).integers(-12, 12, size=16)
    for inputs, weight in ((2.0**-20, 2.0**30), (channels, 1 / channels)):
        np.testing.assert_array_equal(search(xp, layer.scaled(inputs, weight), pattern, steps=40)[0] / weight, point)
    for unit in (1e-6, 1e6):
        close(search(xp, layer.scaled(unit, unit), pattern, steps=40)[0] / unit, point)


@pytest.mark.parametrize("pattern", USUAL, ids=str)
def test_order_does_not_matter(xp, pattern):
    """Outputs in any order; channels too, unless groups say otherwise, and then groups and the channels of each."""
    layer = normal_layer(251, 80, 16, 5, condition=10.0, drift=0.2)
    rng = np.random.default_rng(251)
    point, _ = search(xp, layer, pattern, steps=40)
    rows, columns = rng.permutation(5), rng.permutation(16)
    if isinstance(pattern, NM):
        columns = np.concatenate([4 * group + rng.permutation(4) for group in rng.permutation(4)])
    close(search(xp, layer.permuted(rows), pattern, steps=40)[0], point[rows])
    close(search(xp, layer.permuted(columns=columns), pattern, steps=40)[0], point[:, columns])


def test_rows_that_do_not_compete_are_independent(xp):
    layer = normal_layer(252, 80, 16, 5, condition=10.0, drift=0.2)
    for pattern in (TopK(0.5, per_row=True), NM(2, 4)):
        point, _ = search(xp, layer, pattern, steps=40)
        for row in (0, 3):
            close(search(xp, layer.permuted([row]), pattern, steps=40)[0], point[[row]])


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
def test_float32(xp, scale):
    layer = normal_layer(253, 80, 16, 5, condition=10.0, drift=0.2).scaled(inputs=scale)
    for pattern in USUAL:
        single = search(xp, layer, pattern, "float32", steps=20)[0]
        close(single, search(xp, layer, pattern, steps=20)[0], rtol=1e-3)


def test_the_problem_is_left_alone(xp):
    problem = normal_layer(254, 30, 8, 3, drift=0.2).problem(xp)
    before = [xp.numpy(array).copy() for array in (problem.gram, problem.anchor, problem.slope)]
    first = xp.numpy(l0_admm(problem, TopK(0.5), steps=20).weights)
    for array, expected in zip((problem.gram, problem.anchor, problem.slope), before):
        np.testing.assert_array_equal(xp.numpy(array), expected)
    np.testing.assert_array_equal(xp.numpy(l0_admm(problem, TopK(0.5), steps=20).weights), first)


@pytest.mark.parametrize(
    "options", [{"steps": 0}, {"stage": 0}, {"first": 0.0}, {"first": 2.0}, {"last": 0.01}, {"first": float("nan")}]
)
def test_bad_arguments(xp, options):
    problem = normal_layer(255, 12, 6, 2).problem(xp)
    with pytest.raises(ValueError, match=r"(steps|stage|first|last) must be "):
        l0_admm(problem, TopK(0.5), **options)
    with pytest.raises(ValueError, match=r"pattern 2:4 needs a multiple of 4 inputs but weight is \(2, 6\)"):
        l0_admm(problem, NM(2, 4))
