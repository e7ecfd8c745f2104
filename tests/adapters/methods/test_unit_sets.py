"""What can be removed, what it costs, how much is removed of each module, and compensation, by direct computations."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import SHAPES, VOCABULARY, tiny_model
from transformers import AutoConfig, AutoModelForCausalLM

from gramian.adapters.methods.allocation import kept_counts, reachable, select_units
from gramian.adapters.methods.compensation import Output, compensate
from gramian.adapters.methods.types import ScoreContext, UnitScores
from gramian.adapters.methods.unit_methods import UNIT_METHODS
from gramian.adapters.methods.unit_sets import UnitSet, magnitudes, unit_set_of
from gramian.adapters.models.shrink import count_parameters, shrink_model
from gramian.adapters.models.unit_groups import unit_groups_of
from gramian.adapters.models.units import operator
from gramian.proofs.kit.strategies import normal_layer
from gramian.solvers import MaskProblem, Moments, Quadratic, allocate, newton_score, relaxed_mask

SHAPED = [("llama", 4), ("llama", 2), ("llama", 1), ("gpt2", 4), ("opt", 4), ("gemma3_text", 2)]


def model_of(model_type: str, groups: int):
    shape = SHAPES[model_type] | ({"num_key_value_heads": groups} if "num_key_value_heads" in SHAPES[model_type] else {})
    torch.manual_seed(groups)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **shape, vocab_size=VOCABULARY))


@pytest.mark.parametrize("heads", ["groups", "per_kv_group"])
@pytest.mark.parametrize(("model_type", "groups"), SHAPED)
def test_a_removable_costs_and_weighs_what_is_removed_with_it(model_type, groups, heads):
    dense = model_of(model_type, groups)
    for name, unit_group in list(unit_groups_of(dense).items())[:2]:
        unit_set = unit_set_of(dense, unit_group, heads)
        preference = np.random.default_rng(0).normal(size=len(unit_set.scored))
        assert unit_set.kept(preference, unit_set.removable).tolist() == list(range(unit_group.units))
        sizes = [
            count_parameters(dense, {name: unit_set.kept(preference, count)}) for count in range(1, unit_set.removable + 1)
        ]
        assert np.diff(sizes).tolist() == [unit_set.cost] * (unit_set.removable - 1)
        assert reachable([unit_set], [0], [1]) == sizes[-1] - sizes[0]
        if unit_set.mixed:  # the scores determine what a removable consists of
            continue
        for power in (1, 2):
            last = np.delete(np.arange(unit_group.units), unit_set.scored[-1])
            model = copy.deepcopy(dense)
            shrink_model(model, {name: last})
            whole = [sum(float((tensor.double().abs() ** power).sum()) for tensor in matrices(each)) for each in (dense, model)]
            assert magnitudes(dense, unit_set, power)[-1] == pytest.approx(whole[0] - whole[1], rel=1e-9)


def matrices(model):
    names = {
        f"{unit_group.block}.{path}"
        for unit_group in unit_groups_of(model).values()
        for path, _ in unit_group.structure.producers
    }
    return [operator(model, name).weight.detach() for name in names | set(unit_groups_of(model))]


def test_removables_of_grouped_heads():
    unit_group = next(iter(unit_groups_of(tiny_model("llama")).values()))  # four heads in two groups
    unit_set = UnitSet(unit_group, np.arange(4)[:, None], True, 10)
    assert unit_set.removable == 2 and unit_set.mixed
    assert unit_set.grouped([1.0, 2.0, 5.0, 4.0]).tolist() == [[1, 2], [0, 3]]
    assert unit_set.kept(np.array([1.0, 2.0, 5.0, 4.0]), 1).tolist() == [1, 2]
    assert unit_set.kept(np.array([3.0, 3.0, 0.0, 0.0]), 1).tolist() == [0, 2]  # among equals the first
    assert unit_set.of_removable(np.array([1.0, 2.0, 5.0, 4.0]), np.array([1.0, 2.0, 5.0, 4.0])).tolist() == [3.5, 2.5]
    whole = UnitSet(unit_group, np.arange(4).reshape(2, 2), False, 10)
    assert whole.removable == 2 and whole.kept(np.array([0.0, 1.0]), 1).tolist() == [2, 3]


def test_the_mask_problem_of_removables_is_that_of_their_heads():
    unit_group = next(iter(unit_groups_of(tiny_model("llama")).values()))
    layer = normal_layer(3, 50, 32, 6, drift=0.1)
    heads = MaskProblem.from_problem(layer.problem(np), groups=4)
    for unit_set in (UnitSet(unit_group, np.arange(4)[:, None], True, 7), UnitSet(unit_group, np.arange(4)[:, None], False, 7)):
        preference = np.array([0.3, 0.1, 0.2, 0.9])
        problem = unit_set.problem(heads, preference)
        assert problem.units == unit_set.removable and problem.total == 7 * unit_set.removable
        for flags in itertools.product([False, True], repeat=unit_set.removable):
            heads_of = unit_set.grouped(preference) if unit_set.mixed else np.arange(4)
            kept = np.isin(np.arange(4), heads_of[np.array(flags)])
            assert problem.value(np.array(flags)) == pytest.approx(heads.value(kept), rel=1e-10)


# -- how much is removed of each module ---------------------------------------------------------------------------------------

modules = st.lists(st.tuples(st.integers(2, 6), st.sampled_from([1, 3, 10, 40])), min_size=1, max_size=4)


@given(shapes=modules, seed=st.integers(0, 99), portion=st.floats(0.01, 1.0), tied=st.booleans())
def test_kept_counts(shapes, seed, portion, tied):
    generator = np.random.default_rng(seed)
    ranked = [generator.integers(0, 3, n).astype(float) if tied else generator.normal(size=n) for n, _ in shapes]
    costs = [cost for _, cost in shapes]
    most = sum((n - 1) * cost for n, cost in shapes)
    removal = portion * most
    none, one = [0] * len(shapes), [1] * len(shapes)
    counts = kept_counts(ranked, costs, none, removal, one)
    assert all(1 <= count <= n for count, (n, _) in zip(counts, shapes))
    removed = sum((n - count) * cost for count, (n, cost) in zip(counts, shapes))
    assert removal <= removed < removal + max(costs)
    cheap = min(costs)
    if any(count > 1 for count, cost in zip(counts, costs) if cost == cheap):
        assert removed < removal + cheap
    if len(set(costs)) == 1:  # then the ranking alone decides: what was removed is worth no more than what could have been
        gone = [value for values, count in zip(ranked, counts) for value in np.sort(values)[: len(values) - count]]
        rest = [value for values, count in zip(ranked, counts) for value in np.sort(values)[len(values) - count : -1]]
        assert not gone or not rest or max(gone) <= min(rest)
    more = kept_counts(ranked, costs, none, min(most, removal + max(costs)), one)
    assert sum((n - count) * cost for count, (n, cost) in zip(more, shapes)) >= removed


def test_biases_that_are_added_are_removed_on_top():
    ranked, costs = [np.arange(5.0), np.arange(5.0) + 10], [10, 10]
    assert kept_counts(ranked, costs, [0, 0], 20, [1, 1]) == [3, 5]
    assert kept_counts(ranked, costs, [4, 4], 20, [1, 1]) == [2, 5]
    assert kept_counts(ranked, costs, [4, 4], 42, [1, 1]) == [1, 4]
    assert kept_counts(ranked, costs, [4, 4], 43, [1, 1]) == [1, 3]
    assert kept_counts(ranked, costs, [0, 0], 30, [3, 1]) == [3, 4]
    assert reachable([], [], []) == 0


def unit_sets_of_sizes(*sizes: int) -> list[UnitSet]:
    unit_groups = [unit_group for unit_group in unit_groups_of(tiny_model("gemma3_text")).values() if unit_group.size == 1]
    return [UnitSet(unit_group, np.arange(size)[:, None], False, 5) for unit_group, size in zip(unit_groups, sizes)]


def test_allocations():
    unit_sets = unit_sets_of_sizes(8, 16)
    orders = [np.random.default_rng(seed).permutation(n).astype(float) for seed, n in ((0, 8), (1, 16))]
    scored = [UnitScores(orders[0] + 100, relative=orders[0]), UnitScores(orders[1], relative=orders[1] + 6)]
    bias_costs = [0, 0]
    equal = select_units(unit_sets, scored, [], 30, "equal", bias_costs, given=(7, 11))
    assert list(equal.counts.values()) == [7, 11] and equal.detail == {}
    by_score = select_units(unit_sets, scored, [], 30, "score", bias_costs)
    assert list(by_score.counts.values()) == [8, 10]
    by_error = select_units(unit_sets, scored, [], 30, "loss", bias_costs)
    assert list(by_error.counts.values()) == [2, 16]
    for selection in (equal, by_score, by_error):
        for unit_set, one in zip(unit_sets, scored):
            kept = selection.keep[unit_set.name]
            assert len(kept) == selection.counts[unit_set.name]
            assert set(kept) == set(np.argsort(-one.scores)[: len(kept)])


def test_the_joint_relaxation_says_how_many_and_the_method_says_which():
    unit_sets = unit_sets_of_sizes(6, 9)
    problems = [MaskProblem.from_problem(normal_layer(seed, 40, width, 4).problem(np)) for seed, width in ((0, 6), (1, 9))]
    costed = [MaskProblem(p.matrix, p.linear, p.constant, np.full(p.units, 5.0)) for p in problems]
    joint = allocate(costed, 5.0 * 10)
    relaxed = select_units(unit_sets, [UnitScores(None), UnitScores(None)], problems, 25, "loss", [0, 0])
    assert [len(kept) for kept in relaxed.keep.values()] == [int(mask.sum()) for mask in joint.masks]
    for kept, mask in zip(relaxed.keep.values(), joint.masks):
        assert kept.tolist() == np.flatnonzero(mask).tolist()
    assert relaxed.detail["mask_error"] == pytest.approx(joint.certificate.objective)
    assert relaxed.detail["mask_bound"] == pytest.approx(joint.certificate.bound)
    assert relaxed.detail["rounding"] == pytest.approx(joint.rounding)
    scores = [np.arange(6.0), np.arange(9.0)]
    ordered = select_units(unit_sets, [UnitScores(each) for each in scores], problems, 25, "loss", [0, 0])
    assert ordered.counts == relaxed.counts
    assert all(kept.tolist() == list(range(n - len(kept), n)) for n, kept in zip((6, 9), ordered.keep.values()))
    masks = [np.isin(np.arange(n), kept) for n, kept in zip((6, 9), ordered.keep.values())]
    direct = sum(problem.value(mask) / problem.energy for problem, mask in zip(problems, masks))
    assert ordered.detail["mask_error"] == pytest.approx(direct)


# -- scores ------------------------------------------------------------------------------------------------------------


def context(inputs: np.ndarray, weight: np.ndarray, count: int, **changed) -> ScoreContext:
    problem = Quadratic.from_data(inputs, weight)
    seen = {"problem": problem, "mean": inputs.mean(axis=0), "tokens": len(inputs), "keep": 0.75, "damping": 0.1}
    known = {"position": 0, "count": count, "cost": 3.0, "magnitudes": lambda power: np.ones(count)}
    return ScoreContext(**(known | seen | changed))


def scored(name: str, module: ScoreContext, **options) -> UnitScores:
    return UNIT_METHODS[name].tried(options)(module)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("count", [12, 4, 1])
def test_scores_from_data(count, scale):
    generator = np.random.default_rng(1)
    inputs, weight = scale * (generator.normal(size=(9, 12)) + generator.normal(size=12)), generator.normal(size=(5, 12))
    inputs[:, 3] = 0
    module = context(inputs, weight, count)
    wanda = sum(np.abs(weight[i]) * np.linalg.norm(inputs, axis=0) for i in range(5))
    np.testing.assert_allclose(scored("wanda-sp", module).scores, wanda.reshape(count, -1).sum(axis=1), rtol=1e-9)
    fluctuation = inputs.var(axis=0) * (weight**2).sum(axis=0)
    standard = (fluctuation - fluctuation.mean()) / fluctuation.std()
    np.testing.assert_allclose(scored("flap", module).scores, standard.reshape(count, -1).mean(axis=1), rtol=1e-6, atol=1e-6)
    found = scored("numerical", module, score="newton", penalty=2.0)
    channels = MaskProblem.from_problem(Quadratic.from_data(inputs / np.linalg.norm(inputs, 2), weight))
    z = newton_score(channels, 9.0, penalty=2.0).keep
    np.testing.assert_allclose(found.scores, z.reshape(count, -1).mean(axis=1), rtol=1e-5, atol=1e-6)
    box = scored("numerical", module, score="box")
    units = MaskProblem.from_problem(module.inputs(), groups=count)
    np.testing.assert_allclose(box.scores, relaxed_mask(units, 0.75 * count).keep, atol=1e-6)
    assert scored("numerical", context(inputs, weight, count, jointly=True), score="box").scores is None


@pytest.mark.parametrize("count", [6, 3])
def test_compensated_prices_are_rises_of_the_refitted_error(count):
    """The price of the cheapest unit is the rise of the least-squares loss on the others, per parameter."""
    generator = np.random.default_rng(2)
    inputs, weight = generator.normal(size=(40, 6)) @ generator.normal(size=(6, 6)), generator.normal(size=(4, 6))
    one = scored("numerical", context(inputs, weight, count, damping=0.0))
    size = 6 // count
    losses = []
    for unit in range(count):
        kept = np.delete(np.arange(6), np.arange(unit * size, (unit + 1) * size))
        fit = np.linalg.lstsq(inputs[:, kept], inputs @ weight.T, rcond=None)[0]
        losses.append(0.5 * ((inputs[:, kept] @ fit - inputs @ weight.T) ** 2).sum())
    first = int(np.argmin(one.scores))
    assert first == int(np.argmin(losses))
    assert one.scores[first] <= losses[first] / 3.0 * (1 + 1e-6)  # a hull may be lower than its first step
    energy = 0.5 * ((inputs @ weight.T) ** 2).sum()
    np.testing.assert_allclose(one.relative, one.scores / energy, rtol=1e-9)
    assert len(set(one.scores)) == count


def test_dead_modules_score():
    for name, method in UNIT_METHODS.items():
        if method.gather is not None:  # then the statistics are the scores
            continue
        for inputs, weight in ((np.zeros((5, 4)), np.ones((2, 4))), (np.ones((5, 4)), np.zeros((2, 4)))):
            one = method.tried({})(context(inputs, weight, 4))
            assert one.scores is not None and np.isfinite(one.scores).all(), name


# -- compensation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drift", [0.0, 0.3])
def test_the_loss_of_weights_and_bias(xp, drift):
    layer = normal_layer(4, 30, 6, 3, drift=drift)
    star, dense, weight = layer.inputs + 0.5, (layer.inputs if layer.dense is None else layer.dense) + 0.5, layer.weight
    moments = Moments(6)
    moments.update(xp.asarray(star), xp.asarray(dense) if drift else None)
    output = Output(Quadratic.from_moments(moments, xp.asarray(weight)), moments)
    columns = np.array([True, False, True, True, False, True])
    for how, expected in (("none", weight * columns), ("bias", weight * columns)):
        answer = compensate(output, columns, how, 0.3)
        np.testing.assert_allclose(xp.numpy(answer.weights), expected)
        error = star @ expected.T - dense @ weight.T
        if how == "bias":
            np.testing.assert_allclose(xp.numpy(answer.bias), -error.mean(axis=0), rtol=1e-9)
            error = error - error.mean(axis=0)
        relative = (error**2).sum() / ((dense @ weight.T) ** 2).sum()
        assert output.relative_error(answer.weights, answer.bias) == pytest.approx(relative, rel=1e-9)
    answer = compensate(output, columns, "weights", 0.3)
    ridge = np.diag(np.sqrt(0.3 * (star**2).sum(axis=0)))[np.ix_(columns, columns)]
    wanted = np.vstack([dense @ weight.T, ridge @ weight[:, columns].T])
    expected = np.linalg.lstsq(np.vstack([star[:, columns], ridge]), wanted, rcond=None)[0].T
    np.testing.assert_allclose(xp.numpy(answer.weights)[:, columns], expected, rtol=1e-8, atol=1e-10)
    assert not xp.numpy(answer.weights)[:, ~columns].any() and answer.bias is None


def test_sums_over_tokens(xp):
    layer = normal_layer(5, 24, 4, 2, drift=0.2)
    halves = []
    for half in (slice(0, 10), slice(10, 24)):
        moments = Moments(4)
        moments.update(xp.asarray(layer.inputs[half]), xp.asarray(layer.dense[half]))
        halves.append(moments)
    both = halves[0].merged(halves[1])
    np.testing.assert_allclose(xp.numpy(both.total), layer.inputs.sum(axis=0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(xp.numpy(both.shift), (layer.inputs - layer.dense).sum(axis=0), rtol=1e-10, atol=1e-12)
    weighted, times = Moments(4), np.arange(24) % 3
    weighted.update(xp.asarray(layer.inputs), xp.asarray(layer.dense), weights=xp.asarray(times))
    np.testing.assert_allclose(xp.numpy(weighted.total), times @ layer.inputs, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(xp.numpy(weighted.shift), times @ (layer.inputs - layer.dense), rtol=1e-10, atol=1e-12)
    plain = Moments(4)
    plain.update(xp.asarray(layer.inputs))
    assert plain.shift is None and plain.total.dtype == xp.dtype("float64")
