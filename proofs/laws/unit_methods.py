"""Laws of a method that removes whole units, any `score(module) -> UnitScores`.

They do not say how good the scores should be. There has to be one for each unit, whatever is singular, dead or tied, and they
have to depend on nothing but the module: not on the order in which its parts come, and not on what they are measured in.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from gramian.proofs.kit.backends import NUMPY
from gramian.proofs.kit.strategies import Layer, full, layers, weights
from gramian.proofs.laws.law import Law
from gramian.solvers import Quadratic

__all__ = ["UNIT_METHOD_LAWS", "UNIT_ORDER_LAWS", "Module", "Scoring", "scores_units"]

ROUNDING = 1e-6  # relative to the largest score; the cases that are compared are well-conditioned


class Scoring(NamedTuple):
    """method: what is held to the laws. inputs: whether it needs the moments of what enters the consumers."""

    method: Any
    inputs: bool = True


@dataclass(frozen=True, eq=False)
class Module:
    """One module as a method sees it, with all that `gramian.adapters.ScoreContext` has, made from data.

    layer: X (N, p) and W (q, p) of the consumer. before: what is removed of the producers with each channel, (p, r). count:
    units, of p / count consecutive channels each. gathered: whether the moments of X are known to the method.
    """

    layer: Layer
    before: np.ndarray
    count: int
    keep: float = 0.5
    damping: float = 0.0
    jointly: bool = False
    gathered: bool = True
    position: int = 0
    statistics: None = None

    @property
    def cost(self) -> float:
        """The parameters of a unit."""
        return float((self.layer.weight.size + self.before.size) / self.count)

    @property
    def tokens(self) -> int:
        return len(self.layer.inputs) if self.gathered else 0

    @cached_property
    def mean(self) -> np.ndarray | None:
        return self.layer.inputs.mean(axis=0) if self.gathered else None

    @cached_property
    def problem(self) -> Quadratic | None:
        return self.layer.problem(NUMPY) if self.gathered else None

    def inputs(self) -> Quadratic:
        """The problem, for a method that needs the inputs."""
        assert self.problem is not None, "the method says that it needs no inputs, and asks for them"
        return self.problem

    def magnitudes(self, power: int) -> np.ndarray:
        """sum |w|^power over all weights removed with a unit, (count,)."""
        return self.per_unit((np.abs(self.layer.weight) ** power).sum(axis=0) + (np.abs(self.before) ** power).sum(axis=1))

    def per_unit(self, columns: np.ndarray) -> np.ndarray:
        """sum of column values (p,) over the columns of every unit, (count,)."""
        return np.asarray(np.asarray(columns).reshape(self.count, -1).sum(axis=1))

    def scaled(self, inputs: float = 1.0, weight: float = 1.0) -> Module:
        """The module with all inputs, or all of its weights, multiplied."""
        return replace(self, layer=self.layer.scaled(inputs, weight), before=self.before * weight)

    def ordered(self, units: np.ndarray) -> Module:
        """The module with its units in another order."""
        channels = np.arange(len(self.before)).reshape(self.count, -1)[units].ravel()
        return replace(self, layer=self.layer.permuted(columns=channels), before=self.before[channels])


def scores_units(method: Any) -> bool:
    """Return whether a method is one of units: a `Method` says so, and a function needs one argument alone, the module."""
    if hasattr(method, "granularity"):
        return bool(method.granularity == "units")
    parameters = inspect.signature(method).parameters.values()
    named = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    wanted = [each.kind for each in parameters if each.default is each.empty and each.kind <= each.VAR_POSITIONAL]
    return len(wanted) == 1 and wanted[0] in named


def every_unit_has_a_finite_score(method: Any, module: Module) -> None:
    """There is one score for each unit and none is NaN or infinite; None stands for them only where modules are scored
    jointly."""
    found = method(module)
    assert hasattr(found, "scores"), f"{type(found).__name__} was returned, which has no scores: return UnitScores"
    if found.scores is None:
        assert module.jointly, "there are no scores, though the modules are not scored jointly"
        return
    assert np.shape(found.scores) == (module.count,), f"scores are {np.shape(found.scores)} for {module.count} units"
    assert np.all(np.isfinite(found.scores)), f"scores are {found.scores}"


def what_is_relative_is_finite_too(method: Any, module: Module) -> None:
    """Relative errors for each parameter, where the method knows them, are one finite number for each unit."""
    relative = getattr(method(module), "relative", None)
    if relative is not None:
        assert np.shape(relative) == (module.count,), f"relative is {np.shape(relative)} for {module.count} units"
        assert np.all(np.isfinite(relative)), f"relative is {relative}"


def it_repeats_itself_and_changes_nothing(method: Any, module: Module) -> None:
    """The same module gives the same bits twice, and is the same afterwards."""
    problem = module.problem
    held = [] if problem is None else [problem.gram, problem.anchor, problem.slope, problem.floor, module.mean]
    before = [None if array is None else array.copy() for array in held]
    one, other = (np.array(method(module).scores) for _ in range(2))
    np.testing.assert_array_equal(one, other, err_msg="twice the same module, two answers")
    for array, kept in zip(held, before):
        np.testing.assert_array_equal(array, kept, err_msg="the module was changed")


def units_of_measurement_do_not_matter(method: Any, module: Module) -> None:
    """X -> c X does not change the order of the scores, and neither does W -> c W for all weights; what is relative keeps its
    value."""
    one = method(module)
    for moved in (module.scaled(inputs=2.0**9), module.scaled(inputs=2.0**-9), module.scaled(weight=2.0**9)):
        other = method(moved)
        assert in_order(one.scores, other.scores), f"scores {one.scores} have the order of {other.scores} in other units"
        if getattr(one, "relative", None) is not None:
            assert near(other.relative, one.relative), f"relative is {one.relative}, and {other.relative} in other units"


def outputs_may_come_in_any_order(method: Any, module: Module) -> None:
    """Rows of W in reverse order give the same scores."""
    turned = replace(module, layer=module.layer.permuted(slice(None, None, -1)))
    expected, found = method(module).scores, method(turned).scores
    assert near(found, expected), f"scores are {expected}, and {found} with the outputs in another order"


def units_may_come_in_any_order(method: Any, module: Module) -> None:
    """Units in another order have their scores in that order. What draws random numbers breaks this law."""
    for order in (np.arange(module.count)[::-1], np.roll(np.arange(module.count), 1)):
        expected, found = method(module).scores[order], method(module.ordered(order)).scores
        assert near(found, expected), f"scores of the units in the order {order} should be {expected} but are {found}"


# -- what the laws share -----------------------------------------------------------------------------------------------


def near(found: Any, expected: Any) -> bool:
    """Return whether scores differ by rounding at most."""
    return bool(np.max(np.abs(np.asarray(found) - expected)) <= ROUNDING * np.max(np.abs(expected)))


def in_order(scores: Any, moved: Any) -> bool:
    """Return whether every two units whose scores are apart by more than rounding are in the same order by other scores."""
    above = np.subtract.outer(scores, scores) > ROUNDING * np.max(np.abs(scores))
    still = np.subtract.outer(moved, moved) >= -ROUNDING * np.max(np.abs(moved))
    return bool(np.all(still[above]))


@st.composite
def odd(draw: st.DrawFn, candidate: Scoring) -> tuple[Any, Module]:
    """Draw any module: singular, dead, duplicated, tied, of one row, of one unit, of heads, of fewer tokens than channels."""
    size = draw(st.integers(1, 3))
    layer = draw(layers(inputs=6, shifted=False, multiple=size))
    width = layer.weight.shape[1]
    before = draw(weights((width, draw(st.integers(1, 2)))))
    module = Module(
        layer, before, width // size, draw(st.sampled_from([0.5, 0.8])), draw(st.sampled_from([0.0, 0.01])), draw(st.booleans())
    )
    return candidate.method, replace(module, gathered=candidate.inputs)


@st.composite
def even(draw: st.DrawFn, candidate: Scoring) -> tuple[Any, Module]:
    """Draw a module without ties, of more tokens than channels, so that rounding does not decide an order."""
    size, count, rows = draw(st.integers(1, 2)), draw(st.integers(2, 4)), draw(st.integers(1, 3))
    width = size * count
    inputs, weight, before = draw(full((3 * width, width), (rows, width), (width, 2)))
    sizes = np.abs(weight) * np.linalg.norm(inputs, axis=0)
    assume(np.min(np.diff(np.sort(np.abs(weight).ravel()))) > 1e-3 and np.min(np.diff(np.sort(sizes.ravel()))) > 1e-3)
    assume(np.linalg.cond(inputs) < 30)
    module = Module(Layer(inputs, weight), before, count, damping=draw(st.sampled_from([0.0, 0.01])))
    return candidate.method, replace(module, gathered=candidate.inputs)


UNIT_METHOD_LAWS = (
    Law(every_unit_has_a_finite_score, odd),
    Law(what_is_relative_is_finite_too, odd),
    Law(it_repeats_itself_and_changes_nothing, odd),
    Law(units_of_measurement_do_not_matter, even),
    Law(outputs_may_come_in_any_order, even),
)
UNIT_ORDER_LAWS = (Law(units_may_come_in_any_order, even),)
