"""The recipes by name: baselines against one line of numpy each, and what all methods have in common."""

from __future__ import annotations

import numpy as np
import pytest
from exact_methods import EXACT
from method_instances import PATTERNS, PLAIN, SHIFTED, allowed, hard, kept_counts, problem_of, relative_error

from gramian.adapters.methods.registry import WEIGHT_METHODS
from gramian.proofs.kit.strategies import Layer
from gramian.solvers import NM, Solution, Status, TopK, sparsegpt
from gramian.solvers.support.baselines import magnitude, wanda
from gramian.solvers.support.lasso_rounding import fistapruner


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("layer", [PLAIN, SHIFTED], ids=["plain", "shifted"])
def test_baselines_keep_the_largest_weights_as_they_are(xp, layer, pattern):
    problem = layer.problem(xp)
    found = xp.numpy(magnitude(problem, pattern).weights)
    np.testing.assert_array_equal(found, np.where(hard(np.abs(layer.weight), pattern), layer.weight, 0))
    score = np.abs(layer.weight) * np.linalg.norm(layer.inputs, axis=0)
    solution = wanda(problem, pattern)
    found = xp.numpy(solution.weights)
    np.testing.assert_array_equal(found, np.where(hard(score, pattern), layer.weight, 0))
    assert solution.status is Status.DIRECT and solution.certificate.violation == 0
    np.testing.assert_allclose(solution.certificate.relative_error, relative_error(layer, found), rtol=1e-10)


def test_wanda_is_optimal_for_orthogonal_channels_and_magnitude_is_not():
    layer = Layer(np.diag([10.0, 1.0]), np.array([[1.0, 2.0]]))
    errors = [relative_error(layer, method(problem_of(layer), NM(1, 2)).weights) for method in (magnitude, wanda)]
    assert errors == pytest.approx([100 / 104, 4 / 104])


@pytest.mark.parametrize("method", [magnitude, wanda, sparsegpt, fistapruner])
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_ties_are_exact_to_the_count(method, pattern):
    """Constant weights and channels of equal size: everything ties."""
    layer = Layer(np.kron(np.ones((2, 1)), np.eye(8)), np.full((6, 8), -0.5))
    solution = method(problem_of(layer), pattern)
    assert np.all(kept_counts(solution.weights, pattern) == allowed(layer.weight, pattern))


def test_the_problem_is_not_touched():
    problem = problem_of(SHIFTED)
    before = [array.copy() for array in (problem.gram, problem.anchor, problem.slope, problem.floor)]
    for method in WEIGHT_METHODS.values():
        method.decide(problem, TopK(0.5))
    for array, kept in zip((problem.gram, problem.anchor, problem.slope, problem.floor), before):
        np.testing.assert_array_equal(array, kept)


@pytest.mark.parametrize("name", WEIGHT_METHODS)
def test_a_pattern_that_does_not_divide_is_refused(name):
    with pytest.raises(ValueError, match="pattern 2:5 needs a multiple of 5"):
        WEIGHT_METHODS[name].decide(problem_of(PLAIN), NM(2, 5))


def test_options_are_bound_by_name():
    method = WEIGHT_METHODS["fistapruner"]
    with pytest.raises(ValueError, match="fistapruner has no option 'steps'"):
        method.tried({"steps": 3})
    with pytest.raises(ValueError, match="has no option 'problem'"):
        method.tried({"problem": 3})
    bound: Solution = method.tried({"max_lambdas": 1, "warm_start": "wanda"})(problem_of(PLAIN), TopK(0.5))
    assert len(bound.history) == 1
    for each in EXACT.values():
        assert np.sum(each.tried({})(problem_of(PLAIN), TopK(0.5)).weights == 0) == PLAIN.weight.size // 2
