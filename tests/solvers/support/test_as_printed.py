"""FISTAPruner to the letter: against Algorithm 1 written out in plain numpy, and honest on any layer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from method_instances import PATTERNS, PLAIN, SHIFTED, STARTS, hard, planted, problem_of, relative_error

from gramian.proofs.fistapruner.printed import algorithm_one, iterate, printed
from gramian.proofs.kit.strategies import Layer, layers, normal_layer
from gramian.solvers import L1, NM, Pattern, Quadratic, Status, TopK, certify, fistapruner_printed
from gramian.solvers.support.as_printed import iterate as iterate_on_gram

# channels and outputs of such sizes that 1e-5 is a lambda that matters
SMALL = normal_layer(4, 60, 16, 6, condition=30).scaled(inputs=1e-2, weight=0.3)


def by_hand(layer: Layer, pattern: Pattern, warm_start: str, **options: Any) -> tuple[np.ndarray, list[Any]]:
    """Algorithm 1 from the data."""
    start = np.asarray(STARTS[warm_start](problem_of(layer), pattern).weights)
    return algorithm_one(
        layer.inputs, layer.outputs, start, lambda weights: np.where(hard(np.abs(weights), pattern), weights, 0.0), **options
    )


@pytest.mark.parametrize("warm_start", STARTS)
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("layer", [PLAIN, SHIFTED, normal_layer(5, 12, 24, 3)], ids=["plain", "shifted", "singular"])
def test_it_is_algorithm_one(xp, layer, pattern, warm_start):
    solution = fistapruner_printed(layer.problem(xp), pattern, warm_start=warm_start, max_lambdas=12)
    expected, visits = by_hand(layer, pattern, warm_start)
    count = min(12, len(visits))
    assert len(solution.history) == count and (solution.status is Status.STEP_LIMIT) == (len(visits) > 12)
    scale = math.sqrt(layer.energy)
    errors = [error / scale for _, error in solution.history]
    np.testing.assert_allclose(errors, [visit.error / math.sqrt(2) / scale for visit in visits[:count]], rtol=1e-6, atol=1e-7)
    if len(visits) <= 12:
        np.testing.assert_allclose(xp.numpy(solution.weights), expected, rtol=1e-6, atol=1e-7)
    best = min((visit for visit in visits[:count]), key=lambda visit: visit.error)
    if solution.detail["improvements"]:
        np.testing.assert_allclose(solution.detail["best_lambda"], best.weight, rtol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {"inner_steps": 1},
        {"inner_steps": 7, "threshold": 0.0},
        {"threshold": 0.05, "patience": 1},
        {"first_lambda": 1e-6, "largest_lambda": 1e-3, "patience": 6},
        {"tolerance": 0.05},
    ],
    ids=str,
)
def test_every_setting_is_the_paper_s(options):
    names = {"inner_steps": "steps", "threshold": "share", "first_lambda": "weight", "largest_lambda": "upper"}
    solution = fistapruner_printed(problem_of(SMALL), TopK(0.5), **options)
    expected, visits = by_hand(SMALL, TopK(0.5), "wanda", **{names.get(name, name): value for name, value in options.items()})
    assert solution.status is Status.SEARCHED and len(solution.history) == len(visits)
    np.testing.assert_allclose(solution.weights, expected, rtol=1e-6, atol=1e-8)


def test_the_iteration_is_equation_four_with_its_stop(xp):
    layer = normal_layer(6, 40, 8, 3, condition=3)
    problem, gram = layer.problem(xp), layer.inputs.T @ layer.inputs
    lipschitz, cross = float(np.linalg.eigvalsh(gram)[-1]), layer.outputs.T @ layer.inputs
    points = [ahead for _, ahead in iterate(gram, cross, 0.5, lipschitz, np.zeros((3, 8)), 400, printed)]
    moves = [float(np.linalg.norm(after - before)) for before, after in zip([np.zeros((3, 8)), *points], points)]
    stop = next(k for k, move in enumerate(moves, 1) if move < 1e-6)
    for most, expected in ((1, 1), (2, 2), (9, 9), (400, stop)):
        found, taken = iterate_on_gram(problem, lipschitz, 0.5, xp.asarray(np.zeros((3, 8))), most)
        assert taken == expected
        np.testing.assert_allclose(xp.numpy(found), points[expected - 1], rtol=1e-9, atol=1e-10)
    optimum = certify(problem, L1(0.5), xp.asarray(points[-1]))
    assert 20 < stop < 400 and optimum.relative_gap < 1e-6


@pytest.mark.parametrize("warm_start", STARTS)
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_a_planted_answer_is_found(xp, pattern, warm_start):
    layer, sparse = planted(113, pattern)
    solution = fistapruner_printed(layer.problem(xp), pattern, warm_start=warm_start)
    np.testing.assert_array_equal(xp.numpy(solution.weights) != 0, sparse != 0)
    near = warm_start == "sparsegpt"  # its damped sweep is there at once, and may be nearer than 20 steps lead
    np.testing.assert_allclose(xp.numpy(solution.weights), sparse, atol=1e-2 if near else 1e-3)
    assert solution.certificate.relative_error <= 1e-4 and (near or solution.detail["improvements"] > 0)


def test_rounding_is_blind_to_the_size_of_channels():
    """f(V) = 1/2 (v_1 - 5)^2 + 2 (v_2 - 3)^2 is 18 without v_2 and 12.5 without v_1, but Eq. (7) keeps the larger weight."""
    problem = Quadratic(np.diag([1.0, 4.0]), np.array([[5.0, 3.0]]))
    rounded = fistapruner_printed(problem, TopK(0.5), warm_start="magnitude")
    np.testing.assert_allclose(rounded.weights, [[5.0, 0.0]], atol=1e-4)
    np.testing.assert_allclose(fistapruner_printed(problem, TopK(0.5), warm_start="wanda").weights, [[0.0, 3.0]], atol=1e-4)


def test_the_answer_depends_on_units_as_claim_f11_says():
    first, second = (fistapruner_printed(problem_of(PLAIN.scaled(inputs=unit)), TopK(0.5)) for unit in (1.0, 1e-4))
    assert abs(relative_error(PLAIN, first.weights) - relative_error(PLAIN, second.weights)) > 1e-2 * relative_error(
        PLAIN, first.weights
    )


@settings(max_examples=60)
@given(data=st.data())
def test_promises_on_odd_layers(xp, data):
    """Dead and duplicate channels, ties, fewer tokens than channels, one row, one column, any scale, X* != X, float32."""
    layer = data.draw(layers(inputs=4, multiple=data.draw(st.sampled_from([1, 4]))))
    anywhere: list[Pattern] = [TopK(0.5), TopK(0.3, per_row=True), TopK(0.0), NM(1, 1)]
    pattern = data.draw(st.sampled_from(anywhere + ([NM(2, 4), NM(1, 2)] if layer.weight.shape[1] == 4 else [])))
    warm_start, dtype = data.draw(st.sampled_from(sorted(STARTS))), data.draw(st.sampled_from(["float64", "float32"]))
    problem = layer.problem(xp, dtype)
    solution = fistapruner_printed(problem, pattern, warm_start=warm_start, max_lambdas=6)
    point = xp.numpy(solution.weights)
    assert point.dtype == dtype and point.shape == layer.weight.shape and np.all(np.isfinite(point))
    assert pattern.admits(xp.asarray(point != 0)) and solution.certificate.violation == 0
    assert 1 <= len(solution.history) <= 6 and solution.steps <= 20 * len(solution.history)
    warm = xp.numpy(STARTS[warm_start](problem, pattern).weights).astype(float)
    slack = (1e-9 if dtype == "float64" else 1e-4) * (layer.magnitude(layer.weight) + layer.magnitude(warm))
    assert layer.loss(point.astype(float)) <= layer.loss(warm) + slack
    np.testing.assert_allclose(solution.certificate.objective, layer.loss(point.astype(float)), atol=slack)
    if solution.detail["improvements"] == 0:
        np.testing.assert_array_equal(point, xp.numpy(STARTS[warm_start](problem, pattern).weights))


def test_a_limit_of_lambdas_is_said():
    stopped = fistapruner_printed(problem_of(PLAIN), TopK(0.5), warm_start="sparsegpt", tolerance=0.0, max_lambdas=1)
    assert stopped.status is Status.STEP_LIMIT and len(stopped.history) == 1
    gradient = (PLAIN.inputs @ stopped.weights.T - PLAIN.outputs).T @ PLAIN.inputs
    residual = np.linalg.norm(gradient[stopped.weights != 0]) / np.linalg.norm(PLAIN.outputs.T @ PLAIN.inputs)
    np.testing.assert_allclose(stopped.certificate.residual, residual, rtol=1e-8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warm_start": "dense"}, "warm_start must be one of magnitude, wanda, sparsegpt but is 'dense'"),
        ({"inner_steps": 0}, "inner_steps must be a whole number of at least 1 but is 0"),
        ({"patience": 0}, "patience must be a whole number of at least 1 but is 0"),
        ({"max_lambdas": -1}, "max_lambdas must be a whole number of at least 1 but is -1"),
        ({"threshold": 1.5}, r"threshold must be in \[0, 1\] but is 1.5"),
        ({"threshold": float("nan")}, "threshold must be"),
        ({"tolerance": -1.0}, r"tolerance must be in \[0, inf\) but is -1.0"),
        ({"tolerance": float("nan")}, "tolerance must be"),
        ({"largest_lambda": 0.0}, r"largest_lambda must be in \(0, inf\) but is 0.0"),
        ({"largest_lambda": float("inf")}, "largest_lambda must be"),
        ({"first_lambda": -1.0}, r"first_lambda must be in \[0, 1000000.0\] but is -1.0"),
        ({"first_lambda": 1.0, "largest_lambda": 0.5}, r"first_lambda must be in \[0, 0.5\]"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        fistapruner_printed(problem_of(PLAIN), TopK(0.5), **options)
