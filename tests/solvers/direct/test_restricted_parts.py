"""How least squares on a support is computed: shared factorisations, batches, starts, conjugate gradients, and the parts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from least_squares import answer, close, least_change, random_mask
from rounding import rounding_of_loss, rounding_of_solve

from gramian.proofs.kit.strategies import Layer, layers, normal_layer
from gramian.solvers import Quadratic, refit
from gramian.solvers.backend import _xp
from gramian.solvers.backend.lapack import solve_cholesky
from gramian.solvers.direct import factorised, gradients, restricted
from gramian.solvers.direct.gradients import Rates

# -- supports ----------------------------------------------------------------------------------------------------------


def test_rows_that_share_supports_are_rows_like_any_other(xp, monkeypatch):
    """Two supports shared, one row alone, one empty, one full: as when each row is solved by itself, and in any order."""
    monkeypatch.setattr(factorised, "least_norm", None)  # all regular: no row may need more than its factorisation
    layer, drawn = normal_layer(66, 50, 12, 9, condition=30.0, drift=0.2), random_mask(66, (9, 12))
    mask = drawn[[0, 1, 0, 2, 1, 0, 3, 4, 1]]
    mask[6], mask[7] = False, True
    point, _ = answer(xp, layer, mask)
    for row in range(9):
        alone = Layer(layer.inputs, layer.weight[[row]], layer.dense)
        close(point[[row]], answer(xp, alone, mask[[row]])[0], rtol=1e-11)
    order = np.random.default_rng(0).permutation(9)
    moved, _ = answer(xp, Layer(layer.inputs, layer.weight[order], layer.dense), mask[order])
    close(moved, point[order], rtol=1e-11)
    close(point, least_change(layer, mask)[0], rtol=1e-10)


@pytest.mark.parametrize("size", [0, 1, 2000, 10**5])
def test_batches_of_any_size(xp, monkeypatch, size):
    layer, mask = normal_layer(68, 40, 16, 11, drift=0.2), random_mask(68, (11, 16))
    mask[3], mask[7] = mask[5], False
    whole, _ = answer(xp, layer, mask)
    monkeypatch.setattr(factorised, "BATCH_BYTES", size)
    monkeypatch.setattr(factorised, "least_norm", None)
    bundles = factorised.bundled(mask, factorised.BATCH_BYTES)
    assert sorted(np.concatenate([rows.reshape(-1) for rows, _ in bundles])) == list(range(11))
    assert all(largest == mask[rows].sum(axis=2).max() for rows, largest in bundles)
    assert len(bundles) == {0: 10, 1: 10, 2000: 6, 10**5: 2}[size]
    close(answer(xp, layer, mask)[0], whole, rtol=rounding_of_solve(layer.inputs.T @ layer.inputs, 16**0.5))


# -- a start -----------------------------------------------------------------------------------------------------------


@given(layer=layers(scales=(1.0,)), data=st.data(), dtype=st.sampled_from(["float32", "float64"]))
def test_never_worse_than_the_start(xp, layer: Layer, data, dtype):
    mask = data.draw(arrays(bool, layer.weight.shape), label="mask")
    problem = layer.problem(xp, dtype)
    best = refit(problem, xp.asarray(mask)).weights
    noise = np.random.default_rng(0).normal(size=mask.shape) * data.draw(st.sampled_from([0, 1e-16, 1e-8, 1.0]), label="noise")
    start = xp.asarray(np.where(mask, xp.numpy(best) + noise, 0.0), dtype)
    again = refit(problem, xp.asarray(mask), start=start).weights
    exact, (new, old) = problem.double, (xp.asarray(xp.numpy(point), "float64") for point in (again, start))
    losses, least = xp.numpy(exact.row_losses(new)), xp.numpy(exact.row_losses(old))
    assert again.dtype == xp.dtype(dtype) and np.all(losses <= least)
    kept = losses == least
    np.testing.assert_array_equal(xp.numpy(again)[kept], xp.numpy(start)[kept])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_never_worse_than_plain_pruning(xp, dtype):
    """Channels that are orthogonal to rounding have nothing to make up for, and rounding must not make it worse."""
    layer, mask = normal_layer(77, 40, 12, 30, condition=1.0), random_mask(77, (30, 12))
    problem = layer.problem(xp, dtype)
    weights, exact = refit(problem, xp.asarray(mask)).weights, problem.double
    plain = np.where(mask, xp.numpy(problem.anchor), 0.0)
    losses = xp.numpy(exact.row_losses(xp.asarray(xp.numpy(weights), "float64")))
    assert np.all(losses <= xp.numpy(exact.row_losses(xp.asarray(plain, "float64"))))
    changed = np.any(xp.numpy(weights) != plain, axis=1)
    assert not np.all(changed)


def test_a_float32_start_that_rounding_cannot_beat(xp):
    """Of the float32 weights around the least-squares ones, some are better than those got by rounding every weight."""
    layer, mask = normal_layer(71, 40, 8, 1, condition=300.0, drift=0.3), random_mask(71, (1, 8), 0.8)
    problem = layer.problem(xp, "float32")
    exact = Quadratic(*(np.asarray(xp.numpy(a), float) for a in (problem.gram, problem.anchor, problem.slope, problem.floor)))
    rounded = xp.numpy(refit(problem, xp.asarray(mask)).weights)
    start, gained = rounded.copy(), True
    while gained:  # one weight at a time to its neighbour above or below
        tried = np.stack(
            [
                np.nextafter(start, end) * where + start * ~where
                for where in np.eye(8, dtype=bool)[mask[0], None]
                for end in np.float32([-9, 9])
            ]
        )
        losses = [exact.loss(near.astype(float)) for near in tried]
        gained = min(losses) < exact.loss(start.astype(float))
        start = tried[np.argmin(losses)] if gained else start
    assert np.any(start != rounded)
    np.testing.assert_array_equal(xp.numpy(refit(problem, xp.asarray(mask), start=xp.asarray(start)).weights), start)


def test_a_start_keeps_its_row_on_a_tie(xp):
    """Duplicate channels and a start that fits as well as anything can: nothing is gained by leaving it."""
    problem = Quadratic(xp.asarray(np.ones((2, 2))), xp.asarray([[2.0, 3.0], [2.0, 3.0]]))
    start = xp.asarray([[5.0, 0.0], [7.0, 0.0]])
    point = xp.numpy(refit(problem, xp.asarray(np.ones((2, 2), dtype=bool)), start=start).weights)
    np.testing.assert_array_equal(point, [[5, 0], [2, 3]])


# -- conjugate gradients -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens, condition", [(60, 10.0), (60, 300.0), (12, 10.0)])
def test_conjugate_gradients_agree(xp, monkeypatch, tokens, condition):
    """Regular and, with fewer tokens than channels, singular supports; an empty one; equal and different ones."""
    layer, mask = normal_layer(72, tokens, 24, 8, condition=condition, drift=0.1), random_mask(72, (8, 24), 0.8)
    mask[2], mask[5] = False, mask[4]
    point, solution = answer(xp, layer, mask)
    for place in ("PROCESSOR", "DEVICE"):
        monkeypatch.setattr(gradients, place, Rates(factor=1e-9, product=1e30, step=0.0, entry=0.0))
    monkeypatch.setattr(restricted, "least_change", None)
    other, iterated = answer(xp, layer, mask)
    close(other, point, rtol=1e-6)
    close(other, least_change(layer, mask)[0], rtol=1e-6)
    assert iterated.certificate.objective == pytest.approx(
        solution.certificate.objective, rel=1e-10, abs=rounding_of_loss(layer, point)
    )
    assert iterated.certificate.residual <= 1e-9


def test_conjugate_gradients_end_row_by_row(xp):
    """A row that is done must not go on while others are not: on a singular support it would walk off along the null
    space. Six channels of rank five beside thirty of condition 1e8."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        low = rng.normal(size=(100, 5)) @ rng.normal(size=(5, 6))
        inputs = np.hstack([low, normal_layer(seed, 100, 30, 1, condition=1e4).inputs])
        layer = Layer(inputs, rng.normal(size=(2, 36)), inputs + 0.1 * rng.normal(size=inputs.shape))
        mask = np.zeros((2, 36), dtype=bool)
        mask[0, :6] = mask[1, 6:34] = True
        plain, (work, scale) = np.where(mask, layer.weight, 0.0), layer.problem(xp).rescaled()
        gradient = np.where(mask, xp.numpy(work.gradient(xp.asarray(plain) * scale)), 0.0)
        dear = np.full(2, np.inf)  # to factorise
        change, done = gradients.conjugate_gradients(work.gram, xp.asarray(mask), xp.asarray(gradient), dear)
        assert done[0]
        found = plain + xp.numpy(change / scale)
        close(found[0], least_change(layer, mask)[0][0], rtol=1e-7)
        residual = np.where(mask, gradient + xp.numpy(change @ work.gram), 0.0)
        assert np.all(np.linalg.norm(residual, axis=1) <= 1e-8 * np.linalg.norm(gradient, axis=1))


@pytest.mark.parametrize("regular", [True, False])
def test_rows_that_stall_are_factorised(xp, regular, monkeypatch):
    """Gradients begin, and their pace on condition 1e6 tells that they would take longer."""
    layer, mask = normal_layer(75, 90 if regular else 30, 60, 6, condition=1e3), random_mask(75, (6, 60), 0.7)
    point, solution = answer(xp, layer, mask)
    seen = []

    def counted(*args, **options):
        seen.append(gradients_of(*args, **options))
        return seen[-1]

    gradients_of = restricted.conjugate_gradients
    rates = Rates(factor=1e4, product=6e5 if regular else 2e3, step=0.0, entry=0.0)
    monkeypatch.setattr(gradients, "PROCESSOR", rates)
    monkeypatch.setattr(gradients, "DEVICE", rates)
    monkeypatch.setattr(gradients, "FEWEST", 0)
    monkeypatch.setattr(gradients, "PLAIN", 0)
    monkeypatch.setattr(restricted, "conjugate_gradients", counted)
    monkeypatch.setattr(restricted, "promising", lambda *_: True)
    monkeypatch.setattr(gradients, "WASTE", np.inf)
    other, mixed = answer(xp, layer, mask)
    assert len(seen) == 1 and not seen[0][1].all()
    close(other, point, rtol=1e-6)
    assert mixed.status is solution.status and mixed.certificate.residual <= 1e-10


def test_the_inverse_of_a_regular_matrix_alone(xp):
    layer = normal_layer(76, 40, 12, 3, condition=100.0)
    work = layer.problem(xp).rescaled()[0]
    close(xp.numpy(gradients.regular_inverse(work.gram)), np.linalg.inv(xp.numpy(work.gram)), rtol=1e-8)
    for tokens, dead in ((5, 0), (40, 1)):
        work = normal_layer(77, tokens, 12, 3, dead=dead).problem(xp).rescaled()[0]
        assert gradients.regular_inverse(work.gram) is None


def test_what_is_chosen_follows_from_what_it_costs():
    """On a processor layers are factorised; on a GPU rows of different supports are not, unless they are few and narrow."""
    gram, rows = np.eye(640), np.arange(256)[:, None]
    seconds = gradients.row_seconds(gram, [(rows, 320)])
    assert seconds.shape == (256,) and not gradients.gradients_pay(gram, seconds, True)
    shared = gradients.row_seconds(gram, [(rows.T, 320)])
    assert shared.sum() == pytest.approx(seconds[0])
    assert gradients.expected_steps(10, 1e-6) == pytest.approx(10) and gradients.expected_steps(10, 1.5) == np.inf


@pytest.mark.parametrize("condition, worth", [(3.0, True), (1e3, False)])
def test_a_few_rows_show_whether_gradients_pay(xp, condition, worth, monkeypatch):
    """Rates at which some 60 steps cost as much as the factorisations: well conditioned layers take fewer, others more."""
    layer, mask = normal_layer(78, 400, 60, 12, condition=condition), random_mask(78, (12, 60), 0.5)
    mask[0] = False
    work = layer.problem(xp).rescaled()[0]
    inverse = gradients.regular_inverse(work.gram)
    gradient = work.gradient(xp.asarray(np.where(mask, layer.weight, 0.0)) * layer.problem(xp).unit_scale)
    gradient = xp.asarray(np.where(mask, xp.numpy(gradient), 0.0))
    rates = Rates(factor=1.0, product=1.0, step=1.0, entry=0.0)
    monkeypatch.setattr(gradients, "step_seconds", lambda *_: 1.0)
    for place in ("PROCESSOR", "DEVICE"):
        monkeypatch.setattr(gradients, place, rates)
    assert gradients.promising(work.gram, xp.asarray(mask), gradient, np.full(12, 5.0), inverse) is worth


def test_an_inverse_has_to_be_worth_its_time():
    """However few steps gradients take: where the inverse alone takes a tenth of the factorisations, they are made."""
    gram, rows = np.eye(2048), np.arange(6400)[:, None]
    seconds = gradients.row_seconds(gram, [(rows, 1024)])
    assert gradients.gradients_pay(gram, seconds, True) and not gradients.gradients_pay(gram, seconds[:320], True)


# -- parts and errors --------------------------------------------------------------------------------------------------


def test_what_a_cholesky_solve_is_given(xp):
    """The right-hand side stays as it is, a single column too, and arrays that LAPACK would overrun are refused."""
    right = xp.asarray(np.array([[[1.0], [2.0]]]))
    found, positive = _xp.solve_positive(xp.asarray(np.array([[[2.0, 0.0], [0.0, 4.0]]])), right)
    assert bool(positive[0])
    np.testing.assert_allclose(xp.numpy(found), [[[0.5], [0.5]]], rtol=1e-14)
    np.testing.assert_array_equal(xp.numpy(right), [[[1.0], [2.0]]])
    for wrong in (np.ones((1, 3)), np.ones((1, 2), dtype=np.float32), np.ones((2, 2, 2))[:, :, 0]):
        with pytest.raises(ValueError, match="no C-ordered array beside"):
            solve_cholesky(np.eye(2), wrong)


def test_solve_positive(xp):
    """One indefinite, one zero and one with NaN among positive definite ones: a flag each, and the others solved."""
    rng = np.random.default_rng(74)
    factors = rng.normal(size=(5, 6, 4))
    matrices, right = np.swapaxes(factors, 1, 2) @ factors, rng.normal(size=(5, 4, 3))
    matrices[1] -= 20 * np.eye(4)
    matrices[3] = 0.0
    found, positive = _xp.solve_positive(xp.asarray(matrices), xp.asarray(right))
    np.testing.assert_array_equal(xp.numpy(positive), [True, False, True, False, True])
    for k in (0, 2, 4):
        close(xp.numpy(found)[k], np.linalg.solve(matrices[k], right[k]), rtol=1e-10)
    for k in (0, 3):
        one, positive = _xp.solve_positive(xp.asarray(matrices[[k]]), xp.asarray(right[[k]], "float64"))
        assert tuple(one.shape) == (1, 4, 3) and xp.numpy(positive).tolist() == [k == 0]
    single, positive = _xp.solve_positive(xp.asarray(matrices[[0, 2]], "float32"), xp.asarray(right[[0, 2]], "float32"))
    assert single.dtype == xp.dtype("float32") and np.all(xp.numpy(positive))
    close(xp.numpy(single)[1], np.linalg.solve(matrices[2], right[2]), rtol=1e-3)


def test_principals(xp):
    matrix, chosen = np.arange(25.0).reshape(5, 5), np.array([[0, 3], [4, 1], [2, 2]])
    expected = np.stack([matrix[np.ix_(k, k)] for k in chosen])
    np.testing.assert_array_equal(xp.numpy(_xp.principals(xp.asarray(matrix), xp.asarray(chosen))), expected)


def test_the_problem_is_left_alone(xp):
    layer, mask = normal_layer(75, 6, 8, 4, drift=0.2), random_mask(75, (4, 8), 0.9)
    mask[:2] = True
    problem, chosen, start = layer.problem(xp), xp.asarray(mask), xp.asarray(np.zeros((4, 8)))
    arrays_before = [xp.numpy(array).copy() for array in (problem.gram, problem.anchor, problem.slope, chosen, start)]
    refit(problem, chosen, start=start)
    for array, expected in zip((problem.gram, problem.anchor, problem.slope, chosen, start), arrays_before):
        np.testing.assert_array_equal(xp.numpy(array), expected)


def test_bad_arguments(xp):
    problem = normal_layer(76, 12, 6, 2).problem(xp)
    mask = xp.asarray(np.arange(12).reshape(2, 6) % 3 > 0)
    with pytest.raises(ValueError, match=r"the mask is \(2, 5\) but the problem's weight is \(2, 6\)"):
        refit(problem, mask[:, :5])
    with pytest.raises(ValueError, match="boolean mask"):
        refit(problem, xp.asarray(np.ones((2, 6))))
    with pytest.raises(ValueError, match=r"must be \(2, 6\) and zero wherever the mask is False"):
        refit(problem, mask, start=xp.asarray(np.full((2, 6), 1e-300)))
    with pytest.raises(ValueError, match=r"must be \(2, 6\) and zero"):
        refit(problem, mask, start=xp.asarray(np.zeros((1, 6))))
