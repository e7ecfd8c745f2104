"""Greedy removal with refitted weights: against brute force, explicit inverses, refits, cvxpy, hulls by definition."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rounding import rounding_of_loss, rounding_of_solve
from unit_instances import best_losses, magnitude, order_of, refit_objective, refitted_loss

import gramian.solvers.units.compensated as module
from gramian.proofs.kit.models import cvxpy_least_squares
from gramian.proofs.kit.strategies import Layer, from_gram, layers, normal_layer
from gramian.solvers import MaskProblem, greedy_removal, keep_within, newton_score, removal_path, threshold, unit_support

# -- the choice --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3])
@given(data=st.data())
@settings(max_examples=25)
def test_every_step_removes_the_cheapest_unit(xp, size, data):
    """Singular, dead, duplicated, tied, one row, one column, fewer tokens than channels, scales 1e-6 and 1e6, X* != X."""
    layer = data.draw(layers(tokens=9, inputs=6, multiple=size))
    units = layer.weight.shape[1] // size
    cost = np.array(data.draw(st.lists(st.sampled_from([1.0, 2.0, 30.0]), min_size=units, max_size=units), label="cost"))
    path = greedy_removal(layer.problem(xp), units, xp.asarray(cost))
    left, loss = np.ones(units, dtype=bool), refitted_loss(layer, np.ones(units, dtype=bool))
    rounding = 1e-10 * magnitude(layer)
    slack = rounding + 10 * path.detail["ridge"] * magnitude(layer)
    assert abs(path.least - loss) <= rounding
    for unit, after in zip(order_of(xp, path), xp.numpy(path.losses)):
        rivals = {u: (refitted_loss(layer, left & (np.arange(units) != u)) - loss) / cost[u] for u in np.flatnonzero(left)}
        assert rivals[unit] <= min(rivals.values()) + slack / np.min(cost)
        left[unit] = False
        loss = refitted_loss(layer, left)
        assert abs(after - loss) <= rounding


@pytest.mark.parametrize("unit", [1e-6, 1.0])
def test_a_channel_that_rounding_makes_of_others_adds_nothing(xp, unit):
    """What is left of a channel is rounding, but more than that of a unit diagonal where large multiples of others cancel it:
    the least loss is zero, and so is every loss on the way."""
    inputs = np.array(
        [[0, 2, 0, -3, 0, 3], [0, 3, 0, 0, 0, 0], [0, -3, 3, 0, 0, 3], [1, 2, 2, -1, 1, 2], [2, 0, -1, 0, 0, -1]], dtype=float
    )
    layer = Layer(unit * inputs, np.eye(6)[1:2], dense=0 * inputs)
    path = greedy_removal(layer.problem(xp), 3)
    assert np.all(xp.numpy(path.losses) <= 1e-10 * magnitude(layer))
    near = np.random.default_rng(3).normal(size=(12, 4))
    near = np.hstack([near, near @ np.array([[30.0], [-40], [50], [-60]])])  # in a Gram whose rounding is 1e4 times that of one
    path = greedy_removal(Layer(unit * near, np.ones((1, 5)), dense=0 * near).problem(xp))
    assert np.all(xp.numpy(path.losses) <= 1e-10 * unit**2)


@pytest.mark.parametrize("groups", [None, 4])
@pytest.mark.parametrize("drift", [0.0, 0.4])
def test_no_better_than_the_best_masks_and_not_much_worse(xp, groups, drift):
    for seed in range(3):
        layer = normal_layer(seed, 20, 8, 3, drift=drift)
        path = greedy_removal(layer.problem(xp), groups)
        best = best_losses(layer, groups or 8)
        losses = np.array([path.loss(count) for count in range(path.units + 1)])
        slack = rounding_of_loss(layer, layer.weight)
        assert slack < 1e-9 * layer.energy
        assert np.all(losses >= best * (1 - 1e-10) - slack)
        assert np.all(losses <= 2 * best + slack)
        np.testing.assert_allclose(losses[[0, -2, -1]], best[[0, -2, -1]], rtol=1e-9, atol=slack)  # one step is exact


def by_inverses(layer: Layer, size: int, cost: np.ndarray) -> np.ndarray:
    """The order of removal, with (G_KK)^-1 and the least-squares weights computed anew for every step."""
    gram, target = layer.inputs.T @ layer.inputs, layer.outputs.T @ layer.inputs
    left, order = list(range(cost.size)), []
    while left:
        kept = np.concatenate([np.arange(u * size, (u + 1) * size) for u in left])
        inverse = np.linalg.inv(gram[np.ix_(kept, kept)])
        weights = target[:, kept] @ inverse
        scores = []
        for place, unit in enumerate(left):
            here = slice(place * size, (place + 1) * size)
            scores.append(np.trace(weights[:, here] @ np.linalg.inv(inverse[here, here]) @ weights[:, here].T) / cost[unit])
        order.append(left.pop(int(np.argmin(scores))))
    return np.array(order)


@pytest.mark.parametrize("size", [1, 5, 70])
@pytest.mark.parametrize("drift", [0.0, 0.1])
def test_blocks_and_late_updates_change_nothing(xp, size, drift):
    layer = normal_layer(3, 300, 140, 7, condition=100.0, drift=drift)
    cost = np.random.default_rng(4).uniform(1, 2, size=140 // size)
    path = greedy_removal(layer.problem(xp), 140 // size, xp.asarray(cost))
    np.testing.assert_array_equal(order_of(xp, path), by_inverses(layer, size, cost))
    assert path.detail == {"ridge": 0, "factorisations": 1}


def test_computing_the_inverse_anew_changes_nothing(monkeypatch):
    layer = normal_layer(5, 300, 140, 7, condition=100.0, drift=0.1)
    path = greedy_removal(layer.problem(np))
    monkeypatch.setattr(module, "ACCURATE", 0.0)
    again = greedy_removal(layer.problem(np))
    np.testing.assert_array_equal(again.order, path.order)
    assert again.detail["factorisations"] == 3


def test_digits_that_were_lost_are_noticed(xp):
    """Pairs that differ by 1e-5: removing one of each leaves 1e-10 of the inverse's entries."""
    base, rng = normal_layer(6, 400, 70, 5), np.random.default_rng(60)
    inputs = np.concatenate([base.inputs, base.inputs + 1e-5 * rng.normal(size=base.inputs.shape)], axis=1)
    layer = Layer(inputs, rng.normal(size=(5, 140)))
    path = greedy_removal(layer.problem(xp))
    order = order_of(xp, path)
    assert path.detail["factorisations"] > 1 and path.detail["ridge"] == 0
    assert len(set(order[:70] % 70)) == 70  # one of each pair first
    last = np.sort(order[70:])
    rest = Layer(inputs[:, last], np.linalg.lstsq(inputs[:, last], layer.outputs, rcond=None)[0].T)
    np.testing.assert_array_equal(last[by_inverses(rest, 1, np.ones(70))], order[70:])


# -- the losses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [None, 24])
@pytest.mark.parametrize("drift", [0.0, 0.1])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_losses_are_those_of_refits(xp, groups, drift, scale):
    layer = normal_layer(7, 250, 96, 10, condition=300.0, drift=drift).scaled(inputs=scale)
    problem = layer.problem(xp)
    path = greedy_removal(problem, groups)
    order_of(xp, path)
    slack = rounding_of_loss(layer, layer.weight)
    assert slack < 1e-8 * problem.energy
    for share in (0, 0.125, 0.5, 0.75, 0.875, 1):
        count = int(share * path.units)
        mask = path.mask(count)
        assert np.sum(xp.numpy(mask)) == count
        assert path.loss(count) == pytest.approx(refit_objective(problem, mask), rel=1e-9, abs=slack)
    assert path.energy == pytest.approx(problem.energy, abs=slack)


@given(layer=layers(tokens=8, inputs=6), seed=st.integers(0, 99))
@settings(max_examples=25)
def test_any_order_has_its_losses(xp, layer: Layer, seed):
    order = np.random.default_rng(seed).permutation(layer.weight.shape[1])
    path = removal_path(layer.problem(xp), xp.asarray(order))
    np.testing.assert_array_equal(order_of(xp, path), order)
    for count in range(order.size + 1):
        kept = np.isin(np.arange(order.size), order[order.size - count :])
        np.testing.assert_array_equal(xp.numpy(path.mask(count)), kept)
        assert abs(path.loss(count) - refitted_loss(layer, kept)) <= 1e-10 * magnitude(layer)


@pytest.mark.parametrize("drift", [0.0, 0.3])
def test_objective_of_cvxpy(drift):
    layer = normal_layer(8, 20, 6, 2, drift=drift)
    path = greedy_removal(layer.problem(np), 3)
    support = np.broadcast_to(np.repeat(path.mask(1), 2), (2, 6))
    least = cvxpy_least_squares(layer.inputs, layer.outputs, support=support)
    assert path.loss(1) == pytest.approx(least, rel=1e-6)


# -- what is known beforehand ------------------------------------------------------------------------------------------


def test_the_mask_that_is_best_without_compensation_is_not_with(xp):
    layer = from_gram([[1, 0.9, 0], [0.9, 1, 0], [0, 0, 0.5]], [1.0, 1.0, 1.0])
    problem = layer.problem(xp)
    masked = MaskProblem.from_problem(problem)
    first = threshold(masked, newton_score(masked, 2.0, penalty=float("inf")))
    assert masked.value(xp.asarray(np.array([True, True, False]))) == pytest.approx(0.25)  # of all masks the best
    assert min(masked.value(xp.asarray(np.arange(3) != unit)) for unit in range(3)) == pytest.approx(0.25)
    path = greedy_removal(problem)
    assert int(order_of(xp, path)[0]) in (0, 1) and path.loss(2) == pytest.approx(0.095)
    assert refit_objective(problem, xp.asarray(np.array([True, True, False]))) == pytest.approx(0.25)
    assert path.loss(2) < refit_objective(problem, first.mask) + 1e-12


@pytest.mark.parametrize("groups", [None, 10])
def test_planted_weights_are_found(xp, groups):
    """W lives on four units of ten and inputs are independent: the other six cost nothing, any further one something."""
    layer, size = normal_layer(9, 90, 30, 4, condition=100.0), 30 // (groups or 30)
    kept = np.isin(np.arange(30 // size), [1, 2, 5, 8])
    layer = Layer(layer.inputs, layer.weight * np.repeat(kept, size))
    path = greedy_removal(layer.problem(xp), groups)
    np.testing.assert_array_equal(xp.numpy(path.mask(4)), kept)
    gram = layer.inputs.T @ layer.inputs
    rest = np.linalg.cond(gram) * rounding_of_solve(gram, 1.0, 90) ** 2  # weights that are zero but for rounding, squared
    assert path.loss(4) <= rest * path.energy < 1e-6 * path.energy < path.loss(3)


def test_more_channels_than_tokens(xp):
    layer = normal_layer(10, 20, 90, 4)
    path = greedy_removal(layer.problem(xp))
    order_of(xp, path)
    assert path.loss(20) <= 1e-12 * path.energy < 1e-6 * path.energy < path.loss(19)
    assert path.detail["ridge"] > 0
    for count in (18, 10, 3):
        assert path.loss(count) == pytest.approx(refitted_loss(layer, xp.numpy(path.mask(count))), rel=1e-9)


def test_dead_channels_go_first_then_those_that_others_make_up_for(xp):
    layer = normal_layer(11, 60, 12, 3, drift=0.1)
    for array in (layer.inputs, layer.dense):
        array[:, [3, 7]] = 0
        array[:, 9] = array[:, 2]
    path = greedy_removal(layer.problem(xp))
    order = order_of(xp, path)
    np.testing.assert_array_equal(order[:2], [3, 7])
    slack = rounding_of_loss(layer, layer.weight)
    assert slack < 1e-8 * path.least
    assert order[2] in (2, 9) and path.loss(9) == pytest.approx(path.least, abs=slack)
    assert path.loss(8) > (1 + 1e-6) * path.least
    grouped = order_of(xp, greedy_removal(layer.permuted(columns=[0, 1, 2, 4, 3, 7, 5, 6, 8, 10, 11, 9]).problem(xp), 6))
    assert grouped[0] == 2
    layer.inputs[:, 3], layer.weight[:, [0, 1]] = 1.0, 0.0
    silent = order_of(xp, greedy_removal(Layer(layer.inputs, layer.weight).problem(xp)))  # weight 0 costs nothing either
    np.testing.assert_array_equal(silent[:3], [7, 0, 1])


def test_no_ridge_where_what_is_left_is_regular(xp):
    layer = normal_layer(16, 200, 70, 3, condition=2.0)
    layer.inputs[:, 9] = layer.inputs[:, 2]
    assert greedy_removal(layer.problem(xp)).detail == {"ridge": 1e-8, "factorisations": 2}


def test_a_layer_without_inputs_and_one_channel(xp):
    path = greedy_removal(Layer(np.zeros((5, 4)), np.ones((2, 4))).problem(xp))
    np.testing.assert_array_equal(order_of(xp, path), np.arange(4))
    assert path.energy == 0 and np.all(np.diff(xp.numpy(path.prices)) > 0)
    path = greedy_removal(Layer(np.ones((3, 1)), np.ones((2, 1))).problem(xp))
    assert path.losses.shape == (1,) and path.energy == pytest.approx(3) and path.least == 0


def test_order_of_channels_and_rows_and_scale_do_not_matter(xp):
    layer, rng = normal_layer(12, 200, 70, 6, drift=0.1), np.random.default_rng(120)
    path = greedy_removal(layer.problem(xp))
    columns = rng.permutation(70)
    moved = greedy_removal(layer.permuted(rows=rng.permutation(6), columns=columns).problem(xp))
    np.testing.assert_array_equal(columns[order_of(xp, moved)], order_of(xp, path))
    np.testing.assert_allclose(xp.numpy(moved.losses), xp.numpy(path.losses), rtol=1e-9)
    np.testing.assert_allclose(xp.numpy(moved.prices), xp.numpy(path.prices)[columns], rtol=1e-8)
    factors = rng.uniform(0.1, 10, size=70)  # X diag(s), W diag(1 / s): the same outputs
    unequal = greedy_removal(layer.scaled(factors, 1 / factors).problem(xp))
    np.testing.assert_array_equal(order_of(xp, unequal), order_of(xp, path))
    for scale in (1e-6, 1e6):
        scaled = greedy_removal(layer.scaled(inputs=scale).problem(xp))
        np.testing.assert_array_equal(order_of(xp, scaled), order_of(xp, path))
        np.testing.assert_allclose(xp.numpy(scaled.losses), scale**2 * xp.numpy(path.losses), rtol=1e-9)
        np.testing.assert_allclose(xp.numpy(scaled.prices), xp.numpy(path.prices), rtol=1e-8)


def test_float32_layers_are_computed_in_float64(xp):
    problem = normal_layer(13, 90, 40, 6, drift=0.1).problem(xp, "float32")
    single, double = (greedy_removal(p, cost=xp.asarray(np.ones(40), "float32")) for p in (problem, problem.double))
    assert single.losses.dtype == single.cost.dtype == single.prices.dtype == xp.dtype("float64")
    np.testing.assert_array_equal(xp.numpy(single.losses), xp.numpy(double.losses))
    few = greedy_removal(normal_layer(14, 20, 60, 4).problem(xp, "float32"))  # not even semidefinite in float32
    order_of(xp, few)
    assert few.loss(20) <= 1e-5 * few.energy


# -- prices ------------------------------------------------------------------------------------------------------------


def lower_hull(losses: np.ndarray, spent: np.ndarray) -> np.ndarray:
    """Slope over each step of the greatest convex function below the points, by its max-min formula."""
    count = losses.size - 1
    chord = lambda a, b: (losses[b] - losses[a]) / (spent[b] - spent[a])  # noqa: E731
    return np.array([max(min(chord(a, b) for b in range(k + 1, count + 1)) for a in range(k + 1)) for k in range(count)])


@given(layer=layers(tokens=9, inputs=8), data=st.data())
@settings(max_examples=25)
def test_prices_are_slopes_of_the_hull_in_the_order_of_removal(xp, layer: Layer, data):
    units = layer.weight.shape[1]
    cost = np.array(data.draw(st.lists(st.sampled_from([1.0, 2.0, 30.0]), min_size=units, max_size=units), label="cost"))
    path = removal_path(layer.problem(xp), data.draw(st.permutations(range(units))), None, xp.asarray(cost))
    order, prices = xp.numpy(path.order), xp.numpy(path.prices)
    losses = np.concatenate([[path.least], xp.numpy(path.losses)]) / (path.energy or 1.0)
    slopes = lower_hull(losses, np.concatenate([[0.0], np.cumsum(cost[order])]))
    np.testing.assert_allclose(prices[order], slopes, rtol=1e-9, atol=1e-9 * np.max(slopes) + 1e-12)
    for factor in (1.0, 1e-9 / 3, 7e9):  # whatever the scores are multiplied by
        assert np.all(np.diff(factor * prices[order]) > 0)
    for share in (0.0, 0.3, 0.5, 0.8, 1.0):
        mask = xp.numpy(path.mask_within(share * float(np.sum(cost))))
        np.testing.assert_array_equal(mask, xp.numpy(path.mask(int(np.sum(mask)))))
        assert cost @ mask <= share * np.sum(cost) * (1 + 1e-8)


def test_one_multiplier_for_many_modules_is_optimal_over_the_hulls():
    paths = [greedy_removal(normal_layer(k, 30, 6 + k, 3).problem(np), cost=1.0 + k) for k in range(3)]
    unit_sets = []  # per module, relative error and cost kept of every mask of its chain
    for path in paths:
        counts = range(path.units + 1)
        unit_sets.append([(path.loss(count) / path.energy, count * float(path.cost[0])) for count in counts])
    for multiplier in (0.001, 0.01, 0.03, 0.1):
        best = min(sum(e + multiplier * c for e, c in chosen) for chosen in product(*unit_sets))
        kept = [int(np.sum(path.prices > multiplier)) for path in paths]
        assert sum(m[k][0] + multiplier * m[k][1] for m, k in zip(unit_sets, kept)) == pytest.approx(best, rel=1e-9)
    for budget in (5.0, 17.0, 30.0):
        mask = keep_within(*(np.concatenate([getattr(path, name) for path in paths]) for name in ("prices", "cost")), budget)
        parts = np.split(mask, np.cumsum([path.units for path in paths])[:-1])
        assert all(np.array_equal(part, path.mask(int(np.sum(part)))) for part, path in zip(parts, paths))


def test_bad_arguments_name_both_sides(xp):
    problem = normal_layer(15, 10, 6, 2).problem(xp)
    for groups in (4, 0, -1):
        with pytest.raises(ValueError, match=f"6 channels do not divide into {groups} groups"):
            greedy_removal(problem, groups)
    for cost in (0.0, float("inf"), xp.asarray(np.ones(5)), xp.asarray(-np.ones(6))):
        with pytest.raises(ValueError, match="costs must be positive, one for each of 6 units"):
            greedy_removal(problem, cost=cost)
    for order in ([0, 1, 2], [0, 1, 2, 3, 4, 4], xp.asarray(np.arange(1, 7))):
        with pytest.raises(ValueError, match="an order must be a permutation of the 6 units"):
            removal_path(problem, order)
    path = removal_path(problem, [2, 0, 1], 3)
    for count in (-1, 4):
        with pytest.raises(ValueError, match=f"between 0 and 3 units, all there are, but is to keep {count}"):
            path.mask(count)
    with pytest.raises(ValueError, match=r"6 channels do not divide into units of a mask \(4,\)"):
        unit_support(xp.asarray(np.ones(4, dtype=bool)), (2, 6))
