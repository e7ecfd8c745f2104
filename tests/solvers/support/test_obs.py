"""The SparseGPT sweep against the same sweep written with explicit inverses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gramian.proofs.kit.references import obs_sweep
from gramian.proofs.kit.strategies import Layer, layers, normal_layer
from gramian.solvers import NM, Quadratic, Status, TopK, sparsegpt


def close(point: np.ndarray, expected: np.ndarray, rtol: float = 1e-8) -> None:
    np.testing.assert_allclose(point, expected, rtol=rtol, atol=rtol * np.max(np.abs(expected)))


@pytest.mark.parametrize("block", [1, 4, 7, 128])
@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.parametrize("sparsity", [0.3, 0.5])
def test_unstructured_equals_the_reference(xp, block, per_row, sparsity):
    layer = normal_layer(40, 80, 30, 6, condition=30.0)
    solution = sparsegpt(layer.problem(xp), TopK(sparsity, per_row), block=block)
    gram = layer.inputs.T @ layer.inputs
    expected = obs_sweep(gram, layer.weight, damping=0.01, sparsity=sparsity, per_row=per_row, block=block)
    point = xp.numpy(solution.weights)
    close(point, expected)
    np.testing.assert_array_equal(point == 0, expected == 0)
    assert solution.status is Status.DIRECT and solution.detail["damping"] == 0.01


@pytest.mark.parametrize("pattern", [TopK(0.5), NM(2, 4)])
@pytest.mark.parametrize("power", [-20, 20])
def test_units_do_not_matter(xp, pattern, power):
    """Powers of two scale without rounding."""
    layer, unit = normal_layer(44, 40, 16, 5, condition=30.0), 2.0**power
    plain = xp.numpy(sparsegpt(layer.problem(xp), pattern).weights)
    scaled = sparsegpt(layer.scaled(inputs=unit).problem(xp), pattern).weights
    np.testing.assert_array_equal(xp.numpy(scaled), plain)


def test_several_blocks_of_the_published_size(xp):
    layer = normal_layer(41, 300, 260, 4, condition=100.0)
    point = xp.numpy(sparsegpt(layer.problem(xp), TopK(0.6)).weights)
    close(point, obs_sweep(layer.inputs.T @ layer.inputs, layer.weight, damping=0.01, sparsity=0.6))
    assert np.sum(point == 0) == round(0.6 * point.size)


@pytest.mark.parametrize("pattern", [(2, 4), (1, 4), (4, 8), (1, 2)])
@pytest.mark.parametrize("block", [1, 6, 16, 128])
def test_nm_equals_the_reference(xp, pattern, block):
    layer = normal_layer(42, 90, 40, 5, condition=30.0)
    point = xp.numpy(sparsegpt(layer.problem(xp), NM(*pattern), block=block, damping=0.02).weights)
    expected = obs_sweep(layer.inputs.T @ layer.inputs, layer.weight, damping=0.02, pattern=pattern)
    close(point, expected)
    kept = (point != 0).reshape(5, -1, pattern[1]).sum(axis=2)
    assert np.all(kept == pattern[0])


@pytest.mark.parametrize("block", [3, 8, 128])
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 1 / 3, 0.5, 0.77, 0.99])
def test_counts_add_up_over_blocks(xp, block, sparsity):
    layer = normal_layer(43, 40, 23, 5)
    for per_row, size in ((False, 5 * 23), (True, 23)):
        pattern = TopK(sparsity, per_row)
        point = xp.numpy(sparsegpt(layer.problem(xp), pattern, block=block).weights)
        zeros = np.sum(point == 0, axis=1) if per_row else np.sum(point == 0)
        assert np.all(zeros == pattern.zeros(size))
        assert pattern.admits(xp.asarray(point != 0))


@given(layer=layers(inputs=6), sparsity=st.sampled_from([0.0, 0.3, 0.5, 0.8]), per_row=st.booleans())
@settings(max_examples=30)
def test_any_layer_gives_the_pattern_and_finite_weights(xp, layer: Layer, sparsity, per_row):
    """Singular, dead, duplicated, tied and badly scaled layers."""
    pattern = TopK(sparsity, per_row)
    problem = layer.problem(xp)
    solution = sparsegpt(problem, pattern, block=2)
    point = xp.numpy(solution.weights)
    assert np.all(np.isfinite(point)) and point.shape == layer.weight.shape
    assert pattern.admits(xp.asarray(point != 0))
    assert solution.certificate.violation == 0
    assert abs(solution.certificate.objective - layer.loss(point)) <= 1e-11 * layer.magnitude(point)


@pytest.mark.parametrize("damping", [0.01, 1.0])
def test_sparsity_zero_with_drift_is_the_damped_minimiser(xp, damping):
    """argmin f(V) + ridge/2 |V - W|^2, ridge = damping * mean(diag G): error correction alone."""
    layer = normal_layer(44, 60, 12, 4, condition=30.0, drift=0.3)
    gram = layer.inputs.T @ layer.inputs
    ridge = damping * np.mean(np.diag(gram))
    expected = np.linalg.solve(gram + ridge * np.eye(12), layer.inputs.T @ layer.outputs + ridge * layer.weight.T).T
    for pattern in (TopK(0.0), NM(4, 4)):
        solution = sparsegpt(layer.problem(xp), pattern, damping=damping)
        close(xp.numpy(solution.weights), expected, rtol=1e-10)
    assert np.max(np.abs(expected - layer.weight)) > 1e-3
    plain = Layer(layer.inputs, layer.weight)
    np.testing.assert_array_equal(xp.numpy(sparsegpt(plain.problem(xp), TopK(0.0)).weights), layer.weight)


@pytest.mark.parametrize("pattern", [TopK(0.5), NM(2, 4)], ids=str)
def test_with_drift_the_sweep_starts_there(xp, pattern):
    layer = normal_layer(45, 60, 12, 4, condition=30.0, drift=0.3)
    gram = layer.inputs.T @ layer.inputs
    ridge = 0.01 * np.mean(np.diag(gram))
    start = np.linalg.solve(gram + ridge * np.eye(12), layer.inputs.T @ layer.outputs + ridge * layer.weight.T).T
    chosen = {"pattern": (2, 4)} if isinstance(pattern, NM) else {"sparsity": 0.5}
    expected = obs_sweep(gram, start, damping=0.01, **chosen)
    close(xp.numpy(sparsegpt(layer.problem(xp), pattern).weights), expected)


@pytest.mark.parametrize("tokens, dead", [(30, 2), (5, 0), (1, 0)])
def test_a_singular_gram_without_damping(xp, tokens, dead):
    """Dead channels, or fewer tokens than channels: the damping is raised and the solution says so."""
    layer = normal_layer(46, tokens, 10, 3, dead=dead)
    solution = sparsegpt(layer.problem(xp), TopK(0.5), damping=0.0)
    point = xp.numpy(solution.weights)
    assert solution.status is Status.DAMPED and 0 < solution.detail["damping"] <= 1e-4
    assert np.sum(point == 0) == 15 and np.max(np.abs(point)) <= 100 * np.max(np.abs(layer.weight))
    assert solution.certificate.relative_error <= 1.0


@pytest.mark.parametrize("seed", range(5))
def test_singular_by_integers_without_damping(xp, seed):
    """Exactly dependent channels of small integers: a pivot of rounding size is not positive definite either."""
    rng = np.random.default_rng(seed)
    inputs = rng.integers(-3, 4, size=(12, 6)).astype(float)
    inputs = inputs @ rng.integers(-2, 3, size=(6, 9))
    layer = Layer(inputs, rng.normal(size=(3, 9)))
    solution = sparsegpt(layer.problem(xp), TopK(0.5), damping=0.0)
    assert solution.status is Status.DAMPED and solution.detail["damping"] > 0
    assert solution.certificate.relative_error <= 1.0
    assert np.max(np.abs(xp.numpy(solution.weights))) <= 100 * np.max(np.abs(layer.weight))


def test_damping_zero_on_a_definite_gram_is_direct(xp):
    layer = normal_layer(47, 40, 8, 3)
    solution = sparsegpt(layer.problem(xp), TopK(0.5), damping=0.0)
    assert solution.status is Status.DIRECT and solution.detail["damping"] == 0
    close(xp.numpy(solution.weights), obs_sweep(layer.inputs.T @ layer.inputs, layer.weight, damping=0.0, sparsity=0.5))


def test_dead_channels_cost_nothing(xp):
    layer = normal_layer(48, 40, 10, 4, dead=3)
    dead = ~np.any(layer.inputs, axis=0)
    solution = sparsegpt(layer.problem(xp), TopK(0.5, per_row=True))
    live = sparsegpt(Layer(layer.inputs[:, ~dead], layer.weight[:, ~dead]).problem(xp), TopK(0.5), damping=0.007)
    assert solution.status is Status.DIRECT
    assert np.all(np.isfinite(xp.numpy(solution.weights))) and live.status is Status.DIRECT
    assert np.sum(xp.numpy(solution.weights) == 0) == 20


def test_all_inputs_zero(xp):
    problem = Quadratic(xp.asarray(np.zeros((4, 4))), xp.asarray(np.arange(8.0).reshape(2, 4) + 1))
    for pattern in (TopK(0.5), NM(2, 4)):
        solution = sparsegpt(problem, pattern)
        point = xp.numpy(solution.weights)
        assert solution.status is Status.DIRECT and np.sum(point == 0) == 4
        np.testing.assert_array_equal(point[point != 0], (np.arange(8.0) + 1).reshape(2, 4)[point != 0])
        assert solution.certificate.objective == 0
    assert sparsegpt(problem, TopK(0.5), damping=0.0).status is Status.DAMPED


def test_diagonal_gram_prunes_by_the_wanda_score(xp):
    """Channels that do not interact: nothing to compensate, and the cost of a weight is w^2 G_jj / 2."""
    rng = np.random.default_rng(49)
    diagonal, weight = rng.uniform(0.1, 10, size=8), rng.normal(size=(3, 8))
    problem = Quadratic(xp.asarray(np.diag(diagonal)), xp.asarray(weight))
    point = xp.numpy(sparsegpt(problem, TopK(0.5, per_row=True), damping=0.0).weights)
    kept = np.argsort(-(weight**2) * diagonal, axis=1)[:, :4]
    expected = np.zeros_like(weight)
    np.put_along_axis(expected, kept, np.take_along_axis(weight, kept, axis=1), axis=1)
    np.testing.assert_array_equal(point, expected)


def test_float32(xp):
    layer = normal_layer(50, 200, 48, 8, condition=30.0)
    solution = sparsegpt(layer.problem(xp, "float32"), TopK(0.5), block=16)
    assert solution.weights.dtype == xp.dtype("float32")
    point = xp.numpy(solution.weights)
    gram = layer.inputs.T @ layer.inputs
    close(point, obs_sweep(gram, layer.weight, damping=0.01, sparsity=0.5, block=16), rtol=1e-4)
    assert np.sum(point == 0) == point.size // 2


def test_an_indefinite_gram_is_damped_until_it_is_not(xp):
    """Eigenvalues 2, 2 and -1: a ridge above 1 is needed, and tenfold steps from 0.01 arrive at 10 (1 leaves a zero)."""
    problem = Quadratic(xp.asarray(2 * np.eye(3) - 1), xp.asarray(np.array([[1.0, -1.0, 0.0]])))
    solution = sparsegpt(problem, TopK(0.5))
    assert solution.status is Status.DAMPED and solution.detail["damping"] == pytest.approx(10)


def test_the_problem_is_left_alone(xp):
    layer = normal_layer(51, 30, 8, 3, drift=0.2)
    problem = layer.problem(xp)
    before = [xp.numpy(array).copy() for array in (problem.gram, problem.anchor, problem.slope)]
    sparsegpt(problem, TopK(0.5), block=3)
    for array, expected in zip((problem.gram, problem.anchor, problem.slope), before):
        np.testing.assert_array_equal(xp.numpy(array), expected)


@pytest.mark.parametrize("damping", [1e290, 1e300, 1e308, 1.7e308])
def test_a_damping_that_overflows_is_refused_with_its_number(xp, damping):
    """And one that does not is all there is: then the sweep moves nothing."""
    layer = normal_layer(53, 40, 12, 5)
    for scale in (1.0, 1e4):
        problem = layer.scaled(inputs=scale).problem(xp)
        largest = float(np.max(xp.numpy(problem.diagonal)))
        if damping > 1.8e308 / largest:
            with pytest.raises(
                ValueError, match=rf"a damping of {damping:g} times the mean .* overflows float64".replace("+", r"\+")
            ):
                sparsegpt(problem, TopK(0.5), damping=damping)
        elif damping < 0.5e308 / largest:
            solution = sparsegpt(problem, TopK(0.5), damping=damping)
            assert solution.detail["damping"] == damping
            kept = np.abs(layer.weight) >= np.median(np.abs(layer.weight))
            np.testing.assert_allclose(xp.numpy(solution.weights), np.where(kept, layer.weight, 0.0), rtol=1e-12)


@pytest.mark.parametrize("scale", [1e150, 1e152, 1e153])
def test_huge_inputs_end(xp, scale):
    """Their squares are at the end of float64: in an answer, or in a sentence that says so."""
    layer = normal_layer(54, 40, 12, 5).scaled(inputs=scale)
    for method in (lambda problem: sparsegpt(problem, TopK(0.5)), lambda problem: sparsegpt(problem, TopK(0.5), damping=0.0)):
        with np.errstate(all="ignore"):
            try:
                solution = method(layer.problem(xp))
            except ValueError as error:
                assert "overflow" in str(error)
            else:
                assert np.sum(xp.numpy(solution.weights) == 0) == 30


def test_a_singular_gram_is_damped_until_it_is_not(xp):
    """What must not go on for ever ends at the first tenfold that is enough."""
    inputs = np.ones((3, 6))
    solution = sparsegpt(Quadratic.from_data(xp.asarray(inputs), xp.asarray(np.ones((2, 6)))), TopK(0.5), damping=0.0)
    assert solution.status is Status.DAMPED and 0 < solution.detail["damping"] <= 1e-6


def test_bad_arguments(xp):
    problem = normal_layer(52, 12, 6, 2).problem(xp)
    for options in ({"damping": -0.1}, {"block": 0}):
        with pytest.raises(
            ValueError, match=r"damping must be in \[0, inf\) but is -0.1|block must be a whole number of at least 1"
        ):
            sparsegpt(problem, TopK(0.5), **options)
    with pytest.raises(ValueError, match=r"pattern 2:4 needs a multiple of 4 inputs but weight is \(2, 6\)"):
        sparsegpt(problem, NM(2, 4))
