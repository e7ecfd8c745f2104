"""Defective methods and layers, of which each must fail the laws, on an instance and not by another exception."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from defects import is_caught

from gramian.adapters.models.layers import Layer
from gramian.proofs import laws
from gramian.proofs.laws.layers import conv1d, linear
from gramian.solvers import L1, Quadratic, Solution, Status, Support, certify

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def keep_the_largest(problem: Quadratic, pattern: Any) -> Solution:
    """An honest method, for the ones below to differ from."""
    support = Support(pattern.select(abs(problem.anchor)))
    weights = support.prox(problem.anchor, 1.0)
    return Solution(weights, Status.DIRECT, certify(problem, support, weights))


def certified_before_rounding(problem: Quadratic, pattern: Any) -> Solution:
    whole = certify(problem, L1(0.0), problem.anchor)
    return replace(keep_the_largest(problem, pattern), certificate=whole)


def claims_a_bound(problem: Quadratic, pattern: Any) -> Solution:
    """That its own answer is the best there is."""
    solution = keep_the_largest(problem, pattern)
    return replace(solution, certificate=replace(solution.certificate, bound=solution.certificate.objective))


def one_weight_too_many(problem: Quadratic, pattern: Any) -> Solution:
    solution = keep_the_largest(problem, pattern)
    solution.weights[0, -1] = 1.0
    return replace(solution, certificate=certify(problem, Support(solution.weights != 0), solution.weights))


def spoils_its_problem(problem: Quadratic, pattern: Any) -> Solution:
    solution = keep_the_largest(problem, pattern)
    problem.anchor[...] = solution.weights
    return solution


def rounds_in_units_of_its_own(problem: Quadratic, pattern: Any) -> Solution:
    """Wanda's score with a ridge of fixed size."""
    support = Support(pattern.select(abs(problem.anchor) * (problem.diagonal + 1.0) ** 0.5))
    weights = support.prox(problem.anchor, 1.0)
    return Solution(weights, Status.DIRECT, certify(problem, support, weights))


def never_the_same(problem: Quadratic, pattern: Any) -> Solution:
    score = np.random.default_rng().random(problem.shape)
    return keep_the_largest(replace(problem, anchor=problem.anchor * (pattern.select(score))), pattern)


METHODS = [
    certified_before_rounding,
    claims_a_bound,
    one_weight_too_many,
    spoils_its_problem,
    rounds_in_units_of_its_own,
    never_the_same,
]


class Untransposed(Layer):
    """A Conv1D taken for a Linear."""

    @property
    def weight(self) -> Any:
        return self.module.weight.detach()


class Unrounded(Layer):
    """The checkpoint's dtype forgotten."""

    def assign(self, weights: Any, dtype: Any = None) -> None:
        super().assign(weights)


class Careless(Layer):
    """Not a number, and written all the same."""

    def assign(self, weights: Any, dtype: Any = None) -> None:
        super().assign(np.nan_to_num(np.asarray(weights)) if isinstance(weights, np.ndarray) else weights, dtype)


def test_the_honest_method_passes():
    laws.check_method(keep_the_largest, examples=25)


@pytest.mark.parametrize("method", METHODS)
def test_methods(method: Any):
    is_caught(partial(laws.check_method, method))


@pytest.mark.parametrize("layer, build", [(Untransposed, conv1d), (Unrounded, linear), (Careless, linear)])
def test_layers(layer: type, build: Any):
    is_caught(partial(laws.check_layer, layer, builds=(build,)))
