"""Methods that remove units are held to their laws, ours here, and each law is seen to fail for a defective one."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from defects import is_caught

from gramian.adapters import METHODS, Method, ScoreContext, UnitScores
from gramian.adapters.methods.registry import takes_module
from gramian.adapters.methods.unit_methods import UNIT_METHODS, numerical, wanda_sp
from gramian.adapters.methods.vocabulary import SCORES
from gramian.proofs import laws
from gramian.proofs.kit.strategies import normal_layer
from gramian.proofs.laws.law import Law
from gramian.proofs.laws.unit_methods import UNIT_METHOD_LAWS, UNIT_ORDER_LAWS, Module, Scoring, scores_units
from gramian.solvers.support.baselines import magnitude

MODULE = Module(normal_layer(0, 20, 6, 3), np.ones((6, 2)), count=3)
SCORED = {name: Scoring(method.decide, method.inputs) for name, method in UNIT_METHODS.items() if method.prepare is None} | {
    f"numerical {score}": Scoring(partial(numerical, score=score)) for score in SCORES
}


def each(laws_to_hold: tuple[Law, ...]) -> Any:
    return pytest.mark.parametrize("law", laws_to_hold, ids=lambda law: law.holds.__name__)


@pytest.mark.parametrize("name", SCORED)
@each(UNIT_METHOD_LAWS)
def test_methods(name: str, law: Law):
    law.check(SCORED[name], 25)


@pytest.mark.parametrize("name", [name for name in SCORED if name != "random"])
@each(UNIT_ORDER_LAWS)
def test_methods_without_an_order(name: str, law: Law):
    law.check(SCORED[name], 25)


def test_everything_is_found():
    assert {"numerical", "flap", "wanda-sp", "magnitude-l1", "magnitude-l2", "random"} <= set(SCORED)


def test_a_module_has_all_that_a_method_sees_in_a_run():
    seen = {field.name for field in fields(ScoreContext)} | {"inputs", "per_unit"}
    assert {name for name in vars(ScoreContext) if not name.startswith("_")} <= seen
    assert all(hasattr(MODULE, name) for name in seen)
    real = ScoreContext(0, 3, MODULE.cost, 0.5, MODULE.magnitudes, MODULE.problem, MODULE.mean, MODULE.tokens)
    for method in SCORED.values():
        np.testing.assert_array_equal(method.method(real).scores, method.method(MODULE).scores)


def test_magnitudes_are_those_of_each_unit():
    layer = replace(MODULE.layer, weight=np.arange(12.0).reshape(2, 6) - 3)
    module = replace(MODULE, layer=layer, before=np.full((6, 1), 2.0))
    expected = [sum(abs(v) for v in (-3, -2, 3, 4, 2, 2)), sum((1, 0, 5, 6, 2, 2)), sum((1, 2, 7, 8, 2, 2))]
    np.testing.assert_array_equal(module.magnitudes(1), expected)
    np.testing.assert_array_equal(module.ordered(np.array([2, 0, 1])).magnitudes(1), np.take(expected, [2, 0, 1]))
    assert module.cost == 6


# -- functions told apart ----------------------------------------------------------------------------------------------


class Scorer:
    def __call__(self, module: Any, *, power: int = 1) -> UnitScores:
        return UnitScores(module.magnitudes(power))


@pytest.mark.parametrize(
    "function",
    [
        Scorer(), magnitude, wanda_sp, partial(numerical, score="box"), lambda module, /: module, lambda *both: both,
        lambda module, *more: module, lambda module, power=1: module, lambda problem, pattern, power=1: problem,
        lambda problem=1: problem, lambda module, *, power: module, lambda module, **more: module,
    ],
)  # fmt: skip
def test_functions_are_told_apart_as_a_run_tells_them(function: Any):
    assert scores_units(function) == takes_module(function)


def test_a_method_is_what_it_says():
    for name, method in METHODS.items():
        assert scores_units(method) == (name in UNIT_METHODS or name in ("experts", "depth", "slicegpt"))
    laws.check_method(Scorer(), examples=5)
    laws.check_method(METHODS["wanda-sp"], examples=5)
    laws.check_method(METHODS["magnitude-l1"], examples=5)
    laws.check_method(METHODS["random"], order_matters=True, examples=5)
    laws.check_method(METHODS["magnitude"], examples=2)


def test_methods_that_the_laws_cannot_hold_are_refused():
    with pytest.raises(ValueError, match="gathers something from a whole model"):
        laws.check_method(METHODS["snip"])
    with pytest.raises(ValueError, match="removes whole blocks"):
        laws.check_method(METHODS["depth"])
    with pytest.raises(ValueError, match="narrows the stream"):
        laws.check_method(METHODS["slicegpt"])
    with pytest.raises(ValueError, match="removes whole experts"):
        laws.check_method(METHODS["experts"])
    with pytest.raises(ValueError, match="patterns are for methods of weights"):
        laws.check_method(Scorer(), patterns=object())


def test_a_method_that_says_it_needs_no_inputs_has_none():
    is_caught(partial(laws.check_method, Method(wanda_sp, "units", inputs=False)))


# -- planted defects, by the law that has to catch them ----------------------------------------------------------------


def averages_over_rows_only(module: Any) -> UnitScores:
    """A score for each channel, where a unit is a head."""
    return UnitScores(np.abs(module.inputs().anchor).mean(axis=0))


def divides_by_norms(module: Any) -> UnitScores:
    """Zero by zero where a unit is dead."""
    with np.errstate(all="ignore"):
        norms = module.per_unit(module.inputs().diagonal)
        return UnitScores(norms / np.sqrt(norms))


def only_jointly(module: Any) -> UnitScores:
    return UnitScores(None)


def bare_array(module: Any) -> Any:
    return module.magnitudes(1)


def relative_for_the_module(module: Any) -> UnitScores:
    return replace(wanda_sp(module), relative=np.ones(1 + module.count))


def relative_to_nothing(module: Any) -> UnitScores:
    with np.errstate(all="ignore"):
        problem = module.inputs()
        return replace(wanda_sp(module), relative=module.per_unit(problem.diagonal) / problem.energy)


def never_the_same(module: Any) -> UnitScores:
    return UnitScores(np.random.default_rng().random(module.count))


def spoils_its_problem(module: Any) -> UnitScores:
    scores = wanda_sp(module)
    module.problem.anchor[...] = 1.0
    return scores


def spoils_the_mean(module: Any) -> UnitScores:
    scores = UnitScores(module.per_unit(np.abs(module.mean)))
    module.mean[...] = 1.0
    return scores


def ridge_of_fixed_size(module: Any) -> UnitScores:
    problem = module.inputs()
    return UnitScores(module.per_unit((problem.anchor**2).sum(axis=0) * (problem.diagonal + 10.0)))


def adds_weights_to_products(module: Any) -> UnitScores:
    """|W| plus |W|^2, which are in different units."""
    return UnitScores(module.magnitudes(1) + module.magnitudes(2))


def relative_in_units_of_its_own(module: Any) -> UnitScores:
    return replace(wanda_sp(module), relative=wanda_sp(module).scores)


def first_output_only(module: Any) -> UnitScores:
    problem = module.inputs()
    return UnitScores(module.per_unit(problem.anchor[0] ** 2 * problem.diagonal))


def by_position(module: Any) -> UnitScores:
    return UnitScores(wanda_sp(module).scores * np.arange(1, module.count + 1))


def neighbours_in_place_of_heads(module: Any) -> UnitScores:
    """Channels of a head taken for interleaved ones: right where a unit is one channel."""
    columns = (module.inputs().anchor ** 2).sum(axis=0)
    return UnitScores(columns.reshape(-1, module.count).sum(axis=0))


DEFECTS = {
    "every_unit_has_a_finite_score": [averages_over_rows_only, divides_by_norms, only_jointly, bare_array],
    "what_is_relative_is_finite_too": [relative_for_the_module, relative_to_nothing],
    "it_repeats_itself_and_changes_nothing": [never_the_same, spoils_its_problem, spoils_the_mean],
    "units_of_measurement_do_not_matter": [ridge_of_fixed_size, adds_weights_to_products, relative_in_units_of_its_own],
    "outputs_may_come_in_any_order": [first_output_only],
    "units_may_come_in_any_order": [by_position, neighbours_in_place_of_heads],
}


@pytest.mark.parametrize("law, method", [(law, method) for law, methods in DEFECTS.items() for method in methods])
def test_defects_are_caught_by_their_law(law: str, method: Any):
    named = {each.holds.__name__: each for each in (*UNIT_METHOD_LAWS, *UNIT_ORDER_LAWS)}
    assert set(named) == set(DEFECTS)
    is_caught(partial(named[law].check, Scoring(method)))
    is_caught(partial(laws.check_method, method))
