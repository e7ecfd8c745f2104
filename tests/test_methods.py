"""The recipes: baselines against one line of numpy each, FISTAPruner against Algorithm 1 written out and its promises."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gramian.adapters.methods import METHODS
from gramian.adapters.methods.baselines import magnitude, wanda
from gramian.adapters.methods.fistapruner import WARM_STARTS, fistapruner
from gramian.proofs.strategies import Layer, layers, normal_layer
from gramian.solvers import FISTA, L1, NM, Pattern, Quadratic, Solution, Status, TopK, certify, solve, sparsegpt

PATTERNS = [TopK(0.5), TopK(0.5, per_row=True), NM(2, 4), NM(1, 4), TopK(0.8)]
STARTS = {"magnitude": magnitude, "wanda": wanda, "sparsegpt": sparsegpt}
PLAIN = normal_layer(0, 60, 24, 10, condition=30)
SHIFTED = normal_layer(1, 60, 24, 10, condition=30, drift=0.3)


def problem_of(layer: Layer) -> Quadratic:
    return Quadratic.from_data(layer.inputs, layer.weight, layer.dense)


def relative_error(layer: Layer, weights: np.ndarray) -> float:
    return layer.loss(weights) / layer.energy


def kept_counts(weights: np.ndarray, pattern: Pattern) -> np.ndarray:
    alive = weights != 0
    if isinstance(pattern, NM):
        return alive.reshape(-1, pattern.group).sum(axis=1)
    return alive.sum(axis=1) if pattern.per_row else alive.sum()


def allowed(weights: np.ndarray, pattern: Pattern) -> int:
    if isinstance(pattern, NM):
        return pattern.kept
    size = weights.shape[1] if pattern.per_row else weights.size
    return size - round(pattern.sparsity * size)


def hard(score: np.ndarray, pattern: Pattern) -> np.ndarray:
    """Mask of the largest scores, by sorting."""
    groups = {True: score, False: score.reshape(1, -1)}[getattr(pattern, "per_row", False)]
    if isinstance(pattern, NM):
        groups = score.reshape(-1, pattern.group)
    kept = allowed(score, pattern)
    rank = np.argsort(np.argsort(-groups, axis=1, kind="stable"), axis=1)
    return (rank < kept).reshape(score.shape)


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


@pytest.mark.parametrize("start", WARM_STARTS)
@pytest.mark.parametrize("coordinates", ["unit", "raw"])
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("layer", [PLAIN, SHIFTED], ids=["plain", "shifted"])
def test_never_worse_than_the_rounded_warm_start(layer, pattern, coordinates, start):
    problem = problem_of(layer)
    solution = fistapruner(problem, pattern, warm_start=start, coordinates=coordinates)
    weights = solution.weights
    assert np.all(kept_counts(weights, pattern) <= allowed(weights, pattern))  # zeros of the LASSO count
    begin = layer.weight if start == "dense" else STARTS[start](problem, pattern).weights
    scale = np.linalg.norm(layer.inputs, axis=0) if coordinates == "unit" else 1.0
    bound = relative_error(layer, np.where(hard(np.abs(begin * scale), pattern), begin, 0))
    error = relative_error(layer, weights)
    assert error <= bound * (1 + 1e-6)  # the sweep of a warm start runs in float32
    assert error < 0.98 * bound or start in ("sparsegpt", "dense")  # and it is worth the trouble
    assert error <= solution.detail["warm_start_error"] * (1 + 1e-12)
    np.testing.assert_allclose(solution.detail["warm_start_error"], bound, rtol=1e-4)
    certificate = solution.certificate
    np.testing.assert_allclose(certificate.relative_error, error, rtol=1e-9)
    assert solution.status is Status.SEARCHED and weights.dtype == np.float64 and certificate.violation == 0
    dense = layer.inputs if layer.dense is None else layer.dense
    gradient = (layer.inputs @ weights.T - dense @ layer.weight.T).T @ layer.inputs
    residual = np.linalg.norm(gradient[weights != 0]) / np.linalg.norm(layer.outputs.T @ layer.inputs)
    np.testing.assert_allclose(certificate.residual, residual, rtol=1e-8)
    assert -1e-12 <= solution.detail.get("lasso_gap", 0.0) <= 1


@settings(max_examples=60)
@given(data=st.data())
def test_promises_on_odd_layers(data):
    """Dead and duplicate channels, zero weights, fewer tokens than channels, one row, one column, any scale of inputs."""
    layer = data.draw(layers(scales=(1.0, 1e-3, 1e3)))
    pattern = data.draw(st.sampled_from([TopK(0.5), TopK(0.3, per_row=True), TopK(0.0), NM(1, 1)]))
    start = data.draw(st.sampled_from(WARM_STARTS))
    coordinates, l1 = data.draw(st.sampled_from(["unit", "raw"])), data.draw(st.sampled_from(["plain", "scaled"]))
    problem = problem_of(layer)
    solution = fistapruner(problem, pattern, warm_start=start, visits=4, coordinates=coordinates, l1=l1)
    assert np.all(np.isfinite(solution.weights)) and pattern.admits(solution.weights != 0)
    slack = 1e-9 * layer.magnitude(layer.weight)
    if start != "dense":
        begin = STARTS[start](problem.astype(np.float32), pattern).weights.astype(float)
        assert layer.loss(solution.weights) <= layer.loss(begin) + slack
    np.testing.assert_allclose(solution.certificate.objective, layer.loss(solution.weights), atol=slack)
    assert -1e-9 <= solution.detail.get("lasso_gap", 0.0) <= 1 + 1e-9
    assert math.isfinite(solution.detail["warm_start_error"])


def test_a_dense_start_comes_back_sparse():
    """With X* = X dense weights have no error, so nothing would ever be better than returning them."""
    layer = normal_layer(2, 40, 4, 4)
    solution = fistapruner(problem_of(layer), TopK(0.5), warm_start="dense")
    assert np.sum(solution.weights == 0) == 8 and solution.detail["warm_start_error"] > 0
    assert len(solution.history) > 0 and min(error for _, error in solution.history) < math.inf


def test_a_dense_start_drops_dead_channels_first():
    """Pruning their weights costs nothing; and in unit coordinates the rounded dense weights are Wanda's."""
    layer = normal_layer(3, 60, 24, 10, condition=5, dead=6)
    dead = np.linalg.norm(layer.inputs, axis=0) == 0
    solution = fistapruner(problem_of(layer), TopK(0.5), warm_start="dense")
    reference = relative_error(layer, wanda(problem_of(layer), TopK(0.5)).weights)
    np.testing.assert_allclose(solution.detail["warm_start_error"], reference, rtol=1e-9)
    assert not np.any(solution.weights[:, dead])


@pytest.mark.parametrize("scale", [2.0**-10, 2.0**10])
@pytest.mark.parametrize("start", WARM_STARTS)
def test_the_scale_of_inputs_changes_nothing_beside_dead_channels(start, scale):
    layer = normal_layer(3, 60, 24, 10, condition=5, dead=6)
    first, second = (
        fistapruner(problem_of(each), TopK(0.5), warm_start=start) for each in (layer, layer.scaled(inputs=scale))
    )
    np.testing.assert_array_equal(second.weights != 0, first.weights != 0)
    np.testing.assert_allclose(second.detail["warm_start_error"], first.detail["warm_start_error"], rtol=1e-6)


@pytest.mark.parametrize("start", WARM_STARTS)
def test_natural_zeros_count(start):
    """A matrix that is sparse enough already is its own answer."""
    weight = PLAIN.weight * (np.random.default_rng(4).random(PLAIN.weight.shape) < 0.3)
    layer = Layer(PLAIN.inputs, weight)
    solution = fistapruner(problem_of(layer), TopK(0.5), warm_start=start)
    np.testing.assert_allclose(solution.weights, weight, rtol=1e-6)
    assert relative_error(layer, solution.weights) < 1e-12 and np.sum(solution.weights != 0) == np.sum(weight != 0)


@pytest.mark.parametrize("start", WARM_STARTS)
@pytest.mark.parametrize("pattern", [TopK(0.5), NM(2, 4)], ids=str)
def test_nothing_to_fit(start, pattern):
    for layer in (
        Layer(np.zeros((5, 8)), PLAIN.weight[:, :8]),
        Layer(PLAIN.inputs[:, :8], np.zeros((3, 8))),
        Layer(np.zeros((5, 8)), PLAIN.weight[:, :8], PLAIN.inputs[:5, :8]),  # X* = 0, X is not
    ):
        solution = fistapruner(problem_of(layer), pattern, warm_start=start)
        assert np.all(np.isfinite(solution.weights)) and pattern.admits(solution.weights != 0)
        assert solution.certificate.relative_error == pytest.approx(1.0 if layer.dense is not None else 0.0)
        assert solution.steps == 0 and solution.history == ()


@pytest.mark.parametrize("shape", [(1, 24), (10, 1)])
def test_one_row_and_one_column(shape):
    layer = Layer(PLAIN.inputs[:, : shape[1]], PLAIN.weight[: shape[0], : shape[1]])
    for start in WARM_STARTS:
        solution = fistapruner(problem_of(layer), TopK(0.5), warm_start=start)
        assert solution.weights.shape == shape and np.sum(solution.weights == 0) == max(shape) // 2


@pytest.mark.parametrize("l1", ["plain", "scaled"])
@pytest.mark.parametrize("coordinates", ["unit", "raw"])
@pytest.mark.parametrize("start", WARM_STARTS)
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_scale_of_inputs_and_weights_changes_nothing(start, coordinates, l1, scale):
    options: dict[str, Any] = {"warm_start": start, "coordinates": coordinates, "l1": l1, "visits": 6}
    for layer in (PLAIN, SHIFTED):
        first = fistapruner(problem_of(layer), TopK(0.5), **options)
        for scaled, factor in ((layer.scaled(inputs=scale), 1.0), (layer.scaled(weight=scale), scale)):
            second = fistapruner(problem_of(scaled), TopK(0.5), **options)
            np.testing.assert_array_equal(second.weights != 0, first.weights != 0)
            np.testing.assert_allclose(second.weights, first.weights * factor, rtol=1e-2, atol=1e-3 * factor)
            assert second.steps == first.steps


def test_scaled_l1_ignores_the_scale_of_single_channels():
    """X -> X D, W -> W D^-1 gives V -> V D^-1 in unit coordinates; `plain` is another model after it."""
    channels = np.logspace(-2, 2, 24)
    other = Layer(PLAIN.inputs * channels, PLAIN.weight / channels)

    def weights(layer: Layer, l1: str) -> np.ndarray:
        return fistapruner(problem_of(layer), TopK(0.5), warm_start="wanda", l1=l1, first_lambda=1e-2).weights

    first, second = weights(PLAIN, "scaled"), weights(other, "scaled") * channels
    np.testing.assert_array_equal(first != 0, second != 0)
    np.testing.assert_allclose(first, second, rtol=1e-2, atol=1e-3)
    assert not np.allclose(weights(PLAIN, "plain"), weights(other, "plain") * channels, rtol=1e-2, atol=1e-3)


def search(
    problem: Quadratic, pattern: Pattern, begin: np.ndarray, **options: Any
) -> tuple[np.ndarray, list[tuple[int, float]]]:
    """Algorithm 1 in raw coordinates, written out from its description."""
    inner, patience, threshold, tolerance, weight, visits = (
        options[name] for name in ("inner_steps", "patience", "threshold", "tolerance", "first_lambda", "visits")
    )
    top = float(np.max(np.abs(problem.at_zero[1])))
    work = problem.astype(np.float32)

    def total(weights: np.ndarray) -> float:
        return math.sqrt(problem.loss(weights))

    best = np.where(hard(np.abs(begin), pattern), begin, 0)
    start, low, high = begin, 1e-7, 1.0
    budget, failures, steps, history = inner, 0, 0, []
    for _ in range(visits):
        term = L1(weight * top)
        point = solve(work, term, FISTA(), start=start.astype(np.float32), tol=0, max_steps=budget).weights
        steps += budget
        candidate = np.where(hard(np.abs(point), pattern), point, 0).astype(float)
        error, before = total(candidate), total(best)
        history.append((steps, error))
        if (error - total(point.astype(float))) / error > threshold:
            low = weight
        else:
            high = weight
        weight = math.sqrt(low * high)
        if error < before:
            rounded_start = not np.any(start[best == 0])
            best, failures = candidate, 0
            if rounded_start and (before - error) / before < tolerance:
                break
        else:
            failures += 1
            budget = max(1, budget // 2)
            if failures == patience:
                break
        start = best
    return best, history


DEFAULTS: dict[str, Any] = {
    "inner_steps": 20, "patience": 3, "threshold": 0.3, "tolerance": 1e-3, "first_lambda": 1e-5, "visits": 12,
}  # fmt: skip
CHANGES: list[dict[str, Any]] = [
    {},
    {"visits": 1},
    {"patience": 1},
    {"inner_steps": 3, "tolerance": 0.0},
    {"threshold": 0.05, "first_lambda": 1e-2, "tolerance": 1e-6, "visits": 30},
    {"threshold": 0.9, "first_lambda": 1.0},
    {"tolerance": 0.2},
    {"patience": 30, "visits": 14},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
@pytest.mark.parametrize("start", ["dense", "wanda", "sparsegpt"])
@pytest.mark.parametrize("layer", [PLAIN, SHIFTED], ids=["plain", "shifted"])
def test_the_search_is_algorithm_one(layer, start, change):
    problem, pattern = problem_of(layer), TopK(0.5)
    options = DEFAULTS | change
    begin = layer.weight if start == "dense" else STARTS[start](problem.astype(np.float32), pattern).weights.astype(float)
    expected, history = search(problem, pattern, begin, **options)
    solution = fistapruner(problem, pattern, warm_start=start, coordinates="raw", **options)
    np.testing.assert_array_equal(solution.weights != 0, expected != 0)
    np.testing.assert_allclose(solution.weights, expected, rtol=1e-3, atol=1e-4)  # lambda L1 rounds in another order
    assert [steps for steps, _ in solution.history] == [steps for steps, _ in history]
    np.testing.assert_allclose([error for _, error in solution.history], [error for _, error in history], rtol=1e-4)
    assert solution.steps == history[-1][0]
    if not change:  # the defaults are the ones above
        default = fistapruner(problem, pattern, warm_start=start, coordinates="raw")
        np.testing.assert_array_equal(default.weights, solution.weights)


def test_the_reference_search_meets_every_rule():
    """Improvement after failure, halved budgets, both directions of lambda: else the comparison proves little."""
    seen: set[str] = set()
    for layer in (PLAIN, SHIFTED):
        for start in ("dense", "wanda", "sparsegpt"):
            for change in CHANGES:
                solution = fistapruner(
                    problem_of(layer), TopK(0.5), warm_start=start, coordinates="raw", **DEFAULTS | change
                )
                best = math.sqrt(solution.detail["warm_start_error"] * layer.energy)
                gains = []
                for _, error in solution.history:
                    gains.append(error < best)
                    best = min(best, error)
                text = "".join("x-"[gain] for gain in gains)
                seen |= {rule for rule in ("x-", "-x", "xxx", "--") if rule in text}
                if text.count("x") > 3:
                    seen.add("reset")
    assert seen == {"x-", "-x", "xxx", "--", "reset"}


@pytest.mark.parametrize("start", WARM_STARTS)
def test_the_best_of_all_visited_is_returned(start):
    for layer in (PLAIN, SHIFTED):
        for visits in (1, 2, 5, 12):
            solution = fistapruner(problem_of(layer), TopK(0.6), warm_start=start, visits=visits, patience=20, tolerance=0.0)
            visited = [error**2 / layer.energy for _, error in solution.history]
            assert len(visited) == visits
            best = min([*visited, solution.detail["warm_start_error"]])
            np.testing.assert_allclose(relative_error(layer, solution.weights), best, rtol=1e-9)
            assert ("lasso_gap" in solution.detail) == (best < solution.detail["warm_start_error"])


@pytest.mark.parametrize("layer", [PLAIN, SHIFTED], ids=["plain", "shifted"])
def test_the_gap_is_that_of_the_lasso_point_before_rounding(layer):
    problem, weight = problem_of(layer), 1e-2 * layer.largest
    begin = wanda(problem, TopK(0.5)).weights.astype(np.float32)
    point = solve(problem.astype(np.float32), L1(weight), FISTA(), start=begin, tol=0, max_steps=20).weights
    expected = certify(problem, L1(weight), point).relative_gap
    assert 1e-3 < expected < 1
    solution = fistapruner(problem, TopK(0.5), warm_start="wanda", coordinates="raw", first_lambda=1e-2, visits=1)
    np.testing.assert_allclose(solution.detail["lasso_gap"], expected, rtol=1e-3)


def test_the_problem_is_not_touched():
    problem = problem_of(SHIFTED)
    before = [array.copy() for array in (problem.gram, problem.anchor, problem.slope, problem.floor)]
    for method in METHODS.values():
        method.solve(problem, TopK(0.5))
    for array, kept in zip((problem.gram, problem.anchor, problem.slope, problem.floor), before):
        np.testing.assert_array_equal(array, kept)


def test_every_backend_agrees(xp):
    expected = fistapruner(problem_of(SHIFTED), NM(2, 4), warm_start="wanda")
    solution = fistapruner(SHIFTED.problem(xp), NM(2, 4), warm_start="wanda")
    found = xp.numpy(solution.weights)
    assert np.all(kept_counts(found, NM(2, 4)) == 2)
    np.testing.assert_allclose(relative_error(SHIFTED, found), expected.certificate.relative_error, rtol=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warm_start": "lasso"}, "warm_start must be one of dense, magnitude, wanda, sparsegpt but is 'lasso'"),
        ({"coordinates": "polar"}, "coordinates"),
        ({"l1": "group"}, "l1 must be"),
        ({"inner_steps": 0}, "inner_steps"),
        ({"patience": 0}, "patience"),
        ({"visits": 0}, "visits"),
        ({"threshold": -0.1}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"threshold": 1.5}, "threshold"),
        ({"first_lambda": 0.0}, "first_lambda"),
        ({"first_lambda": 2.0}, "first_lambda"),
        ({"first_lambda": float("nan")}, "first_lambda"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"tolerance": float("nan")}, "tolerance"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        fistapruner(problem_of(PLAIN), TopK(0.5), **options)


@pytest.mark.parametrize("name", METHODS)
def test_a_pattern_that_does_not_divide_is_refused(name):
    with pytest.raises(ValueError, match="pattern 2:5 needs a multiple of 5"):
        METHODS[name].solve(problem_of(PLAIN), NM(2, 5))


def test_options_are_bound_by_name():
    method = METHODS["fistapruner"]
    with pytest.raises(ValueError, match="fistapruner has no option 'steps'"):
        method.bind({"steps": 3})
    with pytest.raises(ValueError, match="has no option 'problem'"):
        method.bind({"problem": 3})
    bound: Solution = method.bind({"visits": 1, "warm_start": "wanda"})(problem_of(PLAIN), TopK(0.5))
    assert len(bound.history) == 1
    for each in METHODS.values():
        assert np.sum(each.bind({})(problem_of(PLAIN), TopK(0.5)).weights == 0) == PLAIN.weight.size // 2


@settings(max_examples=30)
@given(
    seed=st.integers(0, 1000),
    fraction=st.sampled_from([1e-3, 0.02, 0.1, 0.4]),
    drift=st.sampled_from([0.0, 0.3]),
    removed=st.floats(0, 1),
)
def test_rounding_error_at_the_lasso_optimum(seed, fraction, drift, removed):
    """E_total^2 = E_lasso^2 + 2 lambda |D|_1 + |D X*|^2 for any removed entries D, so rounding never helps there."""
    layer = normal_layer(seed, 30, 8, 3, condition=4, drift=drift)
    weight = fraction * layer.largest
    solution = solve(problem_of(layer), L1(weight), FISTA(), tol=1e-12, max_steps=20_000)
    assert solution.status is Status.CONVERGED
    optimum = solution.weights
    drop = np.random.default_rng(seed).random(optimum.shape) < removed
    delta = np.where(drop, optimum, 0)
    lasso, total = 2 * layer.loss(optimum), 2 * layer.loss(optimum - delta)
    expected = lasso + 2 * weight * np.sum(np.abs(delta)) + np.sum((layer.inputs @ delta.T) ** 2)
    np.testing.assert_allclose(total, expected, rtol=1e-6)  # a gap of 1e-12 leaves a gradient error of 1e-6
    assert total >= lasso * (1 - 1e-9)
