"""`lasso`: the exact LASSO on anything that may come, and the path that falls when signs are hard to find."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from gramian.proofs.kit.homotopy import lasso_homotopy
from gramian.proofs.kit.references import cvxpy_lasso, exact_lasso, lasso_objective
from gramian.proofs.kit.strategies import Layer, fractions, layers, normal_layer, planted_lasso
from gramian.solvers import FISTA, L1, Quadratic, Status, lasso, lasso_path, lasso_to_sparsity
from gramian.solvers.core.watch import Watch
from gramian.solvers.l1.active import Workspace

ENDED = (Status.CONVERGED, Status.DIRECT)


def objective(layer: Layer, weight: float | np.ndarray, point: np.ndarray) -> float:
    return float(layer.loss(point) + np.sum(weight * np.abs(point)))


def penalty(layer: Layer, fraction: float) -> float:
    """A lambda: the fraction of lambda_max, unless that is rounding."""
    size = float(np.sum(layer.inputs**2) * np.max(np.abs(layer.weight)))
    return fraction * (layer.largest if layer.largest > 1e-9 * size else size) or 1.0


def gap_from_data(layer: Layer, weight: float | np.ndarray, point: np.ndarray) -> float:
    """Relative duality gap from X and Y alone: residuals r of every output, scaled into |X^T r| <= lambda, are dual points,
    with the value 1/2 |y|^2 - 1/2 |y - r|^2."""
    residuals = layer.outputs.T - point @ layer.inputs.T
    ratio = np.max(np.abs(residuals @ layer.inputs) / weight, axis=1, keepdims=True)
    dual = residuals / np.maximum(1, ratio)
    bound = np.sum(dual * layer.outputs.T) - 0.5 * np.sum(dual**2)
    reached = objective(layer, weight, point)
    return (reached - float(bound)) / reached


@pytest.mark.parametrize("seed", range(3))
def test_finds_the_planted_optimum_to_rounding(xp, seed):
    layer, optimum = planted_lasso(seed, 12, 4, 0.5)
    solution = lasso(layer.problem(xp), L1(0.5), tol=1e-12)
    point = xp.numpy(solution.weights)
    assert solution.status is Status.CONVERGED and solution.certificate.relative_gap <= 1e-12
    np.testing.assert_allclose(point, optimum, atol=1e-11)
    np.testing.assert_array_equal(point == 0, optimum == 0)
    assert solution.detail["open_rows"] == 0 and solution.detail["solves"] >= 4
    assert solution.history[0][0] == 0 and solution.history[-1][0] == solution.steps > 0


@pytest.mark.parametrize("drift", [0.0, 0.5])
@pytest.mark.parametrize("tokens", [30, 6])
@pytest.mark.parametrize("fraction", [1e-3, 0.3])
def test_same_objective_as_cvxpy(xp, drift, tokens, fraction):
    layer = normal_layer(13, tokens, 10, 3, condition=20.0, drift=drift)
    weight = fraction * layer.largest
    solution = lasso(layer.problem(xp), L1(weight), tol=1e-10)
    assert solution.certificate.met_but_for_rounding(2e-10)
    assert solution.status is Status.CONVERGED or (solution.status is Status.DIRECT and tokens < 10)  # singular, a tiny lambda
    expected = cvxpy_lasso(layer.inputs, layer.outputs, weight)
    assert objective(layer, weight, xp.numpy(solution.weights)) == pytest.approx(expected, rel=1e-8)
    assert solution.certificate.objective == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("shape", [(3, 8), (3, 1), (1, 8)])
def test_same_objective_as_cvxpy_with_many_weights(xp, shape):
    layer = normal_layer(14, 30, 8, 3, drift=0.3)
    weight = 0.1 * layer.largest * np.random.default_rng(15).uniform(0.2, 2.0, size=shape)
    solution = lasso(layer.problem(xp), L1(xp.asarray(weight)), tol=1e-10)
    assert solution.status is Status.CONVERGED
    assert solution.certificate.objective == pytest.approx(cvxpy_lasso(layer.inputs, layer.outputs, weight), rel=1e-8)


@given(layer=layers(inputs=4), fraction=fractions)
@settings(max_examples=60)
def test_exact_on_any_layer(xp, layer: Layer, fraction):
    """Singular, dead, duplicated, one-row and badly scaled layers: the enumerated optimum, and soon."""
    weight = penalty(layer, fraction)
    solution = lasso(layer.problem(xp), L1(weight), tol=1e-9, max_steps=2000)
    point = xp.numpy(solution.weights)
    _, least = exact_lasso(layer.inputs, layer.outputs, weight)
    reached = objective(layer, weight, point)
    slack = 1e-12 * (layer.magnitude(point) + reached)
    assert solution.status in ENDED
    assert reached - least <= solution.certificate.gap + slack
    assert reached - least <= 1e-9 * reached + slack


@pytest.mark.parametrize("fraction", [0.003, 0.03, 0.3])
def test_the_homotopy_agrees(xp, fraction):
    """Every weight of every row, at a size where enumeration is out of reach."""
    layer = normal_layer(40, 60, 24, 3, condition=30.0, drift=0.2)
    weight = fraction * layer.largest
    point = xp.numpy(lasso(layer.problem(xp), L1(weight), tol=1e-12).weights)
    gram, cross = layer.inputs.T @ layer.inputs, layer.outputs.T @ layer.inputs
    for row in range(3):
        expected = np.array(lasso_homotopy(gram.tolist(), cross[row].tolist()).weights(weight))
        np.testing.assert_allclose(point[row], expected, atol=1e-8)
        np.testing.assert_array_equal(point[row] == 0, np.abs(expected) < 1e-12)


@pytest.mark.parametrize("fraction", [1e-6, 1e-4, 1e-2])
@pytest.mark.parametrize("kind", ["few tokens", "duplicates", "whole numbers", "condition 1e8", "rows of many sizes"])
def test_what_is_hard(xp, kind, fraction):
    """Cases on which ADMM alone takes thousands of steps, or never ends."""
    rng = np.random.default_rng(41)
    layer = normal_layer(42, 40, 20, 4, condition=1e4 if kind == "condition 1e8" else 30.0)
    if kind == "few tokens":
        layer = Layer(rng.normal(size=(10, 30)), rng.normal(size=(4, 30)))
    elif kind == "duplicates":
        layer = Layer(np.hstack([layer.inputs, layer.inputs, -2 * layer.inputs[:, :5]]), rng.normal(size=(4, 45)))
    elif kind == "whole numbers":
        layer = Layer(rng.integers(-1, 2, size=(15, 25)).astype(float), rng.integers(-2, 3, size=(4, 25)).astype(float))
    elif kind == "rows of many sizes":
        layer = layer.scaled(weight=np.logspace(0, 4, 4)[:, None])
    weight = fraction * layer.largest
    solution = lasso(layer.problem(xp), L1(weight), tol=1e-8, max_steps=4000)
    assert solution.status in (Status.CONVERGED, Status.DIRECT) and solution.certificate.met_but_for_rounding(2e-8)
    assert gap_from_data(layer, weight, xp.numpy(solution.weights)) <= 1e-6


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (5, 1)])
def test_one_row_and_one_column(xp, shape):
    layer = normal_layer(23, 9, shape[1], shape[0], drift=0.2)
    weight = 0.1 * layer.largest
    solution = lasso(layer.problem(xp), L1(weight), tol=1e-11)
    assert xp.numpy(solution.weights).shape == shape
    _, least = exact_lasso(layer.inputs, layer.outputs, weight)
    assert objective(layer, weight, xp.numpy(solution.weights)) == pytest.approx(least, rel=1e-11)


def test_dead_channels(xp):
    """Their weights cost and serve nothing; where they cost nothing either they stay what they were."""
    layer = normal_layer(43, 20, 8, 3, dead=2)
    layer = layer.scaled(weight=np.where(np.any(layer.inputs, axis=0), 1.0, 1e12))
    problem, dead = layer.problem(xp), ~np.any(layer.inputs, axis=0)
    weight = np.where(dead, [[1.0], [0.0], [1e-9]], 0.05 * np.max(np.abs(layer.outputs.T @ layer.inputs)))
    solution = lasso(problem, L1(xp.asarray(weight)), tol=1e-10)
    point = xp.numpy(solution.weights)
    assert solution.status is Status.CONVERGED and dead.sum() == 2
    np.testing.assert_array_equal(point[:, dead], layer.weight[:, dead] * np.array([[0], [1], [0]]))
    nothing = Quadratic(xp.asarray(np.zeros((3, 3))), xp.asarray(np.ones((2, 3))))
    np.testing.assert_array_equal(xp.numpy(lasso(nothing, L1(0.3)).weights), np.zeros((2, 3)))
    np.testing.assert_array_equal(xp.numpy(lasso(nothing, L1(0.0)).weights), np.ones((2, 3)))


def test_duplicate_channels_have_one_fit(xp):
    """With two equal channels the optimum is not unique; the fit, |V|_1 and the objective are, and every answer is one."""
    layer = normal_layer(22, 20, 4, 2)
    layer.inputs[:, 3] = layer.inputs[:, 0]
    layer.weight[:, 0] = 3.0
    weight = 0.05 * layer.largest
    starts = (np.zeros((2, 4)), np.array([[5.0, 0, 0, -5]] * 2), np.array([[0, 0, 0, 3.0]] * 2))
    _, least = exact_lasso(layer.inputs, layer.outputs, weight)
    found = [xp.numpy(lasso(layer.problem(xp), L1(weight), start=xp.asarray(start), tol=1e-12).weights) for start in starts]
    for point in found:
        assert objective(layer, weight, point) == pytest.approx(least, rel=1e-11)
        distance = np.linalg.norm(layer.inputs @ (point - found[0]).T)  # of each fit to the one optimal: sqrt(2 gap) at most
        assert distance <= 2 * (2 * 1e-12 * least) ** 0.5


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_weights_without_a_penalty(xp, share):
    """Some or all lambda_ij = 0: least squares there. The objective is right, and proven to be."""
    layer = normal_layer(44, 30, 8, 3, drift=0.5)
    free = np.random.default_rng(45).random((3, 8)) < share
    free[0, :] = False
    weight = np.where(free, 0.0, 0.1 * layer.largest)
    solution = lasso(layer.problem(xp), L1(xp.asarray(weight)), tol=1e-8)
    expected = cvxpy_lasso(layer.inputs, layer.outputs, weight)
    assert solution.certificate.objective == pytest.approx(expected, rel=1e-9)
    assert solution.status is Status.CONVERGED and solution.detail["open_rows"] == 0
    assert solution.certificate.relative_gap <= 1e-8 and solution.certificate.bound <= expected * (1 + 1e-7)
    plain = normal_layer(44, 30, 8, 3)
    dense = lasso(plain.problem(xp), L1(0.0))
    np.testing.assert_array_equal(xp.numpy(dense.weights), plain.weight)
    assert dense.status is Status.CONVERGED and dense.steps == 0


def test_from_lambda_max_on_everything_is_zero(xp):
    layer = normal_layer(46, 20, 6, 3, drift=0.3)
    for side, moves in ((1 + 1e-9, False), (1 - 1e-6, True)):
        solution = lasso(layer.problem(xp), L1(side * layer.largest), tol=1e-12)
        assert solution.status is Status.CONVERGED
        assert np.any(xp.numpy(solution.weights)) == moves


@pytest.mark.parametrize("power", [-20, 20])
def test_no_units(xp, power):
    """Powers of two scale without rounding: the same bytes, and the same work."""
    layer, unit = normal_layer(47, 30, 8, 3, condition=50.0, drift=0.1), 2.0**power
    weight = 0.05 * layer.largest
    plain = lasso(layer.problem(xp), L1(weight))
    heavier = lasso(layer.scaled(weight=unit).problem(xp), L1(unit * weight))
    np.testing.assert_array_equal(xp.numpy(heavier.weights), unit * xp.numpy(plain.weights))
    louder = lasso(layer.scaled(inputs=unit).problem(xp), L1(unit**2 * weight))
    np.testing.assert_array_equal(xp.numpy(louder.weights), xp.numpy(plain.weights))
    assert plain.steps == heavier.steps == louder.steps > 0 and plain.detail == heavier.detail == louder.detail


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_float32(xp, scale):
    layer = normal_layer(24, 60, 16, 4, condition=10.0, drift=0.1).scaled(inputs=scale)
    weight = 0.05 * layer.largest
    solution = lasso(layer.problem(xp, "float32"), L1(weight), tol=1e-5)
    assert solution.status is Status.CONVERGED
    assert solution.weights.dtype == xp.dtype("float32")
    expected = cvxpy_lasso(layer.inputs / scale, layer.outputs / scale, weight / scale**2) * scale**2
    assert objective(layer, weight, xp.numpy(solution.weights).astype(float)) == pytest.approx(expected, rel=1e-5)
    honest = lasso(layer.problem(xp, "float32"), L1(weight), tol=1e-12)
    assert honest.status is Status.DIRECT and honest.certificate.relative_gap > 1e-12


def test_float32_with_fewer_tokens_than_channels(xp):
    layer = normal_layer(25, 8, 20, 4)
    weight = 0.05 * layer.largest
    solution = lasso(layer.problem(xp, "float32"), L1(weight), tol=1e-4)
    assert solution.status is Status.CONVERGED
    expected = cvxpy_lasso(layer.inputs, layer.outputs, weight)
    assert objective(layer, weight, xp.numpy(solution.weights).astype(float)) == pytest.approx(expected, rel=1e-3)


def test_joint_equals_row_by_row(xp):
    layer = normal_layer(16, 40, 10, 5, condition=30.0, drift=0.2)
    weight = 0.02 * layer.largest
    joint = xp.numpy(lasso(layer.problem(xp), L1(weight), tol=1e-12).weights)
    for row in range(5):
        alone = Layer(layer.inputs, layer.weight[[row]], layer.dense).problem(xp)
        np.testing.assert_allclose(xp.numpy(lasso(alone, L1(weight), tol=1e-12).weights)[0], joint[row], atol=1e-10)


def test_rows_that_are_done_are_not_touched(xp):
    """Two rows start at their optimum: their bytes stay. From there nothing is left to do at all."""
    layer, optimum = planted_lasso(26, 12, 4, 0.5)
    start = optimum.copy()
    start[1:3] = 0.0
    problem = Quadratic(layer.problem(xp).gram, xp.asarray(layer.weight))
    solution = lasso(problem, L1(0.5), start=xp.asarray(start), tol=1e-9)
    assert solution.detail["solves"] < 8
    np.testing.assert_array_equal(xp.numpy(solution.weights)[[0, 3]], start[[0, 3]])
    np.testing.assert_allclose(xp.numpy(solution.weights), optimum, atol=1e-9)
    again = lasso(problem, L1(0.5), start=solution.weights, tol=1e-9)
    assert (again.steps, again.detail["solves"], again.status) == (0, 0.0, Status.CONVERGED)


@pytest.mark.parametrize("steps", [1, 10])
def test_step_limit_is_a_status_with_an_honest_certificate(xp, steps):
    layer = normal_layer(19, 60, 30, 6, condition=1e4)
    weight = 1e-4 * layer.largest
    start = np.random.default_rng(20).normal(size=layer.weight.shape)
    solution = lasso(layer.problem(xp), L1(weight), start=xp.asarray(start), tol=1e-10, max_steps=steps)
    assert solution.status is Status.STEP_LIMIT and solution.steps == steps
    assert 0 < solution.detail["open_rows"] <= 6
    assert solution.certificate.bound <= cvxpy_lasso(layer.inputs, layer.outputs, weight) * (1 + 1e-7)
    point = xp.numpy(solution.weights)
    assert solution.certificate.objective == pytest.approx(objective(layer, weight, point), rel=1e-9)
    rows = [lasso_objective(layer.inputs, layer.outputs[:, [row]], weight, point[[row]]) for row in range(6)]
    begun = [lasso_objective(layer.inputs, layer.outputs[:, [row]], weight, start[[row]]) for row in range(6)]
    assert all(reached <= before for reached, before in zip(rows, begun))
    assert sum(rows) < 0.9 * sum(begun)  # what ADMM has found by then is tried


def test_the_path_by_either_solver(xp):
    layer = normal_layer(49, 40, 10, 3, condition=5.0, drift=0.2)
    weights = [float(weight) for weight in layer.largest * np.geomspace(0.5, 0.01, 4)]
    exact = lasso_path(layer.problem(xp), weights, tol=1e-10)
    for one, other in zip(exact, lasso_path(layer.problem(xp), weights, solver=FISTA(scaled=True), tol=1e-8)):
        assert "solves" in one.solution.detail and "solves" not in other.solution.detail
        assert one.solution.certificate.relative_gap <= 1e-10
        assert one.solution.certificate.objective == pytest.approx(other.solution.certificate.objective, rel=2e-8)
    searches = [lasso_to_sparsity(layer.problem(xp), 0.5, solver=solver) for solver in (None, FISTA(scaled=True))]
    assert int(searches[0].zeros[0, 0]) == int(searches[1].zeros[0, 0]) == 15
    np.testing.assert_allclose(xp.numpy(searches[0].weight), xp.numpy(searches[1].weight), rtol=1e-2)


def test_a_workspace_is_as_good_as_new(xp):
    """Whatever was solved in it before, and every inverse computed once."""
    layer = normal_layer(50, 40, 10, 3, condition=20.0)
    workspace, known = Workspace.of(layer.problem(xp)), {}
    for fraction in (0.3, 0.29, 0.01, 0.3):
        weight = fraction * layer.largest
        solution, alone = workspace.lasso(L1(weight), Watch()), lasso(layer.problem(xp), L1(weight))
        np.testing.assert_array_equal(xp.numpy(solution.weights), xp.numpy(alone.weights))
        known.setdefault(fraction, solution.weights)
    assert workspace.inverse(0.25) is workspace.inverse(0.25)
    assert not np.array_equal(xp.numpy(known[0.3]), xp.numpy(known[0.29]))


def test_bad_arguments(xp):
    problem = normal_layer(21, 10, 3, 2).problem(xp)
    for options in ({"tol": -1.0}, {"tol": float("nan")}, {"max_steps": 0}):
        with pytest.raises(
            ValueError, match=r"tol must be in \[0, inf\)|max_steps must be a whole number of at least 1 but is 0"
        ):
            lasso(problem, L1(0.1), **options)
    with pytest.raises(ValueError, match=r"start is \(3, 2\) but the problem's weight is \(2, 3\)"):
        lasso(problem, L1(0.1), start=xp.asarray(np.ones((3, 2))))
    with pytest.raises(ValueError, match="start holds NaN or Inf"):
        lasso(problem, L1(0.1), start=xp.asarray(np.array([[1, np.nan, 1], [1, 1, 1]])))
