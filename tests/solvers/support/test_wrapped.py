"""A S B: planted factors, each factor against numpy's least squares by Kronecker products, and what holds for any layer."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gramian.proofs.kit.strategies import layers, normal_layer
from gramian.solvers import NM, Pattern, Quadratic, TopK, armor, l0_admm, refit
from gramian.solvers.support.block_products import identities, times_left, times_right
from gramian.solvers.support.factor_updates import Factors, Landscape, best_left, best_right, residuals
from gramian.solvers.support.local_search import BEGINNINGS


def block_diagonal(blocks: np.ndarray, length: int) -> np.ndarray:
    size = blocks.shape[1]
    whole = np.zeros((len(blocks) * size,) * 2)
    for place, block in enumerate(blocks):
        whole[place * size : (place + 1) * size, place * size : (place + 1) * size] = block
    return whole[:length, :length]


def factors_near(seed, rows, width, sizes, pattern, spread=0.3):
    """A core of the pattern between wrappers near the identity."""
    random = np.random.default_rng(seed)
    core = random.normal(size=(rows, width))
    core = core * pattern.select(abs(core))
    sides = [identities(length, size, core) for length, size in zip((rows, width), sizes)]
    for side, length in zip(sides, (rows, width)):
        for place, block in enumerate(side):
            count = min(side.shape[1], length - place * side.shape[1])
            block[:count, :count] += spread * random.normal(size=(count, count)) / np.sqrt(count)
    return Factors(core, *sides)


def on(xp, factors: Factors) -> Factors:
    return Factors(*(xp.asarray(each) for each in (factors.core, factors.left, factors.right)))


@pytest.mark.parametrize(("rows", "width", "sizes"), [(6, 8, (3, 4)), (7, 10, (3, 4)), (1, 5, (1, 2)), (4, 4, (4, 4))])
def test_products_are_those_with_the_matrices(xp, rows, width, sizes):
    factors = factors_near(1, rows, width, sizes, TopK(0.3))
    left, right = block_diagonal(factors.left, rows), block_diagonal(factors.right, width)
    there = on(xp, factors)
    np.testing.assert_allclose(xp.numpy(times_left(there.left, there.core)), left @ factors.core, atol=1e-12)
    np.testing.assert_allclose(xp.numpy(times_right(there.core, there.right)), factors.core @ right, atol=1e-12)
    np.testing.assert_allclose(xp.numpy(there.dense()), left @ factors.core @ right, atol=1e-12)
    assert factors.added == np.count_nonzero(left) + np.count_nonzero(right)


@pytest.mark.parametrize(("rows", "width", "sizes"), [(6, 8, (3, 4)), (5, 7, (2, 3))])
def test_each_factor_is_the_least_squares_of_numpy(xp, rows, width, sizes):
    """min |vec(X W^T) - K vec(factor)| with one column of K for every free entry, made by multiplying unit matrices."""
    layer = normal_layer(5, 40, width, rows, condition=10.0)
    problem, factors = layer.problem(xp), factors_near(2, rows, width, sizes, TopK(0.5), spread=0.5)
    left, right = block_diagonal(factors.left, rows), block_diagonal(factors.right, width)
    there, inputs, target = on(xp, factors), layer.inputs, layer.outputs

    def least(free, product) -> float:
        units = []
        for place in np.argwhere(free):
            unit = np.zeros(free.shape)
            unit[tuple(place)] = 1
            units.append((inputs @ product(unit).T).ravel())
        matrix = np.stack(units, axis=1)
        found = np.linalg.lstsq(matrix, target.ravel(), rcond=None)[0]
        return 0.5 * float(np.sum((matrix @ found - target.ravel()) ** 2))

    def of(new: Factors) -> float:
        return problem.loss(new.dense())

    best = least(block_diagonal(np.ones_like(factors.left), rows) > 0, lambda unit: unit @ factors.core @ right)
    assert of(Factors(there.core, best_left(problem, there), there.right)) == pytest.approx(best, rel=1e-9)
    land = Landscape.of(problem, there)
    change = land.change_on(there.core != 0, 400)
    best = least(factors.core != 0, lambda unit: left @ unit @ right)
    assert of(Factors(there.core + change, there.left, there.right)) == pytest.approx(best, rel=1e-8)
    moving = there
    for _ in range(3000 // (rows * width)):  # block after block comes to the joint minimum
        moving = Factors(there.core, there.left, best_right(problem, moving))
    best = least(block_diagonal(np.ones_like(factors.right), width) > 0, lambda unit: left @ factors.core @ unit)
    assert of(moving) == pytest.approx(best, rel=1e-2) and of(moving) >= best * (1 - 1e-9)
    assert residuals(problem, Factors(there.core, best_left(problem, there), there.right))["left_residual"] < 1e-10


@pytest.mark.parametrize("pattern", [NM(2, 4), TopK(0.5, per_row=True)], ids=str)
def test_planted_factors_are_found_from_a_start_near_them(xp, pattern, monkeypatch):
    """W = A S B exactly, and the start is S itself: the sweeps find wrappers with which nearly nothing is lost."""
    planted = factors_near(3, 16, 16, (4, 4), pattern, spread=0.05)
    inputs = np.random.default_rng(4).normal(size=(64, 16))
    problem = Quadratic.from_data(xp.asarray(inputs), xp.asarray(planted.dense()))
    start = lambda problem, pattern: refit(problem, xp.asarray(planted.core != 0))  # noqa: E731
    monkeypatch.setitem(BEGINNINGS, "l0", start)
    found = armor(problem, pattern, block=4, sweeps=200)
    assert found.detail["start_error"] > 1e-4
    assert found.certificate.relative_error < 1e-2 * found.detail["start_error"]
    assert pattern.admits(found.factors.core != 0)


@settings(max_examples=30)
@given(data=st.data())
def test_any_layer(xp, data):
    """Singular, dead, duplicated, tied, one row, one column, fewer tokens than channels, any scale, X* != X, float32."""
    layer = data.draw(layers(inputs=4, multiple=data.draw(st.sampled_from([1, 4]))))
    anywhere: list[Pattern] = [TopK(0.5), TopK(0.3, per_row=True), TopK(0.0), NM(1, 1)]
    pattern = data.draw(st.sampled_from(anywhere + ([NM(2, 4), NM(1, 2)] if layer.weight.shape[1] == 4 else [])))
    start, dtype = data.draw(st.sampled_from(sorted(BEGINNINGS))), data.draw(st.sampled_from(["float64", "float32"]))
    problem = layer.problem(xp, dtype)
    solution = armor(problem, pattern, block=data.draw(st.integers(1, 5)), sweeps=3, warm_start=start)
    weights = xp.numpy(solution.weights)
    assert weights.dtype == dtype and np.all(np.isfinite(weights))
    assert pattern.admits(solution.factors.core != 0) and solution.certificate.violation == 0
    errors = [error for _, error in solution.history]
    assert all(later <= before for before, later in pairwise(errors))
    plain = BEGINNINGS[start](problem, pattern)
    slack = (1e-9 if dtype == "float64" else 1e-4) * problem.double.energy
    assert solution.certificate.objective <= plain.certificate.objective + slack


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_units_change_nothing(scale):
    layer = normal_layer(7, 64, 16, 8, condition=100.0)
    plain = armor(Quadratic.from_data(layer.inputs, layer.weight), NM(2, 4), block=4, sweeps=5)
    scaled = armor(Quadratic.from_data(layer.inputs * scale, layer.weight / scale), NM(2, 4), block=4, sweeps=5)
    np.testing.assert_allclose([e for _, e in scaled.history], [e for _, e in plain.history], rtol=1e-4)


def test_the_wrappers_pay_and_what_they_add_is_said():
    layer = normal_layer(8, 128, 32, 32, condition=100.0)
    problem = layer.problem(np)
    found, plain = armor(problem, "2:4", block=8), l0_admm(problem, "2:4")
    assert found.history[0][1] == pytest.approx(plain.certificate.relative_error, rel=1e-9)
    assert found.certificate.objective < 0.9 * plain.certificate.objective
    assert found.detail["core_zeros"] == 512 and found.detail["wrapper_parameters"] == 2 * 4 * 64
    assert found.detail["left_residual"] < 1e-9
    none = armor(problem, "2:4", sweeps=0)
    np.testing.assert_array_equal(none.weights, plain.weights)


def test_what_is_out_of_range_is_refused():
    problem = normal_layer(9, 20, 8, 4).problem(np)
    for options, says in (({"block": 0}, "block"), ({"sweeps": -1}, "sweeps"), ({"warm_start": "l1"}, "warm_start")):
        with pytest.raises(ValueError, match=says):
            armor(problem, "2:4", **options)
