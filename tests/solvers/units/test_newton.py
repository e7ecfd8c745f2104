"""The Newton score in closed form, against the printed iteration, explicit inverses, least squares and enumeration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mask_instances import absolute, all_masks, costs, from_matrix, from_paper
from rounding import rounding

from gramian.proofs.kit.strategies import Layer, layers, normal_layer
from gramian.solvers import Status
from gramian.solvers.units.mask import MaskProblem
from gramian.solvers.units.newton import head_scores, newton_score

INFINITY = float("inf")


def newton_iterations(inputs, weight, kept, penalty, start, steps):
    """Algorithm 1 as printed, with the z of its lines 4 and 5 read as z_t. inputs X (N, D), weight W (D, D')."""
    width = inputs.shape[1]
    matrix = (weight @ weight.T) * (inputs.T @ inputs)
    z = start
    for _ in range(steps):
        gradient = matrix @ (z - 1) + penalty * (np.sum(z) - kept) * np.ones(width)
        z = z - np.linalg.inv(matrix + penalty * np.ones((width, width))) @ gradient
    return z


@pytest.mark.parametrize("steps", [1, 2, 50])
def test_algorithm_1_arrives_in_its_first_step(xp, steps):
    layer = normal_layer(5, 30, 8, 4)
    problem = MaskProblem.from_problem(layer.problem(xp))
    rng = np.random.default_rng(6)
    for penalty in (0.01, 1.0, 100.0):
        iterated = newton_iterations(layer.inputs, layer.weight.T, 3.5, penalty, rng.uniform(size=8), steps)
        solution = newton_score(problem, 3.5, penalty=penalty)
        np.testing.assert_allclose(xp.numpy(solution.keep), iterated, rtol=1e-8, atol=1e-10)
        assert solution.status is Status.DIRECT and solution.detail["rank"] == 8


@given(layer=layers(), data=st.data())
def test_newton_score_is_the_minimiser(xp, layer: Layer, data):
    """Against least squares on the Hessian, with whatever nulls it has: the value, the residual, the stated shortest u."""
    width = layer.weight.shape[1]
    cost = costs(data, width)
    problem = MaskProblem.from_problem(layer.problem(xp), cost=xp.asarray(cost))
    budget = data.draw(st.sampled_from([0.0, 0.3, 0.5, 1.0]), label="share") * float(np.sum(cost))
    relative = data.draw(st.sampled_from([1e-2, 1.0, 1e2]), label="penalty")
    penalty = absolute(problem, relative) if problem.size > 0 else relative
    solution = newton_score(problem, budget, penalty=penalty)
    matrix, linear = xp.numpy(problem.matrix), xp.numpy(problem.linear)
    hessian = matrix + penalty * np.outer(cost, cost)
    right = linear + penalty * (np.sum(cost) - budget) * cost
    removed = 1 - xp.numpy(solution.keep)
    size = np.linalg.norm(hessian) * (1 + np.linalg.norm(removed)) + np.linalg.norm(right)
    assert np.linalg.norm(hessian @ removed - right) <= 1e-9 * size
    assert solution.certificate.gap <= 1e-9 * size * (1 + np.linalg.norm(removed))
    values = np.linalg.eigvalsh(hessian)
    if np.all((values > 1e-6 * values[-1]) | (np.abs(values) < 1e-13 * values[-1])):
        shortest = np.linalg.lstsq(hessian, right, rcond=1e-10)[0]
        np.testing.assert_allclose(removed, shortest, atol=1e-6 * (1 + np.linalg.norm(shortest)))


def test_the_excess_over_the_budget_in_closed_form(xp):
    """A penalty is no equality: <1, z> - r = (D - r) / (1 + penalty s) > 0, optimum penalty / 2 (D - r)^2 / (1 + penalty s)."""
    layer = normal_layer(7, 30, 6, 4)
    problem = MaskProblem.from_problem(layer.problem(xp))
    total = np.sum(np.linalg.inv(xp.numpy(problem.matrix)))
    excesses = []
    for penalty in (0.1, 1.0, 10.0, 1000.0):
        solution = newton_score(problem, 2.5, penalty=penalty)
        excesses.append(float(np.sum(xp.numpy(solution.keep))) - 2.5)
        assert excesses[-1] == pytest.approx(3.5 / (1 + penalty * total), rel=1e-8)
        assert excesses[-1] == pytest.approx(solution.price / penalty, rel=1e-8)
        assert solution.certificate.objective == pytest.approx(0.5 * penalty * 3.5**2 / (1 + penalty * total), rel=1e-8)
    assert excesses == sorted(excesses, reverse=True)
    limit = newton_score(problem, 2.5, penalty=INFINITY)
    inverse = np.linalg.solve(xp.numpy(problem.matrix), np.ones(6))
    np.testing.assert_allclose(xp.numpy(limit.keep), 1 - 3.5 * inverse / total, rtol=1e-9)
    size = np.linalg.cond(xp.numpy(problem.matrix)) * np.sum(np.abs(xp.numpy(limit.keep))) / 6
    assert limit.certificate.violation <= rounding(6 * (3 * 6 + 1), size) < 1e-9
    assert limit.certificate.objective == pytest.approx(0.5 * 3.5**2 / total)


def test_newton_leaves_the_box(xp):
    problem = from_paper(xp, [[1, 2], [0, 1]], [1, 1])
    for penalty, expected in ((INFINITY, (-0.5, 1.5)), (1.0, (0.0, 4 / 3)), (100.0, (-99 / 201, 301 / 201))):
        solution = newton_score(problem, 1.0, penalty=penalty)
        np.testing.assert_allclose(xp.numpy(solution.keep), expected, atol=1e-12)
        assert solution.detail["outside"] == pytest.approx(max(expected[1] - 1, -expected[0]), abs=1e-12)


@pytest.mark.parametrize(
    "inputs, weight, kept, penalty, expected, rank",
    [
        ([[1, 1]], [1, 1], 1.0, 1.0, (0.75, 0.75), 1),  # duplicates: any split will do, the even one is shortest
        (np.eye(3), [1, 0, 0], 2.0, 1.0, (1.0, 0.5, 0.5), 1),  # two dead channels share what is to be removed
        (np.eye(3), [1, 2, 0], 1.5, 1.0, (1.0, 1.0, -0.5), 2),  # one dead channel is removed more than once
        (np.eye(3), [1, 2, 0], 1.5, INFINITY, (1.0, 1.0, -0.5), 2),
        ([[1, 1]], [1, -1], 1.0, 1.0, (0.5, 0.5), 1),  # A is singular, the Hessian is not; loss 0
        ([[0, 0]], [1, 2], 0.5, INFINITY, (0.25, 0.25), 0),
        ([[3]], [2], 0.25, INFINITY, (0.25,), 1),
    ],
)
def test_singular_matrices(xp, inputs, weight, kept, penalty, expected, rank):
    solution = newton_score(from_paper(xp, inputs, weight), kept, penalty=penalty)
    np.testing.assert_allclose(xp.numpy(solution.keep), expected, atol=1e-12)
    assert solution.detail["rank"] == rank
    assert solution.certificate.gap <= 1e-12


def test_duplicates_are_found_whatever_rounding_does(xp):
    """A singular matrix may pass a Cholesky factorisation on a pivot that is noise."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        inputs, weight = rng.normal(size=(12, 5)), rng.normal(size=(3, 5))
        inputs[:, 3], weight[:, 3] = inputs[:, 1], weight[:, 1]
        solution = newton_score(MaskProblem.from_problem(Layer(inputs, weight).problem(xp)), 2.0)
        keep = xp.numpy(solution.keep)
        assert solution.detail["rank"] == 4 and keep[1] == pytest.approx(keep[3], abs=1e-9)


def test_a_problem_without_minimiser_says_so(xp):
    """b outside the range of A, which no layer has: the loss falls for ever, and no bound is claimed."""
    solution = newton_score(from_matrix(xp, np.diag([1.0, 0.0]), [0.0, 1.0]), 1.0)
    assert solution.certificate.bound == -INFINITY


def test_order_within_a_layer_ignores_penalty_and_budget(xp):
    problem = MaskProblem.from_problem(normal_layer(8, 30, 7, 4).problem(xp))
    orders = {
        tuple(np.argsort(xp.numpy(newton_score(problem, budget, penalty=penalty).keep)))
        for penalty in (1e-2, 1.0, 1e2, INFINITY)
        for budget in (0.5, 3.0, 6.9)
    }
    assert len(orders) == 1


def test_scores_of_layers_are_comparable_only_through_the_penalty(xp):
    layer = normal_layer(9, 30, 7, 4)
    small, large = (MaskProblem.from_problem(layer.scaled(inputs=scale).problem(xp)) for scale in (1.0, 10.0))
    limit = xp.numpy(newton_score(small, 3.0, penalty=INFINITY).keep)
    np.testing.assert_allclose(xp.numpy(newton_score(large, 3.0, penalty=INFINITY).keep), limit, rtol=1e-9)
    assert np.mean(limit) == pytest.approx(3 / 7)
    same = newton_score(small, 3.0, penalty=1.0), newton_score(large, 3.0, penalty=100.0)
    np.testing.assert_allclose(xp.numpy(same[0].keep), xp.numpy(same[1].keep), rtol=1e-9)
    other = newton_score(large, 3.0, penalty=1.0)
    assert np.max(np.abs(xp.numpy(other.keep) - xp.numpy(same[0].keep))) > 0.01
    unit = [MaskProblem.from_problem(layer.scaled(inputs=c).problem(xp), normalise="spectral") for c in (1.0, 10.0)]
    normal = [xp.numpy(newton_score(problem, 3.0, penalty=1.0).keep) for problem in unit]
    np.testing.assert_allclose(normal[0], normal[1], rtol=1e-9)


@given(layer=layers(inputs=6), data=st.data())
def test_bound_of_every_mask(xp, layer: Layer, data):
    """The bound that the closed form proves at a mask's own cost, against every 0/1 mask there is."""
    width = layer.weight.shape[1]
    cost = costs(data, width)
    problem = MaskProblem.from_problem(layer.problem(xp), cost=xp.asarray(cost))
    share = data.draw(st.sampled_from([0.0, 0.25, 0.5, 0.9]), label="share")
    relative = data.draw(st.sampled_from([1e-2, 1.0, INFINITY]), label="penalty")
    penalty = absolute(problem, relative)
    solution = newton_score(problem, share * float(np.sum(cost)), penalty=penalty)
    removed = 1 - xp.numpy(solution.keep)
    size = problem.size + removed @ np.abs(xp.numpy(problem.matrix)) @ np.abs(removed)
    if solution.certificate.bound == -INFINITY:
        return
    for mask in all_masks(width):
        assert problem.value(xp.asarray(mask)) >= solution.bound_at(float(mask @ cost)) - 1e-9 * abs(size)


@pytest.mark.parametrize("penalty", [0.5, 20.0, INFINITY])
def test_the_bound_is_met_where_the_score_is(xp, penalty):
    cost = np.array([1.0, 2.0, 1.0, 4.0, 1.0, 3.0])
    problem = MaskProblem.from_problem(normal_layer(11, 30, 6, 4, drift=0.2).problem(xp), cost=xp.asarray(cost))
    solution = newton_score(problem, 5.0, penalty=penalty)
    spent = float(xp.numpy(solution.keep) @ cost)
    assert solution.bound_at(spent) == pytest.approx(problem.value(solution.keep), rel=1e-9)


def test_head_scores_average_the_channels_of_a_head(xp):
    score = xp.asarray(np.array([1.0, 2.0, 3.0, 4.0]))
    np.testing.assert_array_equal(xp.numpy(head_scores(score, 2)), [1.5, 3.5])
    with pytest.raises(ValueError, match="do not divide into 3 heads"):
        head_scores(score, 3)


def test_a_penalty_beyond_float64(xp):
    with pytest.raises(ValueError, match="penalty of 1e\\+20 cannot be distinguished from an exact budget"):
        newton_score(from_matrix(xp, np.eye(3)), 1.0, penalty=1e20)
