"""Least squares under affine equalities: against planted optima, elimination by a null space, cvxpy, and `refit`."""

from __future__ import annotations

import numpy as np
import pytest
from array_api_compat.numpy import linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from least_squares import close, least_norm, random_mask
from rounding import rounding, rounding_of_loss, rounding_of_solve
from scipy.linalg import null_space

from gramian.proofs.kit.backends import Backend
from gramian.proofs.kit.models import cvxpy_least_squares
from gramian.proofs.kit.strategies import Layer, layers, normal_layer, small
from gramian.solvers import Affine, Quadratic, Solution, Status, affine_least_squares, certify, refit
from gramian.solvers.direct import equalities

NUMPY = Backend("numpy", np)


def metric(layer: Layer) -> np.ndarray:
    """What a change of a channel is measured by: its norm, and where it is dead the largest, so that units do not matter."""
    norms = np.linalg.norm(layer.inputs, axis=0)
    return np.where(norms > 0, norms, np.max(norms) or 1.0)


def eliminated(layer: Layer, matrix: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, bool]:
    """V = V_1 + Z N^T with V_1 the feasible weights nearest to W, N the null space of A, Z by least squares, of least norm
    if there are many; all in coordinates v_j sqrt(G_jj), from X and W. And whether there are many."""
    scale = metric(layer)
    along, inputs = matrix / scale, layer.inputs / scale
    along = along / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-300)
    wanted = values / np.maximum(np.linalg.norm(matrix / scale, axis=1), 1e-300)
    nearest = layer.weight * scale
    nearest = nearest + np.linalg.lstsq(along, wanted.T - along @ nearest.T, rcond=1e-10)[0].T
    free = null_space(along, rcond=1e-10)
    found, rank = least_norm(inputs @ free, layer.outputs - inputs @ nearest.T, np.linalg.norm(inputs))
    return (nearest + (free @ found).T) / scale, rank < free.shape[1]


def answer(xp, layer: Layer, matrix: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, Solution]:
    solution = affine_least_squares(layer.problem(xp), xp.asarray(matrix), xp.asarray(values))
    return xp.numpy(solution.weights), solution


def constraints(seed: int, count: int, layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """Some A and D that weights unlike W fulfil."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(count, layer.weight.shape[1]))
    return matrix, rng.normal(size=layer.weight.shape) @ matrix.T


@pytest.mark.parametrize("outputs, count", [(1, 1), (5, 3), (5, 12)])
def test_planted_optimum(xp, outputs, count):
    """slope + (V - W) G = M A for any multipliers M makes V the only optimum under V A^T = D."""
    rng = np.random.default_rng(80)
    layer = normal_layer(80, 40, 12, outputs)
    gram, matrix = layer.inputs.T @ layer.inputs, rng.normal(size=(count, 12))
    optimum, slope = rng.normal(size=(2, outputs, 12))
    multipliers = rng.normal(size=(outputs, count))
    dense = optimum - np.linalg.solve(gram, (multipliers @ matrix - slope).T).T
    problem = Quadratic(*(xp.asarray(array) for array in (gram, dense, slope, np.full(outputs, 100.0))))
    solution = affine_least_squares(problem, xp.asarray(matrix), xp.asarray(optimum @ matrix.T))
    close(xp.numpy(solution.weights), optimum, rtol=1e-10)
    assert solution.status is Status.DIRECT
    assert solution.certificate.residual <= 1e-12 and solution.certificate.violation <= 1e-12


def test_the_schur_complement(xp, monkeypatch):
    """V_0 + (D - V_0 A^T) S^-1 A G^-1 with S = A G^-1 A^T and V_0 unconstrained; no eigenvectors for a regular Gram."""
    monkeypatch.setattr(equalities, "least_norm", None)
    layer = normal_layer(81, 40, 9, 4, drift=0.3)
    matrix, values = constraints(81, 3, layer)
    inverse = np.linalg.inv(layer.inputs.T @ layer.inputs)
    free = np.linalg.lstsq(layer.inputs, layer.outputs, rcond=None)[0].T
    pull = np.linalg.solve(matrix @ inverse @ matrix.T, (values - free @ matrix.T).T).T
    close(answer(xp, layer, matrix, values)[0], free + pull @ matrix @ inverse, rtol=1e-11)


@pytest.mark.parametrize("drift", [0.0, 0.4])
@pytest.mark.parametrize("tokens", [30, 5])
def test_cvxpy_finds_nothing_better(xp, tokens, drift):
    layer = normal_layer(82, tokens, 8, 3, drift=drift)
    matrix, values = constraints(82, 5, layer)
    point, solution = answer(xp, layer, matrix, values)
    least = cvxpy_least_squares(layer.inputs, layer.outputs, equalities=(matrix, values))
    assert solution.certificate.objective == pytest.approx(least, rel=1e-7, abs=1e-9)
    assert layer.loss(point) == pytest.approx(least, rel=1e-7, abs=1e-9)
    np.testing.assert_allclose(point @ matrix.T, values, atol=1e-12)


@given(layer=layers(scales=(1.0,)), data=st.data())
@settings(max_examples=50)
def test_elimination(xp, layer: Layer, data):
    """Any layer, singular ones included, and constraints of small integers: redundant, zero, as many as weights or more."""
    width = layer.weight.shape[1]
    matrix = data.draw(arrays(float, (data.draw(st.integers(1, 4), label="m"), width), elements=small), label="A")
    values = np.random.default_rng(0).integers(-3, 4, size=layer.weight.shape) @ matrix.T
    expected, many = eliminated(layer, matrix, values)
    point, solution = answer(xp, layer, matrix, values)
    scale = metric(layer)
    natural = max(np.max(np.abs(each * scale)) for each in (expected, layer.weight))  # where all cancels
    np.testing.assert_allclose(point * scale, expected * scale, rtol=1e-6, atol=1e-6 * natural)
    assert solution.status is (Status.SINGULAR if many else Status.DIRECT)
    size = np.max(np.abs(matrix)) * np.max(np.abs(point)) * width
    assert solution.certificate.violation <= 1e-11 * size + 1e-300
    np.testing.assert_allclose(point @ matrix.T, values, rtol=0, atol=1e-11 * size)
    assert layer.loss(point) <= layer.loss(expected) + 1e-11 * layer.magnitude(point)


def test_routines_that_round_more(monkeypatch):
    """Singular values of redundant constraints that are off by a few times what LAPACK leaves, as on other devices."""
    layer = normal_layer(84, 40, 8, 4, drift=0.3)
    matrix = np.random.default_rng(84).integers(-3, 4, size=(2, 8)).astype(float)
    matrix = np.vstack([matrix, matrix.sum(axis=0), 2 * matrix[0]])
    values = layer.weight @ matrix.T
    point, solution = answer(NUMPY, layer, matrix, values)
    exact = linalg.svd

    def rounded(array, full_matrices=True):
        left, sizes, right = exact(array, full_matrices=full_matrices)
        return left, sizes + 20 * np.finfo(float).eps * sizes.max(), right

    monkeypatch.setattr(linalg, "svd", rounded)
    other, again = answer(NUMPY, layer, matrix, values)
    np.testing.assert_allclose(other, point, rtol=1e-9, atol=1e-12)
    assert again.status is solution.status and again.certificate.violation <= 1e-12 * np.max(np.abs(values))


# -- a support is an affine set ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens, dead", [(40, 0), (40, 2), (4, 0)])
def test_a_support_agrees_with_refit(xp, tokens, dead):
    """A = the rows of I that are pruned, D = 0: one support for all rows; regular or not."""
    layer, mask = normal_layer(83, tokens, 10, 4, drift=0.2, dead=dead), random_mask(83, (1, 10))
    matrix = np.eye(10)[~mask[0]]
    point, solution = answer(xp, layer, matrix, np.zeros((4, len(matrix))))
    other = refit(layer.problem(xp), xp.asarray(np.repeat(mask, 4, axis=0)))
    close(point, xp.numpy(other.weights), rtol=1e-9)
    assert solution.status is other.status
    assert solution.certificate.objective == pytest.approx(
        other.certificate.objective, rel=1e-10, abs=rounding_of_loss(layer, point)
    )
    assert solution.certificate.residual == pytest.approx(other.certificate.residual, abs=1e-12)


def test_constraints_that_the_optimum_meets_cost_nothing(xp):
    layer = normal_layer(84, 30, 8, 3)
    matrix, _ = constraints(84, 4, layer)
    point, solution = answer(xp, layer, matrix, layer.weight @ matrix.T)
    gram = layer.inputs.T @ layer.inputs
    moved = rounding_of_solve(gram, np.linalg.cond(matrix), 30)  # |V - W| over |W|, and the square of that in the loss
    close(point, layer.weight, rtol=moved * len(gram))
    assert solution.certificate.relative_error <= np.linalg.cond(gram) * moved**2 < 1e-15


def test_as_many_constraints_as_weights_leave_one_answer(xp):
    """Whatever the Gram, which is singular here."""
    layer = normal_layer(85, 3, 5, 2)
    matrix, values = constraints(85, 5, layer)
    point, solution = answer(xp, layer, matrix, values)
    close(point, np.linalg.solve(matrix, values.T).T, rtol=1e-10)
    slack = rounding(5 * (3 * 5 + 1), np.linalg.cond(matrix) * np.linalg.norm(matrix) * np.linalg.norm(point))
    assert solution.status is Status.DIRECT and solution.certificate.violation <= slack < 1e-9


# -- redundant and contradictory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [30, 4])
@pytest.mark.parametrize("unit", [1.0, 1e-9, 1e9])
def test_redundant_constraints_change_nothing(xp, tokens, unit):
    """Repeated, summed, zero: in any units."""
    layer = normal_layer(86, tokens, 9, 3, drift=0.2)
    matrix, values = constraints(86, 3, layer)
    mix = np.vstack([np.eye(3), [[unit, 0, 0], [1, 1, 1], [0, 0, 0], [2, -unit, 0]]])
    plain, solution = answer(xp, layer, matrix, values)
    point, other = answer(xp, layer, mix @ matrix, values @ mix.T)
    close(point, plain, rtol=1e-8)
    assert other.status is solution.status and other.certificate.violation <= 1e-9 * max(1, unit)


@pytest.mark.parametrize("unit", [1.0, 1e-9, 1e9])
@pytest.mark.parametrize("row", [[1, 0, 0], [1, 1, 1], [0, 0, 0]])
def test_contradictory_constraints_raise(xp, unit, row):
    """The same left-hand side and another right-hand side, in one row of V, and in units that do not hide it."""
    layer = normal_layer(87, 30, 9, 3)
    matrix, values = constraints(87, 3, layer)
    mix = np.vstack([np.eye(3), unit * np.array([row])])
    wrong = values @ mix.T
    wrong[1, 3] += 1e-4 * (unit if any(row) else 1.0)
    with pytest.raises(ValueError, match="the constraints V A\\^T = D contradict each other: the nearest V misses D by"):
        answer(xp, layer, mix @ matrix, wrong)
    answer(xp, layer, mix @ matrix, values @ mix.T)


def test_the_units_of_constraints_do_not_matter(xp):
    layer = normal_layer(88, 30, 9, 3, drift=0.2)
    matrix, values = constraints(88, 3, layer)
    units = np.array([1e8, 1.0, 1e-9])
    close(answer(xp, layer, units[:, None] * matrix, units * values)[0], answer(xp, layer, matrix, values)[0])


def test_no_constraint_at_all(xp):
    """0 = 0 is one constraint, of rank zero."""
    layer = normal_layer(89, 30, 6, 2, drift=0.3)
    point, solution = answer(xp, layer, np.zeros((1, 6)), np.zeros((2, 1)))
    close(point, np.linalg.lstsq(layer.inputs, layer.outputs, rcond=None)[0].T)
    assert solution.status is Status.DIRECT and solution.certificate.residual <= 1e-12


# -- singular Grams, units, precision ----------------------------------------------------------------------------------


def test_nothing_left_of_the_gram_within_the_constraints(xp):
    """Duplicate channels, and their weights' sum given: no direction that is free makes a difference, and none is taken."""
    layer = Layer(np.repeat(np.random.default_rng(96).normal(size=(9, 1)), 3, axis=1), np.array([[1.0, 2.0, 4.0]]))
    point, solution = answer(xp, layer, np.ones((1, 3)), np.array([[10.0]]))
    np.testing.assert_allclose(point, [[2, 3, 5]], rtol=1e-12)
    assert solution.status is Status.SINGULAR


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("missing", [1, 2, 4])
def test_a_singular_gram_changes_least(xp, seed, missing):
    """A Gram short of `missing` ranks: constraints may take up the slack, and the answer is unique, or not."""
    rng = np.random.default_rng(seed)
    width, count = int(rng.integers(5, 9)), int(rng.integers(1, 5))
    inputs = rng.normal(size=(width - missing, width))
    layer = Layer(inputs, rng.normal(size=(2, width)), inputs + 0.3 * rng.normal(size=inputs.shape))
    matrix, values = constraints(seed, count, layer)
    point, solution = answer(xp, layer, matrix, values)
    expected, many = eliminated(layer, matrix, values)
    close(point, expected, rtol=1e-7)
    assert many == (count < missing)
    assert solution.status is (Status.SINGULAR if many else Status.DIRECT)
    assert solution.certificate.violation <= 1e-11 * np.max(np.abs(values))


def test_a_dead_channel_takes_up_the_constraint(xp):
    """Its weight costs nothing: the loss is that of no constraint."""
    layer = normal_layer(90, 30, 6, 3, dead=1)
    matrix, values = constraints(90, 1, layer)
    point, solution = answer(xp, layer, matrix, values)
    live = layer.inputs[:, np.any(layer.inputs, axis=0)]
    gram = live.T @ live
    moved = rounding_of_solve(gram, np.linalg.norm(point), 30)  # at most, where nothing but rounding moves a live channel
    size = np.linalg.norm(matrix) * np.linalg.norm(point)
    assert solution.certificate.relative_error <= 0.5 * np.linalg.norm(gram) * moved**2 / layer.energy < 1e-15
    assert solution.certificate.violation <= rounding(6 * (3 * 6 + 1), size) < 1e-9
    close(point, eliminated(layer, matrix, values)[0], rtol=1e-10)


@pytest.mark.parametrize("tokens", [30, 4])
@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_units_do_not_matter(xp, tokens, unit):
    layer = normal_layer(91, tokens, 8, 3, drift=0.2)
    matrix, values = constraints(91, 3, layer)
    point, solution = answer(xp, layer, matrix, values)
    for inputs, weight in ((unit, 1.0), (1.0, unit)):
        moved, other = answer(xp, layer.scaled(inputs, weight), matrix, values * weight)
        close(moved, point * weight)
        assert other.status is solution.status
    channels = np.logspace(0, np.log10(unit), 8)
    scaled = Layer(layer.inputs * channels, layer.weight / channels, layer.dense * channels)
    close(answer(xp, scaled, matrix * channels, values)[0] * channels, point, rtol=1e-7)


def test_one_row_one_column(xp):
    point, solution = answer(xp, Layer(np.array([[2.0], [1.0]]), np.array([[3.0]])), np.array([[4.0]]), np.array([[2.0]]))
    np.testing.assert_allclose(point, [[0.5]], rtol=rounding(16, 1.0))
    assert solution.certificate.objective == pytest.approx(0.5 * 5 * 2.5**2) and solution.status is Status.DIRECT


@pytest.mark.parametrize("kind", ["float32", "int64"])
def test_precision(xp, kind):
    """A float32 problem, with constraints that are float32 and redundant to that precision, or integers."""
    layer = normal_layer(92, 60, 12, 4, drift=0.2)
    matrix = np.round(3 * constraints(92, 3, layer)[0]).astype(kind)
    values = (matrix @ np.round(np.random.default_rng(1).normal(size=(12, 4)))).T.astype(kind)
    if kind == "float32":
        matrix, values = matrix / np.float32(7), values / np.float32(7)
        mix = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1 / 3, 0, 1 / 7]], dtype="float32")
        expected = eliminated(layer, matrix.astype(float), values.astype(float))[0]
        matrix, values = mix @ matrix, values @ mix.T
    else:
        expected = eliminated(layer, matrix.astype(float), values.astype(float))[0]
    solution = affine_least_squares(layer.problem(xp, "float32"), xp.asarray(matrix), xp.asarray(values))
    assert solution.weights.dtype == xp.dtype("float32") and solution.status is Status.DIRECT
    close(xp.numpy(solution.weights), expected, rtol=1e-4)
    assert solution.certificate.violation <= 1e-5 * np.max(np.abs(values))


# -- certificate and errors --------------------------------------------------------------------------------------------


@given(layer=layers(scales=(1.0,)), data=st.data())
@settings(max_examples=25)
def test_certificate(xp, layer: Layer, data):
    """|grad f(V)| within the null space of A over |grad f(0)|, the largest |V A^T - D|, f(V), and no bound."""
    rng = np.random.default_rng(data.draw(st.integers(0, 99), label="seed"))
    matrix = data.draw(arrays(float, (2, layer.weight.shape[1]), elements=small), label="A")
    point, values = rng.normal(size=layer.weight.shape), rng.normal(size=(len(layer.weight), 2))
    certificate = certify(layer.problem(xp), Affine(xp.asarray(matrix), xp.asarray(values)), xp.asarray(point))
    gradient, start = (layer.inputs @ point.T - layer.outputs).T @ layer.inputs, layer.outputs.T @ layer.inputs
    along = np.linalg.norm(gradient @ null_space(matrix, rcond=1e-10))
    if np.linalg.norm(start) > 0:
        assert certificate.residual == pytest.approx(along / np.linalg.norm(start), rel=1e-9, abs=1e-11)
    assert certificate.violation == pytest.approx(
        np.max(np.abs(point @ matrix.T - values)),
        abs=rounding(point.shape[1] + 1, np.max(np.abs(point) @ np.abs(matrix).T + np.abs(values))),
    )
    assert certificate.objective == pytest.approx(layer.loss(point), abs=1e-11 * layer.magnitude(point))
    assert certificate.bound == -np.inf and certificate.measure == certificate.residual


def test_the_certificate_does_not_depend_on_the_units_of_constraints(xp):
    layer = normal_layer(93, 30, 9, 3, drift=0.2)
    matrix, values = constraints(93, 3, layer)
    units = np.array([1e9, 1.0, 1e-20])
    point, solution = answer(xp, layer, matrix, values)
    term = Affine(xp.asarray(units[:, None] * matrix), xp.asarray(units * values))
    certificate = certify(layer.problem(xp), term, xp.asarray(point))
    assert certificate.residual == pytest.approx(solution.certificate.residual, abs=1e-10)


def test_the_problem_is_left_alone(xp):
    layer = normal_layer(94, 20, 6, 2, drift=0.2)
    problem, (matrix, values) = layer.problem(xp), (xp.asarray(array) for array in constraints(94, 2, layer))
    before = [xp.numpy(array).copy() for array in (problem.gram, problem.anchor, problem.slope, matrix, values)]
    affine_least_squares(problem, matrix, values)
    for array, expected in zip((problem.gram, problem.anchor, problem.slope, matrix, values), before):
        np.testing.assert_array_equal(xp.numpy(array), expected)


@pytest.mark.parametrize(
    "matrix, values", [((2, 5), (3, 2)), ((2, 7), (3, 2)), ((2, 6), (2, 2)), ((2, 6), (4, 2)), ((0, 6), (3, 0))]
)
def test_shapes_that_do_not_fit(xp, matrix, values):
    problem = normal_layer(95, 12, 6, 3).problem(xp)
    with pytest.raises(
        ValueError, match=r"A is .* and D is .* but the weight is \(3, 6\)|there are no constraints: A is \(0, 6\)"
    ):
        affine_least_squares(problem, xp.asarray(np.ones(matrix)), xp.asarray(np.ones(values)))


# -- channels that nearly vanish ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1e-9, 1e-16, 1e-17, 1e-60, 0.0])
def test_a_channel_that_nearly_vanishes_hides_no_constraint(xp, size):
    """Such as a constant channel after centring. It can meet one of two constraints at no loss, so that the other is what
    costs: the difference that is free of it."""
    rng = np.random.default_rng(90)
    inputs, dense = rng.normal(size=(200, 8)), rng.normal(size=(3, 8))
    inputs[:, 3] *= size
    matrix, values = np.vstack([np.ones(8), np.arange(8.0)]), np.ones((3, 2))
    problem = Quadratic.from_data(xp.asarray(inputs), xp.asarray(dense))
    found = affine_least_squares(problem, xp.asarray(matrix), xp.asarray(values))
    point = xp.numpy(found.weights)
    assert found.certificate.violation == 0
    np.testing.assert_allclose(point @ matrix.T, values, atol=1e-12 * np.max(np.abs(point)))
    others, free = np.delete(np.arange(8), 3), (matrix[1] - 3 * matrix[0])[None, :]
    left = inputs[:, others]
    least = cvxpy_least_squares(left, left @ dense[:, others].T, equalities=(free[:, others], np.full((3, 1), -2.0)))
    assert found.certificate.objective == pytest.approx(least, rel=1e-6)


@pytest.mark.parametrize("spread", [0, 2, 4, 6])
def test_scales_of_channels_do_not_decide_what_is_feasible(xp, spread):
    """Of the inputs, or of the constraints with them: V A^T = D and X' = X s, A' = A s, V' = V / s is the same problem."""
    rng = np.random.default_rng(91)
    inputs, dense, matrix = rng.normal(size=(50, 6)), rng.normal(size=(2, 6)), rng.normal(size=(3, 6))
    scale = np.logspace(-spread, spread, 6)
    values = dense @ matrix.T + 1
    matrix, values = np.vstack([matrix, matrix[0] + matrix[1]]), np.hstack([values, values[:, :1] + values[:, 1:2]])

    def solved(given, weight, equal):
        problem = Quadratic.from_data(xp.asarray(given), xp.asarray(weight))
        found = affine_least_squares(problem, xp.asarray(equal), xp.asarray(values))
        assert found.certificate.violation == 0
        return xp.numpy(found.weights), found.certificate.objective

    plain, objective = solved(inputs, dense, matrix)
    moved, same = solved(inputs * scale, dense / scale, matrix * scale)
    np.testing.assert_allclose(moved * scale, plain, rtol=1e-8, atol=1e-8)
    assert same == pytest.approx(objective, rel=1e-9)
    point, _ = solved(inputs * scale, dense, matrix)  # other data under the same constraints
    np.testing.assert_allclose(point @ matrix.T, values, atol=1e-12 * np.max(np.abs(point)))
    with pytest.raises(ValueError, match="contradict each other"):
        problem = Quadratic.from_data(xp.asarray(inputs * scale), xp.asarray(dense))
        affine_least_squares(problem, xp.asarray(matrix), xp.asarray(values + np.array([0, 0, 0, 1e-3])))
