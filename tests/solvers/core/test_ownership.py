"""Problems and terms own what they hold: neither an answer written back nor anything else that is written changes them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from solver_calls import CALLS

from gramian.proofs.kit.strategies import normal_layer
from gramian.solvers import FISTA, L1, Affine, MaskProblem, Moments, Quadratic, Support, TopK, lasso, refit, solve, sparsegpt
from gramian.solvers.backend._xp import namespace

LAYER = normal_layer(21, 60, 8, 4, drift=0.1)


def blank(array):
    """Write zeros into an array, in place."""
    array[...] = namespace(array).zeros_like(array)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CALLS)
def test_solvers_neither_write_to_a_problem_nor_return_its_arrays(xp, name, dtype):
    """An answer may be changed in place."""
    problem = LAYER.problem(xp, dtype)
    held = [problem.gram, problem.anchor, problem.slope, problem.floor]
    before = [xp.numpy(array).tobytes() for array in held]
    if xp.name == "numpy":
        for array in held:
            array.setflags(write=False)
    found = CALLS[name](problem, xp)
    assert [xp.numpy(array).tobytes() for array in held] == before
    for array in found if isinstance(found, list) else [found]:
        if not isinstance(array, float):
            blank(array)
    assert [xp.numpy(array).tobytes() for array in held] == before


def test_an_answer_written_back_changes_nothing(xp):
    """Into the array that the problem was made of, as a layer is pruned in place."""
    inputs, weight = xp.asarray(LAYER.inputs), xp.asarray(LAYER.weight)
    for problem in (Quadratic.from_data(inputs, weight), Quadratic(Quadratic.from_data(inputs, weight).gram, weight)):
        weights = sparsegpt(problem, TopK(0.5)).weights
        error, energy = problem.relative_error(weights), problem.energy
        weight[:, :] = weights
        assert problem.relative_error(weights) == error > 0
        weight[:, :] = xp.asarray(LAYER.weight)
        assert problem.loss(weight) == 0 and problem.energy == energy


def test_of_a_module_too():
    for dtype in (torch.float32, torch.float64):
        layer = torch.nn.Linear(8, 4, bias=False, dtype=dtype)
        problem = Quadratic.from_data(torch.from_numpy(LAYER.inputs), layer.weight)
        weights = sparsegpt(problem, TopK(0.5)).weights
        error = problem.relative_error(weights)
        with torch.no_grad():
            layer.weight.copy_(weights)
        assert problem.relative_error(weights) == error > 0


def test_nothing_that_is_written_to_what_was_given_changes_a_problem(xp):
    made = LAYER.problem(xp)
    parts = [xp.asarray(xp.numpy(array)) for array in (made.gram, made.anchor, made.slope, made.floor)]
    problem, zeros = Quadratic(*parts), xp.asarray(np.zeros((4, 8)))
    before = [array.tobytes() for array in map(xp.numpy, problem.value_and_gradient(zeros))]
    for part in parts:
        part[...] = 7.0
    assert [array.tobytes() for array in map(xp.numpy, problem.value_and_gradient(zeros))] == before


def test_terms_own_their_arrays_too(xp):
    weight, mask = xp.asarray(np.full((1, 2), 3.0)), xp.asarray(np.array([[True, False]]))
    matrix, values = xp.asarray(np.ones((1, 2))), xp.asarray(np.array([[4.0]]))
    point = xp.asarray(np.array([[5.0, 1.0]]))
    terms = [L1(weight), Support(mask), Affine(matrix, values)]
    before = [xp.numpy(term.prox(point, 1.0)).copy() for term in terms]
    for array, other in ((weight, 0.0), (mask, False), (matrix, 0.0), (values, 0.0)):
        array[...] = other
    for term, expected in zip(terms, before):
        np.testing.assert_array_equal(xp.numpy(term.prox(point, 1.0)), expected)


def test_mask_problems_own_their_arrays_too(xp):
    matrix, linear, cost = (xp.asarray(array) for array in (np.eye(2), np.zeros(2), np.ones(2)))
    problem = MaskProblem(matrix, linear, 0.0, cost)
    from_layer = MaskProblem.from_problem(Quadratic(xp.asarray(np.eye(2)), xp.asarray(np.ones((1, 2)))), cost=cost)
    for array in (matrix, linear, cost):
        array[...] = 5.0
    assert problem.value(xp.asarray(np.zeros(2))) == 1 and problem.total == from_layer.total == 2


def test_the_gram_of_moments_is_not_copied(xp):
    """It is large, and a later batch does not change it."""
    moments = Moments(8)
    moments.update(xp.asarray(LAYER.inputs))
    problem = Quadratic.from_moments(moments, xp.asarray(LAYER.weight))
    assert problem.gram is moments.gram
    before = xp.numpy(problem.gram).tobytes()
    moments.update(xp.asarray(LAYER.inputs))
    assert xp.numpy(problem.gram).tobytes() == before and problem.gram is not moments.gram
    owned = Quadratic(problem.gram, problem.anchor, owned=True)
    assert owned.gram is problem.gram and owned.anchor is problem.anchor


def test_an_answer_is_not_the_start_that_was_given(xp):
    problem, start = LAYER.problem(xp), xp.asarray(LAYER.weight)
    mask, before = xp.asarray(np.ones((4, 8), dtype=bool)), xp.numpy(start).tobytes()
    for solution in (
        solve(problem, 0.0, FISTA(), start=start, max_steps=1),
        solve(problem, Support(mask), FISTA(), start=start, max_steps=1, tol=1e300),
        lasso(problem, 0.0, start=start),
        refit(problem, mask, start=start),
    ):
        blank(solution.weights)
        assert xp.numpy(start).tobytes() == before
