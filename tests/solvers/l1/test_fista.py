"""FISTA: right answers, the published rate, rows on their own, restarts and steps per channel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from least_squares import objective, prox_points

from gramian.proofs.kit.references import cvxpy_lasso, exact_lasso
from gramian.proofs.kit.strategies import Layer, fractions, from_gram, layers, normal_layer, planted_lasso
from gramian.solvers import FISTA, L1, Affine, Quadratic, Status, Support, affine_least_squares, lambda_max, solve
from gramian.solvers.backend import threads
from gramian.solvers.l1 import fista


@pytest.mark.parametrize("seed", range(3))
def test_finds_the_planted_optimum(xp, seed):
    layer, optimum = planted_lasso(seed, 12, 4, 0.5)
    solution = solve(layer.problem(xp), L1(0.5), FISTA(), tol=1e-12, max_steps=5000)
    point = xp.numpy(solution.weights)
    assert solution.status is Status.CONVERGED
    np.testing.assert_allclose(point, optimum, atol=1e-5)
    np.testing.assert_array_equal(point == 0, optimum == 0)  # slack 0.1 lambda: the support is certain


@pytest.mark.parametrize("drift", [0.0, 0.5])
@pytest.mark.parametrize("tokens", [30, 6])
@pytest.mark.parametrize("fraction", [0.01, 0.3])
def test_same_objective_as_cvxpy(xp, drift, tokens, fraction):
    layer = normal_layer(13, tokens, 10, 3, condition=20.0, drift=drift)
    weight = fraction * layer.largest
    solution = solve(layer.problem(xp), L1(weight), FISTA(), tol=1e-8)
    assert solution.status is Status.CONVERGED
    expected = cvxpy_lasso(layer.inputs, layer.outputs, weight)
    assert objective(layer, weight, xp.numpy(solution.weights)) == pytest.approx(expected, rel=1e-6)
    assert solution.certificate.objective == pytest.approx(expected, rel=1e-6)


def test_same_objective_as_cvxpy_with_a_weight_per_entry(xp):
    layer = normal_layer(14, 30, 8, 3, drift=0.3)
    weight = 0.1 * layer.largest * np.random.default_rng(15).uniform(0.2, 2.0, size=(3, 8))
    solution = solve(layer.problem(xp), L1(xp.asarray(weight)), FISTA(), tol=1e-8)
    expected = cvxpy_lasso(layer.inputs, layer.outputs, weight)
    assert solution.certificate.objective == pytest.approx(expected, rel=1e-6)


@given(layer=layers(inputs=4), fraction=fractions, restart=st.booleans())
@settings(max_examples=30)
def test_never_claims_more_than_it_has(xp, layer: Layer, fraction, restart):
    """Singular, dead, duplicated, one-row and badly scaled layers: the objective is within the gap of the optimum."""
    weight = fraction * layer.largest or 1.0
    problem = layer.problem(xp)
    solution = solve(problem, L1(weight), FISTA(restart), tol=1e-5, max_steps=400)
    point = xp.numpy(solution.weights)
    _, least = exact_lasso(layer.inputs, layer.outputs, weight)
    reached = objective(layer, weight, point)
    slack = 1e-11 * (layer.magnitude(point) + reached)
    assert reached - least <= solution.certificate.gap + slack
    if solution.status is Status.CONVERGED:
        assert reached - least <= 1e-5 * reached + slack
    elif solution.status is not Status.AT_ROUNDING:
        assert solution.status is Status.STEP_LIMIT and solution.steps == 400
    if solution.status is not Status.CONVERGED:
        assert solution.certificate.relative_gap > 1e-5
    assert solution.history[-1] == (solution.steps, solution.certificate.measure)


RATE_STEPS = 200


def check_rate(xp, layer: Layer, weight: float, start: np.ndarray) -> None:
    """F(x_k) - F* <= 2 L |x_0 - x*|^2 / (k + 1)^2 for every k, x_k the prox points."""
    problem = layer.problem(xp)
    optimum, least = exact_lasso(layer.inputs, layer.outputs, weight)
    bound = 2 * problem.lipschitz * np.sum((start - optimum) ** 2)
    visited = prox_points(problem, L1(weight), xp.asarray(start), RATE_STEPS, FISTA(restart=False))
    for k, point in enumerate(visited, start=1):
        excess = objective(layer, weight, xp.numpy(point)) - least
        assert excess <= bound / (k + 1) ** 2 + 1e-9 * (1 + abs(least)), k


@given(layer=layers(inputs=4, outputs=2, scales=(1.0,)), fraction=fractions, seed=st.integers(0, 1000))
@settings(max_examples=25)
def test_rate_of_convergence(xp, layer: Layer, fraction, seed):
    assume(layer.largest > 0)
    start = np.random.default_rng(seed).integers(-3, 4, size=layer.weight.shape).astype(float)
    check_rate(xp, layer, fraction * layer.largest, start)


def printed_fista(gram: np.ndarray, weight: np.ndarray, penalty: float, start: np.ndarray, steps: int) -> list[np.ndarray]:
    """FISTAPruner's Eq. (4) as printed, X* = X: momentum from the extrapolated point, which is also what it returns."""
    lipschitz = np.linalg.eigvalsh(gram)[-1]
    ahead, momentum, visited = start, 1.0, []
    for _ in range(steps):
        forward = ahead - (ahead - weight) @ gram / lipschitz
        prox = np.sign(forward) * np.maximum(np.abs(forward) - penalty / lipschitz, 0)
        following = 0.5 * (1 + np.sqrt(1 + 4 * momentum**2))
        ahead, momentum = prox + (momentum - 1) / following * (prox - ahead), following
        visited.append(ahead)
    return visited


@pytest.mark.parametrize(
    "diagonal, weight, start, penalty, step",
    [((1, 1 / 800), (0, 1), (0, 0), 0.0, 200), ((0, 1), (1, 1), (1, 1), 1 / 60, 20)],
)
def test_momentum_as_printed_loses_the_rate(xp, diagonal, weight, start, penalty, step):
    layer, start = from_gram(np.diag(diagonal), weight), np.array([start], dtype=float)
    optimum, least = exact_lasso(layer.inputs, layer.outputs, penalty)
    bound = 2 * max(diagonal) * np.sum((start - optimum) ** 2) / (step + 1) ** 2
    printed = printed_fista(np.diag(diagonal), layer.weight, penalty, start, step)[-1]
    assert objective(layer, penalty, printed) - least > 1.5 * bound
    ours = xp.numpy(prox_points(layer.problem(xp), L1(penalty), xp.asarray(start), step, FISTA(restart=False))[-1])
    assert objective(layer, penalty, ours) - least < 0.5 * bound
    check_rate(xp, layer, penalty, start)


def test_returns_exact_zeros_where_the_printed_method_does_not(xp):
    layer, start = from_gram(np.diag([1, 0.5]), (2, 0.5)), np.array([[2.0, 1.0]])
    printed = printed_fista(np.diag([1, 0.5]), layer.weight, 0.6, start, 30)
    assert printed[19][0, 1] != 0 and printed[29][0, 1] != 0
    for restart in (True, False):
        visited = prox_points(layer.problem(xp), L1(0.6), xp.asarray(start), 30, FISTA(restart))
        assert all(float(xp.numpy(point)[0, 1]) == 0.0 for point in visited[2:])


@pytest.mark.parametrize("restart", [False, True])
def test_the_iteration_written_out(xp, restart):
    """The docstring's recursion from the first step on, one row after another, on inputs instead of a Gram matrix."""
    layer, penalty, steps = normal_layer(31, 30, 8, 3, condition=20.0, drift=0.2), 0.4, 40
    problem = layer.problem(xp)
    visited = prox_points(problem, L1(penalty), xp.asarray(layer.weight), steps, FISTA(restart))
    restarts = 0
    for row, start in enumerate(layer.weight):
        point, ahead, momentum = start, start, 1.0
        for k in range(steps):
            forward = ahead - (layer.inputs @ ahead - layer.outputs[:, row]) @ layer.inputs / problem.lipschitz
            prox = np.sign(forward) * np.maximum(np.abs(forward) - penalty / problem.lipschitz, 0)
            following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
            inertia = (momentum - 1) / following
            if restart and (ahead - prox) @ (prox - point) > 0:
                following, inertia, restarts = 1.0, 0.0, restarts + 1
            point, ahead, momentum = prox, prox + inertia * (prox - point), following
            np.testing.assert_allclose(xp.numpy(visited[k])[row], point, rtol=1e-9, atol=1e-12)
    assert (restarts > 0) == restart


def test_error_correction_moves_the_weights(xp):
    """X* = 1, X = 3, W = 1: the optimum is 3. Eq. (4a) as printed, with X once, has W as a fixed point."""
    layer = Layer(np.ones((1, 1)), np.ones((1, 1)), np.full((1, 1), 3.0))
    solution = solve(layer.problem(xp), Support(xp.asarray([[True]])), FISTA())
    assert solution.status is Status.CONVERGED
    assert float(xp.numpy(solution.weights)[0, 0]) == pytest.approx(3.0, rel=1e-6)


def test_joint_equals_row_by_row(xp):
    """Rows are separate problems: the joint iterates are the rows' own, each with its own restarts."""
    layer, weight, steps = normal_layer(16, 40, 10, 5, condition=30.0, drift=0.2), 0.05, 80
    problem, term, solver = layer.problem(xp), L1(weight), FISTA()
    start = xp.asarray(np.zeros_like(layer.weight))
    joint = [xp.numpy(point) for point in prox_points(problem, term, start, steps, solver)]
    state, momenta = solver.init(problem, term, start), []
    for _ in range(steps):
        state = solver.step(problem, term, state)
        momenta.append(xp.numpy(state.momentum)[:, 0])
    restarts = np.diff(np.array(momenta), axis=0) < 0
    assert restarts.any(axis=0).sum() >= 3 and np.any(restarts.any(axis=1) & ~restarts.all(axis=1))
    for row in range(5):
        alone = Layer(layer.inputs, layer.weight[[row]], layer.dense).problem(xp)
        visited = prox_points(alone, term, xp.asarray(np.zeros((1, 10))), steps, solver)
        for together, single in zip(joint, visited):
            np.testing.assert_allclose(xp.numpy(single)[0], together[row], rtol=1e-6, atol=1e-8)


def test_restart_pays(xp):
    layer = normal_layer(17, 60, 20, 4, condition=20.0)
    term = L1(0.01 * layer.largest)
    options = {"tol": 1e-6, "max_steps": 600}
    assert solve(layer.problem(xp), term, FISTA(restart=True), **options).status is Status.CONVERGED
    assert solve(layer.problem(xp), term, FISTA(restart=False), **options).status is Status.STEP_LIMIT


def test_dead_inputs(xp):
    problem = Quadratic(xp.asarray(np.zeros((3, 3))), xp.asarray(np.ones((2, 3))))
    solution = solve(problem, L1(0.3), FISTA())
    assert solution.status is Status.CONVERGED
    np.testing.assert_array_equal(xp.numpy(solution.weights), np.zeros((2, 3)))
    free = solve(problem, L1(0.0), FISTA())
    np.testing.assert_array_equal(xp.numpy(free.weights), np.ones((2, 3)))
    assert free.certificate.gap == 0


def test_duplicate_channels_have_one_fit(xp):
    """With two equal channels the optimum is not unique; the fit, |V|_1 and the objective are."""
    layer = normal_layer(22, 20, 4, 2)
    layer.inputs[:, 3] = layer.inputs[:, 0]
    layer.weight[:, 0] = 3.0
    weight = 0.05 * layer.largest
    starts = (np.zeros((2, 4)), np.array([[5.0, 0, 0, -5]] * 2), np.array([[0, 0, 0, 3.0]] * 2))
    found = [
        xp.numpy(solve(layer.problem(xp), L1(weight), FISTA(), start=xp.asarray(start), tol=1e-10).weights) for start in starts
    ]
    for point in found[1:]:
        np.testing.assert_allclose(layer.inputs @ point.T, layer.inputs @ found[0].T, atol=1e-3)
        assert np.sum(np.abs(point)) == pytest.approx(np.sum(np.abs(found[0])), rel=1e-4)
    assert np.max(np.abs(found[1] - found[2])) > 1e-2


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (5, 1)])
def test_one_row_and_one_column(xp, shape):
    layer = normal_layer(23, 9, shape[1], shape[0], drift=0.2)
    weight = 0.1 * layer.largest
    solution = solve(layer.problem(xp), L1(weight), FISTA(), tol=1e-9)
    assert xp.numpy(solution.weights).shape == shape
    _, least = exact_lasso(layer.inputs, layer.outputs, weight)
    assert objective(layer, weight, xp.numpy(solution.weights)) == pytest.approx(least, rel=1e-8)


def test_float32(xp):
    layer = normal_layer(24, 60, 16, 4, condition=10.0, drift=0.1)
    weight = 0.05 * layer.largest
    problem = layer.problem(xp, "float32")
    solution = solve(problem, L1(weight), FISTA(), tol=1e-4)
    assert solution.status is Status.CONVERGED
    assert solution.weights.dtype == xp.dtype("float32")
    expected = cvxpy_lasso(layer.inputs, layer.outputs, weight)
    assert objective(layer, weight, xp.numpy(solution.weights).astype(float)) == pytest.approx(expected, rel=2e-4)


def test_float32_with_a_flat_spectrum(xp):
    """An orthogonal design with many channels: one step of the right length solves it, a longer one diverges."""
    width = 700
    weight = np.random.default_rng(25).normal(size=(2, width))
    problem = Quadratic(xp.asarray(100 * np.eye(width), "float32"), xp.asarray(weight, "float32"))
    solution = solve(problem, L1(20.0), FISTA(), tol=1e-4, max_steps=200)
    assert solution.status is Status.CONVERGED
    expected = np.sign(weight) * np.maximum(np.abs(weight) - 0.2, 0)
    np.testing.assert_allclose(xp.numpy(solution.weights), expected, atol=1e-2)


def test_support_is_least_squares(xp):
    layer = normal_layer(26, 30, 8, 3, drift=0.3)
    mask = np.random.default_rng(27).random((3, 8)) < 0.5
    solution = solve(layer.problem(xp), Support(xp.asarray(mask)), FISTA(), start=xp.asarray(0.0 * mask), tol=1e-9)
    assert solution.status is Status.CONVERGED and solution.certificate.residual <= 1e-9
    point = xp.numpy(solution.weights)
    for row, free in enumerate(mask):
        best = np.linalg.lstsq(layer.inputs[:, free], layer.outputs[:, row])[0]
        np.testing.assert_allclose(point[row, free], best, atol=1e-5)
        assert not np.any(point[row, ~free])


def test_an_infeasible_start_is_not_called_converged(xp):
    """The dense weights have gradient zero, but do not lie on the support."""
    layer = normal_layer(28, 12, 4, 1)
    mask = np.array([[True, False, True, False]])
    solution = solve(layer.problem(xp), Support(xp.asarray(mask)), FISTA(), tol=1e-8)
    assert solution.history[0][1] <= 1e-12  # the residual alone would have stopped it
    assert solution.certificate.violation == 0 and not np.any(xp.numpy(solution.weights)[~mask])


def test_same_input_same_bytes(xp):
    layer = normal_layer(29, 30, 8, 3)
    one, two = (solve(layer.problem(xp), L1(0.1 * layer.largest), FISTA(), max_steps=50) for _ in range(2))
    np.testing.assert_array_equal(xp.numpy(one.weights), xp.numpy(two.weights))
    assert one.history == two.history


@pytest.mark.parametrize("seed", range(4))
def test_steps_per_channel_are_unit_diagonal_coordinates(xp, seed):
    """FISTA(scaled=True) on a problem visits, divided by the scale, the points of FISTA on the rescaled problem."""
    layer = normal_layer(seed, 40, 9, 4, condition=30.0, drift=0.3 * (seed % 2))
    problem = layer.problem(xp)
    rescaled, scale = problem.rescaled()
    term = L1(0.2)
    plain, scaled = FISTA(), FISTA(scaled=True)
    one = plain.init(rescaled, term.rescaled(scale), rescaled.anchor)
    other = scaled.init(problem, term, problem.anchor)
    for _ in range(60):
        one = plain.step(rescaled, term.rescaled(scale), one)
        other = scaled.step(problem, term, other)
    np.testing.assert_allclose(xp.numpy(scaled.weights(other)), xp.numpy(plain.weights(one) / scale), rtol=1e-7, atol=1e-9)


def test_steps_per_channel_pay_where_channels_differ(xp):
    layer = normal_layer(3, 60, 12, 3)
    layer = type(layer)(layer.inputs * np.logspace(-2, 2, 12), layer.weight / np.logspace(-2, 2, 12))
    problem = layer.problem(xp)
    term = L1(1e-3 * float(lambda_max(problem)[0, 0]))
    slow, fast = (solve(problem, term, FISTA(scaled=flag), tol=1e-8, max_steps=3000) for flag in (False, True))
    assert fast.status is Status.CONVERGED and fast.steps < 0.5 * slow.steps


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("drift", [0.0, 0.3])
def test_rows_side_by_side_are_the_same_iteration(xp, scaled, drift, monkeypatch):
    monkeypatch.setattr(threads, "ROWS", 3)
    monkeypatch.setattr(threads, "WORTHWHILE", 0.0)
    layer = normal_layer(5, 30, 6, 8, drift=drift)
    problem, solver = layer.problem(xp), FISTA(scaled=scaled)
    term = L1(xp.asarray(np.linspace(0.1, 0.5, 6)[None, :] * layer.largest))
    state = solver.init(problem, term, problem.anchor)
    for _ in range(7):
        state = solver.step(problem, term, state)
    found = fista.advanced(problem, term, problem.anchor, 7, solver)
    np.testing.assert_allclose(xp.numpy(found), xp.numpy(solver.weights(state)), rtol=1e-12, atol=1e-13)


# -- the metric of a scaled step ---------------------------------------------------------------------------------------


def test_a_scaled_step_projects_in_its_own_metric(xp):
    """Weights that sum to one, on channels of very different size: the projection of least squares would diverge."""
    rng = np.random.default_rng(92)
    inputs = rng.normal(size=(60, 6)) * [1, 2, 5, 10, 0.5, 0.1]
    problem = Quadratic.from_data(xp.asarray(inputs), xp.asarray(rng.normal(size=(2, 6))))
    term = Affine(xp.asarray(np.ones((1, 6))), xp.asarray(np.ones((2, 1))))
    expected = affine_least_squares(problem, term.matrix, term.values)
    for scaled in (False, True):
        found = solve(problem, term, FISTA(scaled=scaled), tol=1e-8)
        assert found.status is Status.CONVERGED and found.certificate.violation == 0
        assert found.certificate.objective == pytest.approx(expected.certificate.objective, rel=1e-6)


def test_the_projection_in_a_metric_is_that_of_its_coordinates(xp):
    """argmin sum_j (v_j - u_j)^2 / s_j on V A^T = D is sqrt(s_j) v'_j, v' the projection of u / sqrt(s), by pseudo-inverse."""
    rng = np.random.default_rng(93)
    point, matrix, values = rng.normal(size=(3, 5)), rng.normal(size=(2, 5)), rng.normal(size=(3, 2))
    matrix, values = np.vstack([matrix, 2 * matrix[:1]]), np.hstack([values, 2 * values[:, :1]])  # redundant
    steps = np.array([1e-3, 1.0, 20.0, 0.5, 3.0])
    root = np.sqrt(steps)
    expected = point - (point @ matrix.T - values) @ np.linalg.pinv((matrix * root) @ (matrix * root).T) @ (matrix * steps)
    found = Affine(xp.asarray(matrix), xp.asarray(values)).prox(xp.asarray(point), xp.asarray(steps))
    np.testing.assert_allclose(xp.numpy(found), expected, rtol=1e-9, atol=1e-9)


def test_a_term_without_steps_per_channel_is_not_given_any(xp):
    class RowNorms:
        def value(self, weights):
            return 0 * weights[:, 0]

        def prox(self, weights, step):
            return weights

        def polar(self, gradient):
            return gradient[:, 0]

    problem = normal_layer(94, 12, 4, 2).problem(xp)
    with pytest.raises(
        TypeError, match=r"FISTA\(scaled=True\) takes a step per channel but RowNorms does not say channel_steps"
    ):
        solve(problem, RowNorms(), FISTA(scaled=True))
