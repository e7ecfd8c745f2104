"""The loop that drives solvers: it stops by the certificate of what it returns, in any units, and says how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from least_squares import objective, prox_points

from gramian.proofs.kit.references import cvxpy_lasso
from gramian.proofs.kit.strategies import from_gram, normal_layer
from gramian.solvers import FISTA, L1, Quadratic, Status, Support, solve


@pytest.mark.parametrize("shrink", [1.0, 1e-8])
def test_stops_by_certificate_not_by_distance(xp, shrink):
    """G = diag(1, 1e-5): the first step moves 1e-5 and the weight is wrong by one. Nor do small units stop it."""
    curvature, penalty = 1e-5, 1e-7 * shrink
    layer, start = from_gram(np.diag([1, curvature]), (0, shrink)), np.zeros((1, 2))
    problem, term = layer.problem(xp), L1(penalty)
    first = xp.numpy(prox_points(problem, term, xp.asarray(start), 1, FISTA())[0])
    assert np.linalg.norm(first - start) < 1.1e-5 * shrink
    solution = solve(problem, term, FISTA(), start=xp.asarray(start), tol=1e-2, check_every=100)
    assert solution.status is Status.CONVERGED and solution.steps > 100
    assert float(xp.numpy(solution.weights)[0, 1]) == pytest.approx(0.99 * shrink, rel=0.05)


@pytest.mark.parametrize("power", [-20, 20])
def test_the_number_of_steps_has_no_units(xp, power):
    """Powers of two scale without rounding, so the iterates are the same numbers and the run ends at the same step."""
    layer = normal_layer(18, 30, 8, 3, condition=50.0, drift=0.1)
    weight, unit = 0.05 * layer.largest, 2.0**power
    plain = solve(layer.problem(xp), L1(weight), FISTA(), check_every=1)
    assert plain.status is Status.CONVERGED
    heavier = solve(layer.scaled(weight=unit).problem(xp), L1(unit * weight), FISTA(), check_every=1)
    np.testing.assert_array_equal(xp.numpy(heavier.weights), unit * xp.numpy(plain.weights))
    louder = solve(layer.scaled(inputs=unit).problem(xp), L1(unit**2 * weight), FISTA(), check_every=1)
    assert heavier.steps == louder.steps == plain.steps
    assert louder.history == plain.history


def test_step_limit_is_a_status_with_an_honest_certificate(xp):
    layer = normal_layer(19, 30, 10, 2, condition=1e4)
    weight = 1e-3 * layer.largest
    solution = solve(layer.problem(xp), L1(weight), FISTA(), tol=1e-10, max_steps=25, check_every=10)
    assert solution.status is Status.STEP_LIMIT and solution.steps == 25
    assert [step for step, _ in solution.history] == [0, 10, 20, 25]
    least = cvxpy_lasso(layer.inputs, layer.outputs, weight)
    assert solution.certificate.bound <= least * (1 + 1e-7)
    reached = objective(layer, weight, xp.numpy(solution.weights))
    assert solution.certificate.objective == pytest.approx(reached, rel=1e-10)
    assert solution.certificate.relative_gap > 1e-10


@dataclass(frozen=True)
class Exploding:
    """A solver that overflows after `calm` steps."""

    calm: int

    def init(self, problem: Quadratic, term: L1, start: Any) -> Any:
        return (start + 1.0, 0)

    def step(self, problem: Quadratic, term: L1, state: Any) -> Any:
        point, done = state
        return (point * (float("inf") if done == self.calm else 0.5), done + 1)

    def weights(self, state: Any) -> Any:
        return state[0]


def test_broken_iteration_returns_the_last_finite_point(xp):
    layer = normal_layer(20, 10, 3, 2)
    problem = layer.problem(xp)
    solution = solve(problem, L1(0.1), Exploding(calm=7), check_every=3, start=xp.asarray(np.ones((2, 3))))
    assert solution.status is Status.BROKEN
    np.testing.assert_allclose(xp.numpy(solution.weights), np.full((2, 3), 2 * 0.5**6))  # certified after 6 steps
    assert np.isfinite(solution.certificate.objective) and solution.history[-1][0] == 6


@dataclass(frozen=True)
class Still:
    """A solver that stays where it starts."""

    def init(self, problem: Quadratic, term: Support, start: Any) -> Any:
        return start

    def step(self, problem: Quadratic, term: Support, state: Any) -> Any:
        return state

    def weights(self, state: Any) -> Any:
        return state


def test_off_the_support_is_never_converged(xp):
    """At the dense weights the gradient vanishes, so the residual is zero; but they violate the support."""
    layer = normal_layer(28, 12, 4, 1)
    solution = solve(layer.problem(xp), Support(xp.asarray([[True, False, True, True]])), Still(), max_steps=5)
    assert solution.certificate.residual == 0 and solution.certificate.violation > 0
    assert solution.status is Status.STEP_LIMIT


def test_bad_arguments(xp):
    problem = normal_layer(21, 10, 3, 2).problem(xp)
    for options in ({"tol": -1.0}, {"max_steps": 0}, {"check_every": 0}):
        with pytest.raises(
            ValueError, match=r"tol must be in|max_steps must be a whole number|check_every must be a whole number"
        ):
            solve(problem, L1(0.1), FISTA(), **options)
    with pytest.raises(ValueError, match=r"start is \(3, 2\) but the problem's weight is \(2, 3\)"):
        solve(problem, L1(0.1), FISTA(), start=xp.asarray(np.ones((3, 2))))


def test_a_start_that_is_not_finite_is_rejected(xp):
    problem = normal_layer(21, 10, 3, 2).problem(xp)
    start = np.ones((2, 3))
    start[0, 0] = np.nan
    with pytest.raises(ValueError, match="start holds NaN or Inf"):
        solve(problem, L1(0.1), FISTA(), start=xp.asarray(start), max_steps=20)


def test_a_start_that_is_optimal_takes_no_step_and_the_least_limits_are_allowed(xp):
    layer = normal_layer(21, 30, 6, 2)
    problem, term = layer.problem(xp), L1(0.1 * layer.largest)
    found = solve(problem, term, FISTA(), tol=1e-9)
    again = solve(problem, term, FISTA(), start=found.weights, tol=1e-6)
    assert again.status is Status.CONVERGED and again.steps == 0 and len(again.history) == 1
    np.testing.assert_array_equal(xp.numpy(again.weights), xp.numpy(found.weights))
    assert solve(problem, term, FISTA(), tol=0.0, max_steps=1, check_every=1).steps == 1
