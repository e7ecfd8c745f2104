"""Regression problems against their definition on the data: far from zero, weighted, sparse, in blocks, to the last digits."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rounding import rounding
from scipy import sparse

from gramian.solvers import L1, Quadratic, TargetMoments, certify, lasso


def rows_of(seed: int, count: int, width: int, targets: int, far: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs and targets as far from zero as that, and weights."""
    rng = np.random.default_rng(seed)
    inputs = far + rng.normal(size=(count, width))
    return inputs, far * 3 + rng.normal(size=(count, targets)), rng.uniform(0.5, 2, size=count)


def exact_moments(inputs, targets, weights):
    """Centred Gram, products and squares in rational arithmetic."""
    X, Y, c = (
        [[Fraction(float(entry)) for entry in row] for row in np.atleast_2d(array)] for array in (inputs, targets, weights)
    )
    c, n = c[0], sum(c[0])
    means = [[sum(w * row[j] for w, row in zip(c, rows)) / n for j in range(len(rows[0]))] for rows in (X, Y)]
    X, Y = ([[entry - mean for entry, mean in zip(row, middle)] for row in rows] for rows, middle in zip((X, Y), means))

    def product(A, B):
        return np.array(
            [[float(sum(w * a[i] * b[j] for w, a, b in zip(c, A, B))) for j in range(len(B[0]))] for i in range(len(A[0]))]
        )

    return product(X, X), product(Y, X), np.diag(product(Y, Y))


def moments_of(xp, inputs, targets, weights, cuts=()):
    moments = TargetMoments(inputs.shape[1], targets.shape[1])
    for part in zip(*(np.split(array, cuts) for array in (inputs, targets, weights))):
        if len(part[0]):
            moments.update(*map(xp.asarray, part))
    return moments


@pytest.mark.parametrize("far", [0.0, 1e8])
@pytest.mark.parametrize("cuts", [(), (1, 2, 20), (13,)])
def test_moments_of_data_far_from_zero_keep_their_digits(xp, far, cuts):
    """A sum of squares minus a squared mean would be off by far^2 u, which is one here: as much as the Gram itself."""
    inputs, targets, weights = rows_of(0, 24, 4, 2, far)
    expected = exact_moments(inputs, targets, weights)
    found = [xp.numpy(array) for array in moments_of(xp, inputs, targets, weights, cuts).sums(True)]
    sizes = np.sqrt(np.diag(expected[0])), np.sqrt(expected[2])
    for array, right, size in zip(found, expected, (np.outer(sizes[0], sizes[0]), np.outer(sizes[1], sizes[0]), expected[2])):
        assert np.all(np.abs(array - right) <= rounding(8 * (24 + 8), size))


def test_merged_moments_are_apart_from_what_they_were_made_of(xp):
    data = [xp.asarray(array) for array in rows_of(9, 5, 2, 1)]
    one = TargetMoments(2)
    one.update(*data)
    for both in (one.merged(TargetMoments(2)), TargetMoments(2).merged(one), one.merged(one)):
        before = [xp.numpy(array).copy() for array in one.sums(True)]
        both.update(*data)
        assert one.rows == 5 and all(np.array_equal(a, xp.numpy(b)) for a, b in zip(before, one.sums(True)))


@given(seed=st.integers(0, 99), cut=st.integers(1, 11), far=st.sampled_from([0.0, -1e3, 1e6]))
def test_moments_add_up_however_rows_are_split(xp, seed, cut, far):
    data = rows_of(seed, 12, 3, 2, far)
    whole, split = moments_of(xp, *data), moments_of(xp, *data, (cut,))
    merged = moments_of(xp, *(part[:cut] for part in data)).merged(moments_of(xp, *(part[cut:] for part in data)))
    gram, cross, energy = (xp.numpy(array) for array in whole.sums(True))
    size = np.sqrt(np.diag(gram)), np.sqrt(energy)
    for other in (split, merged):
        assert other.rows == 12 and other.weight == pytest.approx(whole.weight, rel=1e-14)
        for one, two, most in zip(
            (gram, cross, energy), other.sums(True), (np.outer(size[0], size[0]), np.outer(*size[::-1]), energy)
        ):
            assert np.all(np.abs(one - xp.numpy(two)) <= rounding(8 * 20, most))


def test_a_constant_feature_is_dead_and_not_of_rounding_errors(xp):
    inputs, targets, weights = rows_of(1, 30, 3, 1)
    inputs[:, 1] = 0.1
    gram = xp.numpy(moments_of(xp, inputs, targets, weights, (7, 19)).sums(True)[0])
    assert not gram[1].any() and not gram[:, 1].any() and gram[0, 0] > 1
    problem = Quadratic.from_targets(xp.asarray(inputs), xp.asarray(targets), intercept=True)
    assert xp.numpy(lasso(problem, L1(0.1)).weights)[0, 1] == 0


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_and_its_gradient_are_those_of_the_definition(xp, intercept, weighted):
    inputs, targets, weights = rows_of(2, 40, 5, 3, far=2.0)
    given_weights = xp.asarray(weights) if weighted else None
    problem = Quadratic.from_targets(xp.asarray(inputs), xp.asarray(targets), weights=given_weights, intercept=intercept)
    point, c = np.random.default_rng(3).normal(size=(3, 5)), weights if weighted else np.ones(40)
    residual = targets - inputs @ point.T
    if intercept:  # the best one for this point
        residual -= c @ residual / c.sum()
    expected = 0.5 * c @ residual**2
    size = 0.5 * c @ (np.abs(targets) + np.abs(inputs) @ np.abs(point).T) ** 2
    losses, gradient = problem.value_and_gradient(xp.asarray(point))
    assert np.all(np.abs(xp.numpy(losses) - expected) <= rounding(8 * 64, size))
    slope = -(residual * c[:, None]).T @ inputs
    assert np.all(np.abs(xp.numpy(gradient) - slope) <= rounding(8 * 64, np.sqrt(2 * size)[:, None] * np.sqrt(c @ inputs**2)))


def test_one_target_may_be_a_vector_and_inputs_whole_numbers(xp):
    rng = np.random.default_rng(4)
    inputs, targets = rng.integers(-5, 5, size=(30, 4)), rng.integers(-5, 5, size=30)
    vector = Quadratic.from_targets(xp.asarray(inputs), xp.asarray(targets))
    matrix = Quadratic.from_targets(xp.asarray(inputs * 1.0), xp.asarray(targets[:, None] * 1.0))
    assert vector.shape == (1, 4)
    point = xp.asarray(rng.normal(size=(1, 4)))
    assert vector.loss(point) == matrix.loss(point)


def test_lists_and_data_frames_are_taken():
    pandas = pytest.importorskip("pandas")
    inputs, targets, weights = rows_of(10, 12, 3, 1)
    expected = Quadratic.from_targets(inputs, targets[:, 0], weights=weights)
    for given_inputs, given_targets in (
        (inputs.tolist(), targets[:, 0].tolist()),
        (pandas.DataFrame(inputs, columns=["a", "b", "c"]), pandas.Series(targets[:, 0])),
    ):
        found = Quadratic.from_targets(given_inputs, given_targets, weights=weights.tolist())
        size = np.sqrt(np.diag(expected.gram))  # a data frame may lie by columns, whose products are rounded otherwise
        assert np.all(np.abs(found.gram - expected.gram) <= rounding(8 * 24, np.outer(size, size)))
        assert found.energy == pytest.approx(expected.energy, rel=1e-12)


def test_the_intercept_is_recovered_from_the_moments(xp):
    inputs, _, weights = rows_of(5, 50, 3, 1, far=1e3)
    targets = inputs @ np.array([[2.0, 0.0, -1.0]]).T + 7
    moments = moments_of(xp, inputs, targets, weights, (20,))
    solution = lasso(Quadratic.from_target_moments(moments, intercept=True), L1(1e-9))
    assert np.allclose(xp.numpy(solution.weights), [[2, 0, -1]], atol=1e-8)
    assert np.allclose(xp.numpy(moments.intercept(solution.weights)), 7, atol=1e-5)


def test_rows_of_weight_zero_may_hold_anything(xp):
    inputs, targets, weights = rows_of(6, 20, 3, 1)
    weights[::3] = 0
    clean = Quadratic.from_targets(
        *(xp.asarray(array[weights > 0]) for array in (inputs, targets)), weights=xp.asarray(weights[weights > 0])
    )
    inputs[::3], targets[::3] = np.nan, np.inf
    padded = Quadratic.from_targets(xp.asarray(inputs), xp.asarray(targets), weights=xp.asarray(weights))
    assert np.array_equal(xp.numpy(clean.gram), xp.numpy(padded.gram))
    assert np.array_equal(xp.numpy(clean.slope), xp.numpy(padded.slope))


@given(seed=st.integers(0, 99), share=st.sampled_from([0.05, 0.4, 0.9]), far=st.sampled_from([0.0, 1e7]))
def test_sparse_inputs_are_like_dense_ones(seed, share, far):
    """With columns that are filled and far from zero, as a date beside words would be."""
    rng = np.random.default_rng(seed)
    dense = np.where(rng.random((30, 6)) < share, rng.normal(size=(30, 6)), 0)
    dense[:, 2] = far + rng.normal(size=30)
    dense[:, 4] = far
    targets, weights = rng.normal(size=(30, 2)), rng.uniform(0.5, 2, size=30)
    for matrix in (sparse.csr_array(dense), sparse.csc_matrix(dense), sparse.coo_array(dense)):
        for intercept in (False, True):
            found, expected = (
                Quadratic.from_targets(each, targets, weights=weights, intercept=intercept) for each in (matrix, dense)
            )
            scale = np.sqrt(np.diag(expected.gram)) + 1e-300
            assert np.all(np.abs(found.gram - expected.gram) <= rounding(8 * 64, np.outer(scale, scale)))
            point = rng.normal(size=(2, 6)) / scale
            size = np.sum(np.abs(point - expected.anchor) * scale, axis=1) ** 2 + expected.at_zero[0]
            assert np.all(np.abs(found.row_losses(point) - expected.row_losses(point)) <= rounding(8 * 64, size))
            if intercept:
                assert found.gram[4, 4] == 0


def test_sparse_inputs_are_never_dense_as_a_whole():
    count, width = 400_000, 500  # dense 1.6 GB
    rng = np.random.default_rng(7)
    places = rng.integers(0, width, size=(2, count))
    matrix = sparse.csr_array((np.ones(2 * count), (np.tile(np.arange(count), 2), places.ravel())), shape=(count, width))
    tracemalloc.start()
    problem = Quadratic.from_targets(matrix, np.asarray(matrix.sum(axis=1)).ravel(), intercept=True)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 150e6
    assert problem.loss(np.ones((1, width))) <= rounding(count, float(count))


def test_a_good_fit_keeps_its_digits():
    """The noise is 1e-7 of the targets, so that f is 1e-14 of f(0), and of the difference of moments two digits are left."""
    rng = np.random.default_rng(8)
    inputs = rng.normal(size=(200, 10))
    exact = rng.normal(size=(1, 10))
    noise = 1e-7 * rng.normal(size=(200, 1))
    targets = inputs @ exact.T + noise
    problem = Quadratic.from_targets(inputs, targets)
    point = exact + 1e-8 * rng.normal(size=(1, 10))
    residual = [
        sum(Fraction(x) * Fraction(v) for x, v in zip(row, point[0])) - Fraction(y) for row, y in zip(inputs, targets[:, 0])
    ]
    expected = float(sum(entry**2 for entry in residual) / 2)
    assert problem.loss(point) == pytest.approx(expected, rel=1e-6)  # targets are rounded to 1e-16, residuals are 1e-7
    solution = lasso(problem, L1(1e-9 * float(np.max(np.abs(problem.at_zero[1])))), tol=1e-7)
    assert solution.certificate.relative_gap <= 1e-7
    streamed = TargetMoments(10)
    streamed.update(inputs, targets)
    raw = Quadratic.from_target_moments(streamed)
    assert abs(raw.loss(point) - expected) > 1e-3 * expected  # what is streamed once does not know it
    assert certify(raw, L1(1e-6), point).bound <= expected  # but does not say that it did


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((np.ones((5, 2)), np.ones(4)), "same N"),
        ((np.ones(5), np.ones(5)), "must be"),
        ((np.ones((5, 2)), np.ones((5, 1, 1))), "must be"),
        ((np.array([[np.nan, 1.0]]), np.ones(1)), "inputs hold NaN"),
        ((np.ones((1, 2)), np.array([np.inf])), "targets hold NaN"),
        ((np.ones((5, 2)), np.ones(5), np.ones(4)), "one weight for each of 5 rows"),
        ((np.ones((2, 2)), np.ones(2), np.array([1.0, -1.0])), "at least zero"),
        ((np.ones((2, 2)), np.ones(2), np.zeros(2)), "no rows"),
        ((np.ones((2, 2)) * 1j, np.ones(2)), "complex"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Quadratic.from_targets(*arguments[:2], weights=arguments[2] if len(arguments) > 2 else None)


def test_a_refused_batch_changes_nothing():
    moments = TargetMoments(2)
    moments.update(np.eye(2), np.ones(2))
    before = [array.copy() for array in moments.sums(True)]
    with pytest.raises(ValueError, match="NaN"):
        moments.update(np.array([[np.nan, 0.0]]), np.ones(1))
    with pytest.raises(ValueError, match="3 columns"):
        moments.update(np.ones((4, 3)), np.ones(4))
    assert all(np.array_equal(*each) for each in zip(before, moments.sums(True)))
