"""The LASSO along lambda: its end, its monotone facts, and the search for a sparsity."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gramian.proofs.kit.references import exact_lasso, exact_zeros
from gramian.proofs.kit.strategies import Layer, from_gram, layers, normal_layer
from gramian.solvers import (
    L1,
    Quadratic,
    SparsitySearch,
    Status,
    certify,
    lambda_max,
    lasso_path,
    lasso_to_sparsity,
)

TIGHT = {"tol": 1e-12, "max_steps": 4000}


def number(xp, array) -> float:
    return float(xp.numpy(array).reshape(-1)[0])


def zeros_of(layer: Layer, weight: float) -> int:
    return int(np.sum(exact_zeros(layer.inputs, layer.outputs, weight)))


@given(layer=layers(inputs=4))
def test_lambda_max_is_exact(xp, layer: Layer):
    assume(layer.largest > 0)
    problem = layer.problem(xp)
    largest = number(xp, lambda_max(problem))
    assert largest == pytest.approx(layer.largest, rel=1e-9)
    rows = xp.numpy(lambda_max(problem, per_row=True))
    slopes = np.max(np.abs(layer.outputs.T @ layer.inputs), axis=1, keepdims=True)
    np.testing.assert_allclose(rows, slopes, rtol=1e-9, atol=1e-12 * layer.largest)
    zero = xp.asarray(np.zeros_like(layer.weight))
    energy = layer.energy
    assert certify(problem, L1(largest * (1 + 1e-9)), zero).gap <= 1e-9 * energy
    optimum, least = exact_lasso(layer.inputs, layer.outputs, layer.largest * (1 + 1e-9))
    assert not np.any(optimum) and least == pytest.approx(energy)
    # Just below lambda_max one weight moves, by (lambda_max - lambda) / G_jj.
    problem, below = layer.problem(xp), largest * (1 - 1e-4)
    gap = certify(problem, L1(below), zero).gap
    assert gap > 1e-10 * energy
    optimum, least = exact_lasso(layer.inputs, layer.outputs, below)
    assert np.any(optimum) and least < energy


@pytest.mark.parametrize("side, moves", [(1 + 1e-9, False), (1.0, False), (1 - 1e-9, True)])
def test_lambda_max_to_nine_digits(xp, side, moves):
    """One proximal step from zero stays there if and only if lambda >= lambda_max, equality included."""
    layer = normal_layer(30, 20, 6, 3, drift=0.3)
    problem = layer.problem(xp)
    zero = xp.asarray(np.zeros_like(layer.weight))
    step = 1 / problem.lipschitz
    moved = L1(side * number(xp, lambda_max(problem))).prox(zero - step * problem.gradient(zero), step)
    assert bool(np.any(xp.numpy(moved))) is moves


@pytest.mark.parametrize("drift", [0.0, 0.4])
def test_what_is_monotone_along_the_path(xp, drift):
    """As lambda falls: the fit improves, |V|_1 grows, and F* falls, concave, with slope |V|_1."""
    layer = normal_layer(31, 24, 8, 3, condition=10.0, drift=drift)
    fractions = np.sort(np.random.default_rng(32).uniform(0.01, 1.2, size=8))[::-1]
    weights = [float(fraction * layer.largest) for fraction in fractions]
    found = lasso_path(layer.problem(xp), weights, tol=1e-11)
    assert [point.weight for point in found] == weights
    assert all(point.solution.status is Status.CONVERGED for point in found)
    norms = [float(np.sum(np.abs(xp.numpy(point.solution.weights)))) for point in found]
    fits = [layer.loss(xp.numpy(point.solution.weights)) for point in found]
    objectives = [fit + weight * norm for fit, weight, norm in zip(fits, weights, norms)]
    slack = 1e-4 * layer.energy**0.5
    for k in range(len(weights) - 1):
        assert fits[k] >= fits[k + 1] - slack
        assert norms[k] <= norms[k + 1] + slack
        drop, width = objectives[k] - objectives[k + 1], weights[k] - weights[k + 1]
        tiny = 1e-10 * layer.energy
        assert norms[k] * width - tiny <= drop <= norms[k + 1] * width + tiny
    assert norms[0] == 0 and norms[-1] > 0


def test_path_restarts_from_its_predecessor(xp):
    """Warm starts pay: the path costs less than its points alone."""
    layer = normal_layer(33, 40, 12, 3, condition=30.0)
    weights = [float(w) for w in layer.largest * np.geomspace(0.5, 0.01, 12)]
    together = sum(point.solution.steps for point in lasso_path(layer.problem(xp), weights, tol=1e-5))
    apart = sum(lasso_path(layer.problem(xp), [weight], tol=1e-5)[0].solution.steps for weight in weights)
    assert together < apart


def check_bracket(xp, layer: Layer, search: SparsitySearch, per_row: bool) -> None:
    """zeros_below < target <= zeros, below < weight, and the solution is what it says it is."""
    point = xp.numpy(search.solution.weights)
    counted = np.sum(point == 0, axis=1, keepdims=True) if per_row else np.array([[np.sum(point == 0)]])
    weight, below, zeros, zeros_below = (
        xp.numpy(array) for array in (search.weight, search.below, search.zeros, search.zeros_below)
    )
    shape = (layer.weight.shape[0], 1) if per_row else (1, 1)
    assert weight.shape == below.shape == zeros.shape == zeros_below.shape == shape
    np.testing.assert_array_equal(zeros, counted)
    assert np.all(zeros >= search.target) and np.all(zeros_below < search.target)
    assert np.all(below < weight) and np.all((below == 0) == (zeros_below == -1))
    again = certify(layer.problem(xp), L1(search.weight), search.solution.weights)
    assert search.solution.certificate == again


@given(layer=layers(scales=(1.0,)), sparsity=st.sampled_from([0.0, 0.25, 0.5, 0.8]), per_row=st.booleans())
@settings(max_examples=25)
def test_the_bracket_holds_on_any_layer(xp, layer: Layer, sparsity, per_row):
    search = lasso_to_sparsity(layer.problem(xp), sparsity, per_row=per_row, tol=1e-4, max_steps=100)
    check_bracket(xp, layer, search, per_row)
    exhausted = (xp.numpy(search.below) == 0) & (xp.numpy(search.zeros) > search.target)
    assert (search.solution.status is Status.UNREACHABLE) == bool(np.any(exhausted))


@pytest.mark.parametrize("tol", [1e-1, 1e-3])
def test_loose_solves_keep_the_bracket(xp, tol):
    """A row that is done is solved again beside the others; an inexact solve must not reopen it."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        inputs, outputs = int(rng.integers(3, 14)), int(rng.integers(2, 7))
        layer = normal_layer(seed, 30, inputs, outputs, condition=10 ** rng.uniform(0, 3))
        layer = Layer(layer.inputs, layer.weight * np.logspace(0, 2, len(layer.weight))[:, None])
        search = lasso_to_sparsity(layer.problem(xp), 0.5, per_row=True, tol=tol, max_steps=20)
        check_bracket(xp, layer, search, per_row=True)


@pytest.mark.parametrize("drift", [0.0, 0.4])
@pytest.mark.parametrize("sparsity", [0.2, 0.5, 0.8])
def test_hits_the_target_in_general_position(xp, drift, sparsity):
    layer = normal_layer(34, 20, 5, 4, condition=10.0, drift=drift)
    search = lasso_to_sparsity(layer.problem(xp), sparsity, **TIGHT)
    check_bracket(xp, layer, search, per_row=False)
    assert search.solution.status is Status.SEARCHED
    assert number(xp, search.zeros) == search.target == round(sparsity * 20)
    assert zeros_of(layer, number(xp, search.weight)) == search.target
    below = number(xp, search.below)
    if below > 0:
        assert zeros_of(layer, below) == number(xp, search.zeros_below)
    assert search.solution.detail["target"] == search.target
    assert search.solution.detail["lambda"] == number(xp, search.weight)


def test_per_row_hits_the_target_in_every_row(xp):
    layer = normal_layer(35, 20, 6, 4, condition=10.0, drift=0.3)
    layer = Layer(layer.inputs, layer.weight * np.logspace(0, 3, 4)[:, None], layer.dense * 1.0)
    search = lasso_to_sparsity(layer.problem(xp), 0.5, per_row=True, **TIGHT)
    check_bracket(xp, layer, search, per_row=True)
    assert search.target == 3 and np.all(xp.numpy(search.zeros) == 3)
    for row, weight in enumerate(xp.numpy(search.weight)[:, 0]):
        assert exact_zeros(layer.inputs, layer.outputs[:, [row]], weight)[0] == 3


NOT_MONOTONE = [
    (np.array([[5, 2], [2, 1.0]]), (-0.9, 3), {0.1: 0, 0.5: 1, 0.95: 0, 1.2: 1, 1.6: 2}),
    (
        np.array([[1, 0, 0.7], [0, 1, 0.6], [0.7, 0.6, 1]]),
        (-2, -4, 5),
        {0.1: 0, 0.4: 1, 0.7: 0, 0.9: 1, 1.2: 2, 1.6: 3},
    ),
]


@pytest.mark.parametrize("gram, weight, counts", NOT_MONOTONE)
def test_zeros_are_not_monotone_in_lambda(xp, gram, weight, counts):
    """Against FISTAPruner's Theorem 1; the bracket needs no monotony and the search still ends on its target."""
    layer = from_gram(gram, weight)
    path = lasso_path(layer.problem(xp), sorted(counts, reverse=True), **TIGHT)
    assert {point.weight: int(np.sum(xp.numpy(point.solution.weights) == 0)) for point in path} == counts
    assert {weight: zeros_of(layer, weight) for weight in counts} == counts
    width = len(gram)
    for target in range(1, width):
        search = lasso_to_sparsity(layer.problem(xp), target / width, **TIGHT)
        check_bracket(xp, layer, search, per_row=False)
        assert number(xp, search.zeros) == target == zeros_of(layer, number(xp, search.weight))


def test_ties_jump_over_the_target(xp):
    """X = I and equal weights: no lambda has some zeros but not all. The bracket closes in on the jump."""
    problem = Quadratic(xp.asarray(np.eye(4)), xp.asarray(np.full((2, 4), 0.7)))
    search = lasso_to_sparsity(problem, 0.5, width=1e-3, tol=1e-10)
    check_bracket(xp, from_gram(np.eye(4), np.full((2, 4), 0.7)), search, per_row=False)
    weight, below = number(xp, search.weight), number(xp, search.below)
    assert search.target == 4 and number(xp, search.zeros) == 8 and number(xp, search.zeros_below) == 0
    assert below < 0.7 <= weight * (1 + 1e-12) and weight / below <= 1 + 1e-3
    assert search.solution.status is Status.SEARCHED


def test_natural_zeros_cannot_be_told_apart(xp):
    """A single token has one nonzero at most, however small lambda: 25 % sparsity is out of reach."""
    layer = Layer(np.array([[2.0, 1.0, 0.5, 0.25]]), np.array([[1.0, 1.0, 1.0, 1.0]]))
    search = lasso_to_sparsity(layer.problem(xp), 0.25, **TIGHT)
    assert search.solution.status is Status.UNREACHABLE
    assert number(xp, search.below) == 0 and number(xp, search.zeros) == 3 > search.target == 1
    rows = Layer(np.eye(4), np.array([[0, 0, 0, 1.0], [1, 2, 3, 4.0]]))  # the first row has 3 zeros of its own
    search = lasso_to_sparsity(rows.problem(xp), 0.5, per_row=True, **TIGHT)
    assert search.solution.status is Status.UNREACHABLE
    np.testing.assert_array_equal(xp.numpy(search.zeros), [[3], [2]])


def test_the_last_lambda_may_hit_the_target(xp):
    """W = (1, 2e-7, 3e-8), X = I: one zero is first met at the smallest lambda tried, 1e-7. That is a find."""
    layer = Layer(np.eye(3), np.array([[1.0, 2e-7, 3e-8]]))
    search = lasso_to_sparsity(layer.problem(xp), 1 / 3, **TIGHT)
    check_bracket(xp, layer, search, per_row=False)
    assert number(xp, search.zeros) == search.target == 1
    assert number(xp, search.weight) == pytest.approx(1e-7)
    assert search.solution.status is Status.SEARCHED


def test_nothing_to_fit(xp):
    problem = Quadratic(xp.asarray(np.zeros((3, 3))), xp.asarray(np.ones((2, 3))))
    search = lasso_to_sparsity(problem, 0.5)
    assert search.solution.status is Status.UNREACHABLE
    np.testing.assert_array_equal(xp.numpy(search.solution.weights), np.zeros((2, 3)))


@pytest.mark.parametrize("per_row", [False, True])
def test_sparsity_zero(xp, per_row):
    layer = normal_layer(36, 20, 5, 3)
    search = lasso_to_sparsity(layer.problem(xp), 0.0, per_row=per_row, **TIGHT)
    check_bracket(xp, layer, search, per_row)
    assert search.target == 0 and np.all(xp.numpy(search.solution.weights) != 0)


@pytest.mark.parametrize("power", [-20, 20])
def test_the_search_has_no_units(xp, power):
    layer, unit = normal_layer(37, 20, 6, 2, drift=0.2), 2.0**power
    plain = lasso_to_sparsity(layer.problem(xp), 0.5)
    louder = lasso_to_sparsity(layer.scaled(inputs=unit).problem(xp), 0.5)
    np.testing.assert_array_equal(xp.numpy(louder.solution.weights), xp.numpy(plain.solution.weights))
    assert number(xp, louder.weight) == unit**2 * number(xp, plain.weight)


def test_sparsity_outside_the_unit_interval(xp):
    problem = normal_layer(38, 8, 3, 2).problem(xp)
    for bad in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"sparsity must be in \[0, 1\)"):
            lasso_to_sparsity(problem, bad)


def test_float32(xp):
    layer = normal_layer(39, 40, 10, 4)
    search = lasso_to_sparsity(layer.problem(xp, "float32"), 0.5, tol=1e-4)
    assert search.solution.weights.dtype == xp.dtype("float32")
    assert number(xp, search.zeros) == search.target == 20
    assert search.solution.certificate.relative_gap <= 1e-4


@pytest.mark.parametrize("spread, per_row", [(0, True), (5, False), (5, True)])
def test_a_sparsity_is_found_however_channels_are_scaled(xp, spread, per_row):
    """Channels of norms 10^-s to 10^s: those of least norm are the last to be pruned, at a lambda far below lambda_max."""
    rng = np.random.default_rng(95)
    inputs, weight = rng.normal(size=(40, 6)) * np.logspace(-spread, spread, 6), rng.normal(size=(3, 6))
    problem = Quadratic.from_data(xp.asarray(inputs), xp.asarray(weight))
    for zeros in (1, 3):
        search = lasso_to_sparsity(problem, zeros / 6, per_row=per_row)
        assert search.solution.status is Status.SEARCHED
        assert np.all(xp.numpy(search.zeros) == search.target) and search.target == (zeros if per_row else 3 * zeros)
        assert search.solution.certificate.bound > -np.inf
