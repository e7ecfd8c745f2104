"""Mask problems, budgets, and cutting to 0/1, against definitions and enumeration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mask_instances import all_masks, costs, from_matrix, from_paper

from gramian.proofs.kit.strategies import Layer, layers, normal_layer, scores
from gramian.solvers.units.mask import Budget, MaskProblem, keep_within, threshold
from gramian.solvers.units.newton import newton_score

INFINITY = float("inf")


# -- the loss ------------------------------------------------------------------------------------------------------------


@given(layer=layers(), data=st.data())
def test_value_is_the_loss_of_the_masked_weights(xp, layer: Layer, data):
    problem = MaskProblem.from_problem(layer.problem(xp))
    width = layer.weight.shape[1]
    mask = np.array(data.draw(st.lists(st.sampled_from([0.0, 1.0, 0.3, -2.0]), min_size=width, max_size=width), label="z"))
    rounding = 1e-12 * (layer.magnitude(layer.weight * mask) + layer.magnitude(layer.weight))
    assert abs(problem.value(xp.asarray(mask)) - layer.loss(layer.weight * mask)) <= rounding
    assert abs(problem.energy - layer.energy) <= rounding
    boolean = mask > 0.5
    assert abs(problem.value(xp.asarray(boolean)) - layer.loss(layer.weight * boolean)) <= rounding


@given(layer=layers(scales=(1.0,)), data=st.data(), heads=st.integers(1, 3))
def test_groups_are_heads_that_share_a_variable(xp, layer: Layer, data, heads):
    size = layer.weight.shape[1]
    copies = [np.concatenate([array * (k + 1) for k in range(heads)], axis=1) for array in (layer.inputs, layer.weight)]
    dense = None if layer.dense is None else np.concatenate([layer.dense * (k - 1) for k in range(heads)], axis=1)
    wide = Layer(*copies, dense)
    problem = MaskProblem.from_problem(wide.problem(xp), heads)
    mask = np.array(data.draw(st.lists(st.sampled_from([0.0, 1.0, 0.3]), min_size=heads, max_size=heads), label="z"))
    weights = wide.weight * np.repeat(mask, size)
    assert problem.units == heads
    assert abs(problem.value(xp.asarray(mask)) - wide.loss(weights)) <= 1e-11 * (1 + wide.magnitude(weights) + wide.energy)


def test_a_group_count_that_does_not_divide(xp):
    problem = normal_layer(1, 10, 6, 2).problem(xp)
    assert MaskProblem.from_problem(problem, 3).units == 3
    for groups in (4, 0, -1):
        with pytest.raises(ValueError, match=f"6 channels do not divide into {groups} groups"):
            MaskProblem.from_problem(problem, groups)


def test_costs_are_given_per_unit_or_once(xp):
    problem = normal_layer(2, 10, 6, 2).problem(xp)
    assert MaskProblem.from_problem(problem).total == 6
    assert MaskProblem.from_problem(problem, 2, 12.0).total == 24
    assert MaskProblem.from_problem(problem, 2, xp.asarray(np.array([3, 4]))).total == 7


@pytest.mark.parametrize("kind, order", [("spectral", 2), ("frobenius", "fro")])
def test_normalised_inputs(xp, kind, order):
    layer = normal_layer(3, 12, 5, 3, drift=0.1)
    plain = MaskProblem.from_problem(layer.problem(xp))
    unit = MaskProblem.from_problem(layer.scaled(inputs=7.0).problem(xp), normalise=kind)
    mask = xp.asarray(np.array([1.0, 0.0, 0.2, 1.0, 0.7]))
    assert unit.value(mask) == pytest.approx(plain.value(mask) / np.linalg.norm(layer.inputs, order) ** 2, rel=1e-10)
    assert unit.energy == pytest.approx(plain.energy / np.linalg.norm(layer.inputs, order) ** 2, rel=1e-10)
    with pytest.raises(ValueError, match="normalise is 'spectral', 'frobenius' or None but got 'rows'"):
        MaskProblem.from_problem(layer.problem(xp), normalise="rows")


def test_float32_layers_are_judged_in_float64(xp):
    layer = normal_layer(4, 40, 12, 6)
    single = MaskProblem.from_problem(layer.problem(xp, "float32"), cost=xp.asarray(np.ones(12), "float32"))
    double = MaskProblem.from_problem(layer.problem(xp))
    assert single.matrix.dtype == single.cost.dtype == xp.dtype("float64")
    close = newton_score(double, 6.0, penalty=INFINITY)
    score = newton_score(single, 6.0, penalty=INFINITY)
    assert score.keep.dtype == xp.dtype("float64")
    np.testing.assert_allclose(xp.numpy(score.keep), xp.numpy(close.keep), atol=1e-3)


def parts(xp, **changes):
    valid = {"matrix": np.eye(3), "linear": np.zeros(3), "cost": np.ones(3)} | changes
    return {name: xp.asarray(array) for name, array in valid.items()} | {"constant": 0.0}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"matrix": np.ones((3, 2))}, r"matrix must be square but is \(3, 2\)"),
        ({"linear": np.ones(2)}, r"matrix has 3 units but linear is \(2,\)"),
        ({"cost": np.ones((3, 1))}, r"matrix has 3 units but cost is \(3, 1\)"),
        ({"matrix": np.eye(3, dtype=np.float32)}, "matrix is .*float32 but mask problems are in float64"),
        ({"linear": np.array([0, np.nan, 0])}, "linear holds NaN or Inf"),
        ({"cost": np.array([1.0, 0.0, 1.0])}, "every unit must have a positive cost"),
        ({"matrix": np.array([[1.0, 2, 0], [0, 1, 0], [0, 0, 1]])}, "matrix is not symmetric"),
        ({"matrix": -np.eye(3)}, "not positive semidefinite"),
    ],
)
def test_bad_parts_are_named(xp, changes, message):
    MaskProblem(**parts(xp))
    with pytest.raises(ValueError, match=message):
        MaskProblem(**parts(xp, **changes))


def test_bad_arguments_name_both_sides(xp):
    problem = from_matrix(xp, np.eye(3))
    for budget in (-0.1, 3.1, float("nan")):
        with pytest.raises(ValueError, match="a budget must be between 0 and 3, the cost of all units"):
            Budget(budget, 3.0)
    for penalty in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="a penalty must be positive"):
            Budget(1.0, 3.0, penalty)
    with pytest.raises(ValueError, match=r"the mask is \(2,\) but the problem has 3 units"):
        problem.value(xp.asarray(np.ones(2)))
    assert Budget(3 * (1 + 1e-15), 3.0).target == 0  # a sum that rounded up is no error


# -- cutting to 0/1 ------------------------------------------------------------------------------------------------------


@given(score=scores(rows=1), data=st.data())
def test_masks_meet_their_budget_to_within_one_unit(xp, score, data):
    score = score[0]
    cost = costs(data, len(score))
    kept_before = np.zeros(len(score), dtype=bool)
    for share in (0.0, 0.2, 0.5, 0.8, 1.0):
        budget = share * float(np.sum(cost))
        mask = xp.numpy(keep_within(xp.asarray(score), xp.asarray(cost), budget))
        spent = float(mask @ cost)
        assert spent <= budget * (1 + 1e-12)
        assert spent > budget - np.max(cost) * (1 + 1e-12) or np.all(mask)
        assert np.all(mask >= kept_before)  # nested
        kept_before = mask
        ranking = np.lexsort((np.arange(len(score)), -score))  # largest first, among equals the first
        np.testing.assert_array_equal(mask[ranking], np.sort(mask)[::-1])


@given(score=scores(rows=1), data=st.data())
def test_equal_costs_count_units(xp, score, data):
    kept = data.draw(st.integers(0, len(score[0])), label="kept")
    unit = data.draw(st.sampled_from([1.0, 0.1, 3e6]), label="cost")
    mask = xp.numpy(keep_within(xp.asarray(score[0]), xp.asarray(np.full(len(score[0]), unit)), kept * unit))
    assert np.sum(mask) == kept
    np.testing.assert_array_equal(np.sort(score[0][mask]), np.sort(score[0])[len(mask) - kept :])


def test_a_budget_that_rounding_made_short_of_a_unit(xp):
    cost = xp.asarray(np.full(10, 0.1))
    budget = (1 - 0.9) * 1.0
    assert budget < 0.1
    assert np.sum(xp.numpy(keep_within(cost, cost, budget))) == 1


def test_bad_scores(xp):
    ones = xp.asarray(np.ones(2))
    with pytest.raises(ValueError, match="NaN"):
        keep_within(xp.asarray(np.array([1.0, np.nan])), ones, 1.0)
    with pytest.raises(ValueError, match=r"scores are \(3,\) but costs are \(2,\)"):
        keep_within(xp.asarray(np.ones(3)), ones, 1.0)


@pytest.mark.parametrize("penalty", [0.5, 1.0, 30.0])
def test_what_a_penalty_adds_to_a_gap(penalty):
    """penalty / 2 e^2 - price e + price^2 / (2 penalty): zero at the price that the excess e makes, else positive."""
    budget = Budget(1.0, 3.0, penalty)
    for excess, price in ((0.3, 0.2), (-0.4, 0.7), (0.0, 1.0)):
        conjugate = 0.5 * penalty * excess**2 - price * excess + price**2 / (2 * penalty)
        assert budget.gap(excess, price) == pytest.approx(conjugate, rel=1e-12) and conjugate > 0
        assert budget.gap(excess, penalty * excess) == 0 and Budget(1.0, 3.0).gap(excess, price) == -price * excess
        assert budget.violation(excess) == 0 and Budget(1.0, 3.0).violation(excess) == abs(excess) / 3


@pytest.mark.parametrize(
    "inputs, loss, best",
    [
        ([[-1, -2, -1], [0, -1, -1], [1, -2, -1]], 1.5, 1.0),
        ([[2, 0, -2], [1, 0, -2], [-2, -1, 2]], 4.5, 0.5),
    ],
)
def test_the_order_of_the_score_is_not_the_best_order(xp, inputs, loss, best):
    problem = from_paper(xp, inputs, [1, 1, 1])
    choice = threshold(problem, newton_score(problem, 2.0, penalty=INFINITY))
    least = min(problem.value(xp.asarray(mask)) for mask in all_masks(3) if np.sum(mask) == 2)
    assert choice.certificate.objective == pytest.approx(loss) and least == pytest.approx(best)
    assert choice.cost == 2 and choice.certificate.bound <= best
    assert choice.rounding == pytest.approx(loss - problem.value(newton_score(problem, 2.0, penalty=INFINITY).keep))


def test_diagonal_problems_are_thresholded_optimally(xp):
    """Orthogonal inputs: the score orders by a_j, and cutting it is optimal for every count."""
    rng = np.random.default_rng(10)
    problem = from_matrix(xp, np.diag(rng.uniform(0.1, 5.0, size=8)))
    masks = all_masks(8)
    values = np.array([problem.value(xp.asarray(mask)) for mask in masks])
    for kept in range(9):
        choice = threshold(problem, newton_score(problem, float(kept), penalty=1.0))
        assert choice.certificate.objective == pytest.approx(np.min(values[np.sum(masks, axis=1) == kept]), abs=1e-12)
