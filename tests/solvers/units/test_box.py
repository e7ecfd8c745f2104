"""The relaxed mask with its box, against cvxpy, closed forms and enumeration; its certificate at points that are no optimum."""

from __future__ import annotations

from functools import cache
from itertools import product

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_instances import absolute, all_masks, costs, from_matrix
from rounding import rounding

from gramian.proofs.kit.models import Masked, best_mask, cvxpy_masks
from gramian.proofs.kit.strategies import Layer, layers, normal_layer
from gramian.solvers import Status
from gramian.solvers.units.box import relaxed_mask
from gramian.solvers.units.mask import MaskProblem, threshold
from gramian.solvers.units.newton import newton_score
from gramian.solvers.units.program import certify_mask

INFINITY = float("inf")
shares = st.sampled_from([0.0, 1e-9, 0.2, 0.5, 0.7, 1 - 1e-9, 1.0])
penalties = st.sampled_from([1e-3, 1.0, 1e4, INFINITY])  # in units of the loss per squared total cost


def objective(layer: Layer, cost, mask, budget: float, penalty: float) -> float:
    """From the definition, on the data."""
    loss = layer.loss(layer.weight * mask)
    return loss if penalty == INFINITY else loss + 0.5 * penalty * float(cost @ mask - budget) ** 2


# -- optimality ----------------------------------------------------------------------------------------------------------


@settings(max_examples=12)
@given(layer=layers(), data=st.data(), share=shares, relative=penalties)
def test_certified_feasible_and_true_to_the_data(xp, layer: Layer, data, share, relative):
    cost = costs(data, layer.weight.shape[1])
    problem = MaskProblem.from_problem(layer.problem(xp), cost=xp.asarray(cost))
    budget, penalty = share * problem.total, absolute(problem, relative)
    solution = relaxed_mask(problem, budget, penalty=penalty)
    mask = xp.numpy(solution.keep)
    assert solution.status in (Status.CONVERGED, Status.DIRECT) and solution.steps <= 40
    assert np.all((mask >= 0) & (mask <= 1))
    if penalty == INFINITY:
        assert abs(mask @ cost - budget) <= 1e-12 * np.sum(cost)
    rounding = 1e-11 * (problem.size + layer.magnitude(layer.weight))
    assert abs(solution.certificate.objective - objective(layer, cost, mask, budget, penalty)) <= rounding
    assert solution.certificate.gap - solution.certificate.slack <= 1e-9 * max(
        solution.certificate.objective, 1e-4 * problem.size
    )
    again = certify_mask(problem, solution.keep, budget, penalty=penalty)
    assert again.bound == pytest.approx(solution.certificate.bound, rel=1e-9, abs=1e-12 * problem.size)


def planted(seed: int) -> tuple[Layer, np.ndarray]:
    """A layer, with drift, dead channels and fewer tokens than channels in turn, and costs."""
    rng = np.random.default_rng(seed)
    width = int(rng.integers(2, 25))
    layer = normal_layer(seed, int(rng.integers(1, 40)), width, int(rng.integers(1, 8)), drift=0.3 * (seed % 2), dead=seed % 3)
    return layer, rng.choice([1.0, 5.0, 40.0], size=width)


@cache  # one answer for all backends
def reference(seed: int, share: float, penalty: float, box: bool) -> float:
    layer, cost = planted(seed)
    module = Masked(layer.inputs, layer.weight, layer.outputs, cost)
    return cvxpy_masks([module], share * float(np.sum(cost)), penalty, box)


@pytest.mark.parametrize("seed", range(6))
def test_objective_of_cvxpy(xp, seed):
    layer, cost = planted(seed)
    problem = MaskProblem.from_problem(layer.problem(xp), cost=xp.asarray(cost))
    for share, penalty in product((0.15, 0.6), (round(10.0 * layer.energy / np.sum(cost) ** 2, 9), INFINITY)):
        solution = relaxed_mask(problem, share * float(np.sum(cost)), penalty=penalty)
        free = newton_score(problem, share * float(np.sum(cost)), penalty=penalty)
        tolerance = 1e-6 * max(solution.certificate.objective, 1e-3 * layer.energy)
        assert abs(solution.certificate.objective - reference(seed, share, penalty, True)) <= tolerance
        assert abs(free.certificate.objective - reference(seed, share, penalty, False)) <= tolerance


@settings(max_examples=12)
@given(layer=layers(inputs=6), data=st.data(), share=st.sampled_from([0.0, 0.3, 0.5, 0.8]), relative=penalties)
def test_bound_of_every_mask(xp, layer: Layer, data, share, relative):
    """What the relaxation proves at each cost, against all 0/1 masks and against the unconstrained closed form."""
    width = layer.weight.shape[1]
    cost = costs(data, width)
    problem = MaskProblem.from_problem(layer.problem(xp), cost=xp.asarray(cost))
    solution = relaxed_mask(problem, share * problem.total, penalty=absolute(problem, relative))
    masks = all_masks(width)
    values = np.array([layer.loss(layer.weight * mask) for mask in masks])
    bounds = np.array([solution.bound_at(float(mask @ cost)) for mask in masks])
    rounding = 1e-10 * (problem.size + layer.magnitude(layer.weight))
    assert np.all(bounds <= values + rounding)
    free = newton_score(problem, share * problem.total, penalty=absolute(problem, relative))
    wild = 1 + float(np.max(np.abs(xp.numpy(free.keep)))) ** 2
    assert free.certificate.bound <= solution.certificate.objective + rounding * wild


@settings(max_examples=12)
@given(layer=layers(inputs=6), data=st.data(), share=st.sampled_from([0.2, 0.5, 0.8]))
def test_no_mask_within_the_budget_beats_the_bound(xp, layer: Layer, data, share):
    """The optimal loss falls with the budget where no unit is better gone, so what is cheaper is bounded too."""
    cost = costs(data, layer.weight.shape[1])
    problem = MaskProblem.from_problem(Layer(layer.inputs, layer.weight).problem(xp), cost=xp.asarray(cost))  # X* = X
    budget = share * problem.total
    least, mask = best_mask(lambda z: Layer(layer.inputs, layer.weight).loss(layer.weight * z), cost, budget)
    relaxed = relaxed_mask(problem, budget)
    assert mask @ cost <= budget * (1 + 1e-9)
    assert relaxed.certificate.bound <= least + 1e-9 * (problem.size + layer.magnitude(layer.weight))


@settings(max_examples=12)
@given(layer=layers(inputs=7), data=st.data())
def test_chain_of_relaxations(xp, layer: Layer, data):
    """Newton <= equality without the box <= box <= best 0/1 mask <= thresholded mask, for as many units as asked for."""
    width = layer.weight.shape[1]
    kept = data.draw(st.integers(0, width), label="kept")
    problem = MaskProblem.from_problem(layer.problem(xp))
    masks = [mask for mask in all_masks(width) if np.sum(mask) == kept]
    best = min(layer.loss(layer.weight * mask) for mask in masks)
    newton = newton_score(problem, float(kept), penalty=absolute(problem, 1.0))
    equality = newton_score(problem, float(kept), penalty=INFINITY)
    box = relaxed_mask(problem, float(kept))
    choice = threshold(problem, box)
    wild = 1 + float(np.max(np.abs(xp.numpy(equality.keep)))) ** 2
    rounding = 1e-9 * (problem.size + layer.magnitude(layer.weight)) * wild
    chain = [newton.certificate.objective, equality.certificate.objective, box.certificate.objective, best]
    for lower, upper in zip(chain, [*chain[1:], choice.certificate.objective]):
        assert lower <= upper + rounding
    assert choice.cost == kept == np.sum(xp.numpy(choice.mask))
    assert choice.certificate.bound <= best + rounding
    assert choice.rounding == pytest.approx(choice.certificate.objective - box.certificate.objective, abs=rounding)
    if np.all(np.isin(xp.numpy(box.keep), (0, 1))):
        assert choice.certificate.objective <= best + rounding  # an integral relaxation is the best mask


# -- instances on which the paper's claims fail --------------------------------------------------------------------------


def test_squares_are_not_equivalent_to_norms(xp):
    """X = I, W = diag(2, 1), one of two kept: Eq. (2) sums norms and has its minimum at (1, 0), Eq. (3) at (0.8, 0.2)."""
    layer = Layer(np.eye(2), np.diag([2.0, 1.0]))
    solution = relaxed_mask(MaskProblem.from_problem(layer.problem(xp)), 1.0)
    np.testing.assert_allclose(xp.numpy(solution.keep), (0.8, 0.2), atol=1e-12)
    mask = cp.Variable(2)
    norms = cp.Problem(cp.Minimize(2 * cp.abs(1 - mask[0]) + cp.abs(1 - mask[1])), [mask >= 0, mask <= 1, cp.sum(mask) == 1])
    norms.solve(solver=cp.CLARABEL)
    np.testing.assert_allclose(mask.value, (1, 0), atol=1e-4)


@pytest.mark.parametrize(
    "penalty, expected, value", [(INFINITY, (0, 1), 0.5), (1.0, (0.5, 1), 0.25), (100.0, (1 / 101, 1), 0.5 * 100 / 101)]
)
def test_the_box_that_newton_leaves(xp, penalty, expected, value):
    solution = relaxed_mask(from_matrix(xp, [[1, 2], [2, 5]]), 1.0, penalty=penalty)
    np.testing.assert_allclose(xp.numpy(solution.keep), expected, atol=1e-12)
    assert solution.certificate.objective == pytest.approx(value)
    assert solution.price == pytest.approx(penalty * (np.sum(expected) - 1)) if penalty < INFINITY else True


def test_the_box_changes_the_order_and_is_no_clipping(xp):
    problem = from_matrix(xp, [[2, 0, 0], [0, 9, 5], [0, 5, 3]])
    free = newton_score(problem, 2.0, penalty=INFINITY)
    np.testing.assert_allclose(xp.numpy(free.keep), (2 / 3, 5 / 3, -1 / 3), atol=1e-12)
    solution = relaxed_mask(problem, 2.0)
    np.testing.assert_allclose(xp.numpy(solution.keep), (0.4, 1.0, 0.6), atol=1e-12)
    assert solution.certificate.objective == pytest.approx(0.6)
    choice = threshold(problem, solution)
    np.testing.assert_array_equal(xp.numpy(choice.mask), [False, True, True])
    assert choice.certificate.objective == pytest.approx(1.0) and choice.rounding == pytest.approx(0.4)


@pytest.mark.parametrize(
    "matrix, kept, loss",
    [
        (np.ones((2, 2)), 1.0, 0.5),  # duplicate channels: one of the two has to go, whichever
        (np.diag([1.0, 0.0, 0.0]), 1.5, 0.0),  # dead channels go first
        ([[1, -1], [-1, 1]], 1.0, 0.0),  # channels that cancel go together, half each
        (np.zeros((3, 3)), 1.0, 0.0),
        ([[4.0]], 0.25, 0.5 * 4 * 0.75**2),
    ],
)
def test_singular_matrices(xp, matrix, kept, loss):
    solution = relaxed_mask(from_matrix(xp, matrix), kept)
    assert solution.status in (Status.CONVERGED, Status.DIRECT)
    assert solution.certificate.objective == pytest.approx(loss, abs=1e-12)
    assert float(np.sum(xp.numpy(solution.keep))) == pytest.approx(kept, abs=1e-13)


# -- the certificate -----------------------------------------------------------------------------------------------------


@settings(max_examples=12)
@given(layer=layers(), data=st.data(), share=st.sampled_from([0.2, 0.5, 0.9]), relative=penalties)
def test_certificate_of_any_point_bounds_the_optimum(xp, layer: Layer, data, share, relative):
    width = layer.weight.shape[1]
    cost = costs(data, width)
    problem = MaskProblem.from_problem(layer.problem(xp), cost=xp.asarray(cost))
    budget, penalty = share * problem.total, absolute(problem, relative)
    optimum = relaxed_mask(problem, budget, penalty=penalty).certificate.objective
    rng = np.random.default_rng(data.draw(st.integers(0, 99), label="seed"))
    for mask in (rng.uniform(size=width), np.full(width, share), np.ones(width), rng.integers(0, 2, size=width) > 0):
        certificate = certify_mask(problem, xp.asarray(mask), budget, penalty=penalty)
        assert certificate.bound <= optimum + 1e-8 * max(optimum, problem.size)
        assert certificate.objective == pytest.approx(
            objective(layer, cost, mask, budget, penalty), rel=1e-9, abs=1e-11 * (problem.size + layer.magnitude(layer.weight))
        )


def test_bound_from_a_point_off_the_budget(xp):
    """A = I, half to be kept: at u = 0.75 everywhere all slopes are 0.75 = the price, so the bound is the tangent there."""
    certificate = certify_mask(from_matrix(xp, np.eye(4)), xp.asarray(np.full(4, 0.25)), 2.0)
    assert certificate.objective == pytest.approx(0.5 * 4 * 0.75**2)
    assert certificate.bound == pytest.approx(0.5 * 4 * 0.75**2 - 0.75 * 1.0)  # 0.375, and the optimum is 0.5


def test_violation_is_the_distance_from_box_and_budget(xp):
    problem = from_matrix(xp, np.eye(4))
    cases = (((1.0, 1, 0, 0), 0.0), ((1.0, 1, 1, 0), 0.25), ((1.3, 1, -0.3, 0), 0.3), ((1.0, 1.5, 0, -0.5), 0.5))
    for mask, violation in cases:
        assert certify_mask(problem, xp.asarray(np.array(mask)), 2.0).violation == pytest.approx(violation)
    assert certify_mask(problem, xp.asarray(np.array([1.0, 1, 1, 0])), 2.0, penalty=3.0).violation == 0
    with pytest.raises(ValueError, match=r"the mask is \(3,\) but the problem has 4 units"):
        certify_mask(problem, xp.asarray(np.ones(3)), 2.0)


def test_the_price_is_the_slope_of_the_optimum(xp):
    problem = MaskProblem.from_problem(normal_layer(20, 40, 12, 5, drift=0.2).problem(xp))
    ahead, here, behind = (relaxed_mask(problem, budget) for budget in (5.3 + 1e-4, 5.3, 5.3 - 1e-4))
    slope = (behind.certificate.objective - ahead.certificate.objective) / 2e-4
    assert here.price == pytest.approx(slope, rel=1e-4)


# -- scales and sizes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_scale_changes_nothing(xp, scale):
    layer = normal_layer(21, 40, 16, 5, condition=1e3)
    cost = np.linspace(1, 4, 16)
    base = relaxed_mask(MaskProblem.from_problem(layer.problem(xp), cost=xp.asarray(cost)), 20.0)
    for inputs, unit in ((scale, 1.0), (1.0, scale), (scale, scale)):
        moved = MaskProblem.from_problem(layer.scaled(inputs=inputs).problem(xp), cost=xp.asarray(cost * unit))
        solution = relaxed_mask(moved, 20.0 * unit)
        np.testing.assert_allclose(xp.numpy(solution.keep), xp.numpy(base.keep), atol=1e-8)
        assert solution.certificate.relative_error == pytest.approx(base.certificate.relative_error, rel=1e-8)
        assert solution.steps == base.steps


@pytest.mark.parametrize("condition", [1.0, 1e3])
def test_hundreds_of_channels(xp, condition):
    problem = MaskProblem.from_problem(normal_layer(22, 600, 256, 40, condition=condition).problem(xp))
    for share in (0.1, 0.6):
        solution = relaxed_mask(problem, share * 256)
        assert solution.status is Status.CONVERGED and solution.steps <= 25
        assert solution.certificate.relative_gap <= 1e-9 and solution.certificate.violation <= rounding(256, 1.0)


def test_fewer_tokens_than_channels_in_float32(xp):
    layer = normal_layer(23, 6, 40, 1)
    double = relaxed_mask(MaskProblem.from_problem(layer.problem(xp)), 20.0)
    single = relaxed_mask(MaskProblem.from_problem(layer.problem(xp, "float32")), 20.0)
    assert single.status is double.status is Status.CONVERGED
    energy = layer.energy
    assert single.certificate.objective == pytest.approx(double.certificate.objective, abs=1e-5 * energy)


def test_a_budget_for_heads(xp):
    layer = normal_layer(24, 50, 24, 6)
    problem = MaskProblem.from_problem(layer.problem(xp), 6, 4.0 * 100)
    solution = relaxed_mask(problem, 0.5 * problem.total)
    choice = threshold(problem, solution)
    assert choice.cost == 1200 and np.sum(xp.numpy(choice.mask)) == 3
    masked = layer.weight * np.repeat(xp.numpy(choice.mask), 4)
    assert choice.certificate.objective == pytest.approx(layer.loss(masked))
    assert choice.certificate.relative_error == pytest.approx(layer.loss(masked) / layer.energy)


@pytest.mark.parametrize("seed", range(6))
def test_steps_do_not_cycle(xp, seed):
    """Costs over four decades and little to keep: on most of these Mehrotra's plain step repeats itself for ever."""
    rng = np.random.default_rng(seed)
    inputs, weight = rng.integers(-3, 4, size=(13, 17)).astype(float), rng.integers(-3, 4, size=(7, 17)).astype(float)
    cost = rng.choice([1.0, 3.0, 100.0, 1e4], size=17)
    problem = MaskProblem.from_problem(Layer(inputs, weight).problem(xp), cost=xp.asarray(cost))
    for penalty in (1.0, INFINITY):
        solution = relaxed_mask(problem, 1e-3 * problem.total, penalty=penalty)
        assert solution.status is Status.CONVERGED and solution.steps <= 20


def test_the_step_limit_is_a_status(xp):
    problem = MaskProblem.from_problem(normal_layer(25, 50, 24, 6).problem(xp))
    cut = relaxed_mask(problem, 6.0, max_steps=1)
    assert cut.steps == 1
    assert cut.status is Status.STEP_LIMIT and cut.certificate.bound <= relaxed_mask(problem, 6.0).certificate.objective
    for options in ({"tol": 0.0}, {"max_steps": 0}):
        with pytest.raises(
            ValueError, match=r"tol must be in \(0, inf\] but is 0.0|max_steps must be a whole number of at least 1"
        ):
            relaxed_mask(problem, 6.0, **options)
    with pytest.raises(ValueError, match="cannot be distinguished from an exact budget"):
        relaxed_mask(problem, 6.0, penalty=1e30)
