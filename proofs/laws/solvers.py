"""Laws of a solver of min_V f(V) + h(V), for an h of any kind, and for the LASSO with one lambda.

A solver has `init`, `step` and `weights`, and is driven by `gramian.solvers.solve`; or it is a function `solver(problem, term,
*, start, tol) -> Solution`. What is held to the laws is a pair, the solver and a kind of term it is for.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from gramian.proofs.kit.backends import NUMPY, backends
from gramian.proofs.kit.references import exact_lasso, lasso_objective
from gramian.proofs.kit.strategies import Layer, fractions, layers, per_channel, points
from gramian.proofs.laws.law import Law
from gramian.proofs.laws.terms import TermsOf, best_known, closes, objective, proven, regular
from gramian.solvers import L1, Quadratic, Solution, Status, certify, solve

__all__ = ["LASSO_LAWS", "RATE_LAWS", "SOLVER_LAWS", "Solving"]

TOL = 1e-7
STEPS = 3000
ROUNDING = 1e-10


class Solving(NamedTuple):
    """solver: what is held to the laws. terms_of: draws the terms it is held to them with, for weights of a shape."""

    solver: Any
    terms_of: TermsOf


def solved(solver: Any, problem: Quadratic, term: Any, start: Any = None, tol: float = TOL, steps: int = STEPS) -> Solution:
    if hasattr(solver, "step"):
        return solve(problem, term, solver, start=start, tol=tol, max_steps=steps)
    solution: Solution = solver(problem, term, start=start, tol=tol)
    return solution


# -- for any term ------------------------------------------------------------------------------------------------------


def it_converges(solver: Any, layer: Layer, term: Any) -> None:
    """On layers of condition number 5 the tolerance is met, and no point known is better than it allows."""
    problem = layer.problem(NUMPY)
    solution = solved(solver, problem, term)
    measure = solution.certificate.measure
    assert solution.status in (Status.CONVERGED, Status.DIRECT) and measure <= TOL, f"{solution.status.value}: {measure}"
    rival = best_known(layer, term, layer.weight)
    excess = objective(layer, term, solution.weights) - objective(layer, term, rival)
    allowed = proven(layer, solution.certificate, solution.weights, rival)
    slack = ROUNDING * (layer.magnitude(rival) + objective(layer, term, rival))
    assert excess <= allowed + slack, f"{rival} is better by {excess}, above the {allowed} allowed for"


def certificate_is_of_what_is_returned(solver: Any, layer: Layer, term: Any) -> None:
    """However early it ends, objective, relative error and bound are those of the weights returned, computed from the data."""
    solution = solved(solver, layer.problem(NUMPY), term, steps=7)
    certificate, point = solution.certificate, np.asarray(solution.weights)
    assert np.all(np.isfinite(point)) and point.shape == layer.weight.shape
    reached, rival = objective(layer, term, point), best_known(layer, term, point)
    slack = ROUNDING * (layer.magnitude(point) + layer.magnitude(rival) + abs(reached))
    assert abs(certificate.objective - reached) <= slack, f"the objective is {reached}, not {certificate.objective}"
    assert abs(certificate.relative_error * layer.energy - layer.loss(point)) <= slack, "the relative error is another's"
    again = certify(layer.problem(NUMPY), term, point)
    assert abs(again.gap - certificate.gap) <= slack or again.gap == certificate.gap, f"the gap is {again.gap}"
    if certificate.violation == 0:
        excess, allowed = reached - objective(layer, term, rival), proven(layer, certificate, point, rival)
        assert excess <= allowed + slack, f"{rival} is better by {excess}, and {allowed} is certified"


def start_does_not_matter(solver: Any, layer: Layer, term: Any, start: np.ndarray) -> None:
    """The same objective is reached from anywhere."""
    problem = layer.problem(NUMPY)
    one, other = (solved(solver, problem, term, start=begin) for begin in (None, start))
    same(layer, one, other, "from another start")


def channels_may_be_rescaled(solver: Any, layer: Layer, term: Any, scale: np.ndarray) -> None:
    """X -> X / s, W -> s W with the term in coordinates v' = s v, if it has them, is the same model with the same optimum."""
    if not getattr(term, "channel_steps", False):
        return
    moved = layer.scaled(inputs=1 / scale, weight=scale)
    one, other = solved(solver, layer.problem(NUMPY), term), solved(solver, moved.problem(NUMPY), term.rescaled(scale))
    same(layer, one, other, f"in channels scaled by {scale}")


def it_repeats_itself_and_changes_nothing(solver: Any, layer: Layer, term: Any) -> None:
    """The same problem gives the same bits twice, and is the same afterwards."""
    problem = layer.problem(NUMPY)
    before = [None if array is None else array.copy() for array in parts(problem)]
    one, other = (solved(solver, problem, term, steps=50) for _ in range(2))
    np.testing.assert_array_equal(one.weights, other.weights, err_msg="twice the same problem, two answers")
    for array, kept in zip(parts(problem), before):
        np.testing.assert_array_equal(array, kept, err_msg="the problem was changed")


def backends_agree(solver: Any, layer: Layer, term: Any) -> None:
    """Every array library reaches the objective that numpy does, and float32 problems get float32 weights."""
    one = solved(solver, layer.problem(NUMPY), term)
    for backend in backends()[1:]:
        other = solved(solver, layer.problem(backend), backend.moved(term))
        same(layer, one, other, f"on {backend}")
        single = solved(solver, layer.problem(backend, "float32"), backend.moved(term), steps=20).weights
        assert single.dtype == backend.dtype("float32"), f"weights are {single.dtype} for a float32 problem"


# -- for the LASSO -----------------------------------------------------------------------------------------------------


def order_does_not_matter(solver: Any, layer: Layer, weight: float, order: tuple[list[int], list[int]]) -> None:
    """Outputs and channels in another order give the same weights in that order."""
    one = solved(solver, layer.problem(NUMPY), L1(weight), tol=1e-10)
    other = solved(solver, layer.permuted(*order).problem(NUMPY), L1(weight), tol=1e-10)
    expected = np.asarray(one.weights)[order[0]][:, order[1]]
    np.testing.assert_allclose(other.weights, expected, rtol=0, atol=1e-3 * (1 + np.max(np.abs(layer.weight))))


def units_do_not_matter(solver: Any, layer: Layer, weight: float, unit: float) -> None:
    """(X, lambda) -> (c X, c^2 lambda) changes nothing, (W, lambda) -> (c W, c lambda) multiplies V by c."""
    one = solved(solver, layer.problem(NUMPY), L1(weight), tol=1e-6)
    for moved, factor in ((layer.scaled(inputs=unit), 1.0), (layer.scaled(weight=unit), unit)):
        other = solved(solver, moved.problem(NUMPY), L1(weight * unit * (unit if factor == 1 else 1)), tol=1e-6)
        size = float(np.max(np.abs(layer.weight)))
        np.testing.assert_allclose(other.weights / factor, one.weights, rtol=0, atol=1e-6 * size, err_msg=f"c = {unit}")
        assert other.steps == one.steps, f"{one.steps} steps become {other.steps} in other units"


def zeros_are_exact(solver: Any, layer: Layer, weight: float) -> None:
    """Where |grad f(V)| < lambda at the optimum the weight is exactly zero, because sparsity is counted."""
    solution = solved(solver, layer.problem(NUMPY), L1(weight), tol=1e-10)
    optimum, _ = exact_lasso(layer.inputs, layer.outputs, weight)
    slope = np.abs((layer.inputs @ optimum.T - layer.outputs).T @ layer.inputs)
    idle = np.asarray(solution.weights)[slope < 0.99 * weight]
    assert np.all(idle == 0), f"weights {idle} should be zero"


def it_accelerates(solver: Any, layer: Layer, weight: float, start: np.ndarray) -> None:
    """F(x_k) - F* <= 2 L |x_0 - x*|^2 / (k + 1)^2 at every point x_k that would be returned, in raw coordinates or in
    those of unit diagonal, whichever bound is weaker."""
    problem = layer.problem(NUMPY)
    optimum, least = exact_lasso(layer.inputs, layer.outputs, weight)
    away = (start - optimum) ** 2
    bound = 2 * max(problem.lipschitz * np.sum(away), problem.unit_lipschitz * np.sum(away * problem.unit_scale**2))
    state, term = solver.init(problem, L1(weight), start), L1(weight)
    for k in range(1, 151):
        state = solver.step(problem, term, state)
        excess = lasso_objective(layer.inputs, layer.outputs, weight, solver.weights(state)) - least
        allowed = bound / (k + 1) ** 2
        assert excess <= allowed + 1e-9 * (1 + least), f"{excess} above the optimum after {k} steps, not within {allowed}"


# -- what the laws share -----------------------------------------------------------------------------------------------


def same(layer: Layer, one: Solution, other: Solution, how: str) -> None:
    """Two answers to one problem have the same objective, as far as their certificates say."""
    first, second = one.certificate, other.certificate
    size = layer.magnitude(layer.weight) + abs(first.objective)
    assert abs(first.objective - second.objective) <= 1e-6 * size, f"{first.objective} becomes {second.objective} {how}"


def parts(problem: Quadratic) -> tuple[Any, ...]:
    return problem.gram, problem.anchor, problem.slope, problem.floor


@st.composite
def with_terms(draw: st.DrawFn, candidate: Solving, nasty: bool = False) -> tuple[Any, ...]:
    """Draw the solver, a layer and a term; unless nasty, ones whose gap can close."""
    layer = draw(layers(inputs=4, outputs=2, scales=(1.0,)) if nasty else regular())
    term = draw(candidate.terms_of(layer.weight.shape))
    assume(nasty or closes(term, layer))
    return candidate.solver, layer, term


def with_starts(candidate: Solving) -> st.SearchStrategy[tuple[Any, ...]]:
    return with_terms(candidate).flatmap(lambda case: points(case[1]).map(lambda start: (*case, start)))


def with_scales(candidate: Solving) -> st.SearchStrategy[tuple[Any, ...]]:
    scales = (1.0, 0.5, 2.0)
    return with_terms(candidate).flatmap(lambda case: per_channel(case[1], scales).map(lambda scale: (*case, scale)))


@st.composite
def lassos(draw: st.DrawFn, solver: Any) -> tuple[Any, Layer, float]:
    """Draw the solver, a layer and a lambda, such that the optimum is unique."""
    layer = draw(regular(rank=99))
    assume(layer.largest > 1e-3)
    return solver, layer, draw(fractions) * layer.largest


def with_orders(solver: Any) -> st.SearchStrategy[tuple[Any, ...]]:
    def reordered(case: tuple[Any, ...]) -> st.SearchStrategy[tuple[Any, ...]]:
        rows, columns = case[1].weight.shape
        pair = st.tuples(st.permutations(range(rows)), st.permutations(range(columns)))
        return pair.map(lambda order: (*case, tuple(map(list, order))))

    return lassos(solver).flatmap(reordered)


def with_units(solver: Any) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(lassos(solver), st.sampled_from([8.0, 2.0**-10, 1e3])).map(lambda pair: (*pair[0], pair[1]))


@st.composite
def slow_starts(draw: st.DrawFn, solver: Any) -> tuple[Any, ...]:
    """Draw the solver, a layer, a lambda and x_0. Half of the layers are flat in one direction, where a method that does not
    accelerate shows."""
    if draw(st.booleans()):
        layer = draw(layers(inputs=3, outputs=1, scales=(1.0,)))
        return solver, layer, draw(fractions) * layer.largest, draw(points(layer))
    flat = draw(st.sampled_from([80, 200, 600]))
    layer = Layer(np.diag([1.0, flat**-0.5]), np.array([[0.0, 1.0]]))
    return solver, layer, 0.0, np.zeros((1, 2))


SOLVER_LAWS = (
    Law(it_converges, with_terms),
    Law(certificate_is_of_what_is_returned, lambda candidate: with_terms(candidate, nasty=True)),
    Law(start_does_not_matter, with_starts, slow=2),
    Law(channels_may_be_rescaled, with_scales, slow=2),
    Law(it_repeats_itself_and_changes_nothing, lambda candidate: with_terms(candidate, nasty=True), slow=4),
    Law(backends_agree, with_terms, slow=8),
)
LASSO_LAWS = (
    Law(order_does_not_matter, with_orders, slow=2),
    Law(units_do_not_matter, with_units, slow=2),
    Law(zeros_are_exact, lassos, slow=2),
)
RATE_LAWS = (Law(it_accelerates, slow_starts),)
