"""Planted defects: with each of them in the code a law or a claim must fail, on an instance and not by another exception."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from defects import is_caught
from hypothesis import strategies as st

from gramian.proofs import laws
from gramian.proofs.kit.claims import verify
from gramian.proofs.kit.strategies import terms
from gramian.proofs.ledger import CLAIMS
from gramian.solvers import (
    FISTA,
    L1,
    NM,
    Affine,
    Moments,
    Quadratic,
    Solution,
    TopK,
    affine_least_squares,
    certify,
    l0_bound,
    refit,
    sparsegpt,
)
from gramian.solvers.backend._xp import namespace
from gramian.solvers.core import certificate, loop, patterns
from gramian.solvers.core.sums import ProductSum
from gramian.solvers.direct import equalities, restricted
from gramian.solvers.l1 import path
from gramian.solvers.support import lower_bound

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # steps too long overflow

Plant = Callable[[pytest.MonkeyPatch], None]
Check = Callable[[], None]
DEFECTS: list[Any] = []


def caught_by(**checks: Check) -> Callable[[Plant], Plant]:
    """Lists a defect with the checks of which each has to fail."""

    def listed(plant: Plant) -> Plant:
        DEFECTS.extend(pytest.param(plant, check, id=f"{plant.__name__}-{name}") for name, check in checks.items())
        return plant

    return listed


def claim(name: str) -> Check:
    """Fails as a law does if the claim does."""

    def check() -> None:
        for failure in verify(CLAIMS[name]).failures:
            raise AssertionError(failure) from AssertionError(failure)

    return check


problems = partial(laws.check_problem, Quadratic.from_data)
lassos = partial(laws.check_solver, FISTA())
penalties = partial(laws.check_term, partial(terms, L1))
sets = partial(laws.check_term, partial(terms, Affine))

# -- the iteration -----------------------------------------------------------------------------------------------------


@caught_by(laws=partial(laws.check_solver, FISTA(restart=False), accelerated=True), F4=claim("F4"))
def momentum_on_the_extrapolated_point(patch: pytest.MonkeyPatch) -> None:
    step = FISTA.step
    patch.setattr(FISTA, "step", lambda self, loss, term, state: step(self, loss, term, replace(state, point=state.ahead)))


@caught_by(laws=lassos)
def a_step_twice_too_long(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Quadratic, "lipschitz", property(lambda self: 0.5 * float(np.linalg.norm(self.gram, 2))))


# -- certificates ------------------------------------------------------------------------------------------------------


@caught_by(laws=lassos, term=penalties, F9=claim("F9"))
def stale_gradient_in_the_certificate(patch: pytest.MonkeyPatch) -> None:
    gaps, last = certificate.row_gaps, {}

    def stale(term: L1, weights: Any, losses: Any, gradient: Any, penalty: Any) -> Any:
        used = last.get(gradient.shape, np.zeros_like(weights))
        last[gradient.shape] = gradient
        return gaps(term, weights, losses, used, penalty)

    patch.setattr(certificate, "row_gaps", stale)


@caught_by(laws=lassos)
def the_certificate_of_the_start_returned(patch: pytest.MonkeyPatch) -> None:
    solve = loop.solve

    def hasty(problem: Quadratic, term: Any, solver: Any, *, start: Any = None, **how: Any) -> Solution:
        evaluated = certify(problem, term, problem.anchor if start is None else start)
        return replace(solve(problem, term, solver, start=start, **how), certificate=evaluated)

    patch.setattr("gramian.proofs.laws.solvers.solve", hasty)


@caught_by(laws=penalties)
def a_dual_point_that_is_not_feasible(patch: pytest.MonkeyPatch) -> None:
    polar = L1.polar
    patch.setattr(L1, "polar", lambda self, gradient: 0.5 * polar(self, gradient))


# -- the loss ----------------------------------------------------------------------------------------------------------


@caught_by(laws=problems)
def dropped_floor(patch: pytest.MonkeyPatch) -> None:
    value = Quadratic.value_and_gradient

    def without(self: Quadratic, weights: Any) -> Any:
        losses, gradient = value(self, weights)
        return losses if self.floor is None else losses - self.floor, gradient

    patch.setattr(Quadratic, "value_and_gradient", without)


@caught_by(laws=problems)
def c_transposed(patch: pytest.MonkeyPatch) -> None:
    update = Moments.update

    def transposed(self: Moments, *arguments: Any, **named: Any) -> None:
        update(self, *arguments, **named)
        if self.cross is not None:
            self.crosses = ProductSum(total=self.cross.T)

    patch.setattr(Moments, "update", transposed)


@caught_by(laws=problems)
def a_missing_half(patch: pytest.MonkeyPatch) -> None:
    value = Quadratic.value_and_gradient

    def whole(self: Quadratic, weights: Any) -> Any:
        losses, gradient = value(self, weights)
        change = weights - self.anchor
        return losses + 0.5 * namespace(change).sum((change @ self.gram) * change, axis=1), gradient

    patch.setattr(Quadratic, "value_and_gradient", whole)


@caught_by(laws=problems)
def error_correction_without_effect(patch: pytest.MonkeyPatch) -> None:
    update = Moments.update
    patch.setattr(Moments, "update", lambda self, inputs, dense=None, weights=None: update(self, inputs, None, weights))


@caught_by(laws=problems, refit=partial(laws.check_refit, refit), N16=claim("N16"))
def damping_applied_twice(patch: pytest.MonkeyPatch) -> None:
    damped = Quadratic.damped
    patch.setattr(Quadratic, "damped", lambda self, ridge: damped(damped(self, ridge), ridge))


# -- terms and patterns ------------------------------------------------------------------------------------------------


@caught_by(laws=penalties, solver=lassos)
def lambda_not_rescaled_with_the_coordinates(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(L1, "rescaled", lambda self, scale: self)


@caught_by(laws=penalties, solver=lassos)
def a_threshold_of_half_lambda(patch: pytest.MonkeyPatch) -> None:
    prox = L1.prox
    patch.setattr(L1, "prox", lambda self, weights, step: prox(self, weights, 0.5 * step))


@caught_by(topk=partial(laws.check_pattern, TopK(0.5)), rows=partial(laws.check_pattern, TopK(0.5, per_row=True)))
def a_tie_counted_twice(patch: pytest.MonkeyPatch) -> None:
    def reached(score: Any, count: int) -> Any:
        return score >= np.sort(score, axis=-1)[..., -count:][..., :1] if count else np.zeros(score.shape, dtype=bool)

    patch.setattr(patterns, "keep_largest", reached)


@caught_by(laws=partial(laws.check_pattern, NM(2, 4)), method=partial(laws.check_method, sparsegpt, patterns=st.just(NM(2, 4))))
def a_mask_applied_to_the_wrong_axis(patch: pytest.MonkeyPatch) -> None:
    select = NM.select

    def across(self: NM, score: Any) -> Any:
        """Groups of consecutive outputs instead of inputs."""
        rows = -(-score.shape[0] // self.group) * self.group
        padded = np.vstack([score, np.full((rows - score.shape[0], score.shape[1]), -np.inf)])
        return select(self, padded.T.copy()).T[: score.shape[0]].copy()

    patch.setattr(NM, "select", across)


@caught_by(laws=lambda: laws.check_lambda_max(path.lambda_max))
def lambda_max_doubled(patch: pytest.MonkeyPatch) -> None:
    largest = path.lambda_max
    patch.setattr(path, "lambda_max", lambda problem, per_row=False: 2 * largest(problem, per_row=per_row))


# -- least squares under equalities ------------------------------------------------------------------------------------


@caught_by(term=sets)
def one_equality_skipped_by_the_projection(patch: pytest.MonkeyPatch) -> None:
    prox = Affine.prox
    patch.setattr(Affine, "prox", lambda self, weights, step: prox(Affine(self.matrix[1:], self.values[:, 1:]), weights, step))


@caught_by(laws=lambda: laws.check_affine(equalities.affine_least_squares))
def one_equality_skipped_by_the_solver(patch: pytest.MonkeyPatch) -> None:
    def fewer(problem: Quadratic, matrix: Any, values: Any) -> Solution:
        last = max(1, matrix.shape[0] - 1)
        return affine_least_squares(problem, matrix[:last, :], values[:, :last])

    patch.setattr(equalities, "affine_least_squares", fewer)


@caught_by(laws=partial(laws.check_affine, affine_least_squares))
def a_multiplier_of_the_wrong_sign(patch: pytest.MonkeyPatch) -> None:
    along = equalities.along_null_space

    def flipped(gram: Any, gradient: Any, basis: Any, null: Any) -> Any:
        change, singular = along(gram, gradient, basis, null)
        free = -gradient @ namespace(gram).linalg.pinv(gram)  # the change without the equalities
        return 2 * free - change, singular

    patch.setattr(equalities, "along_null_space", flipped)


@caught_by(laws=partial(laws.check_bound, l0_bound))
def a_split_beyond_the_smallest_eigenvalue(patch: pytest.MonkeyPatch) -> None:
    proven = lower_bound.proven_split

    def doubled(gram: Any, split: Any) -> Any:
        found = proven(gram, split)
        return None if found is None else 2 * found

    patch.setattr(lower_bound, "proven_split", doubled)


@caught_by(laws=partial(laws.check_bound, l0_bound))
def a_bound_that_keeps_a_weight_less(patch: pytest.MonkeyPatch) -> None:
    bound = lower_bound.dual_bound

    def fewer(problem: Any, pattern: Any, split: Any, point: Any) -> Any:
        if isinstance(pattern, TopK):
            share = min(0.99, pattern.sparsity + 1 / problem.shape[1])
            return bound(problem, TopK(share, pattern.per_row), split, point)
        return bound(problem, NM(max(1, pattern.kept - 1), pattern.group), split, point)

    patch.setattr(lower_bound, "dual_bound", fewer)


@caught_by(laws=partial(laws.check_refit, refit))
def compensation_of_the_wrong_sign(patch: pytest.MonkeyPatch) -> None:
    change = restricted.restricted_change
    patch.setattr(restricted, "restricted_change", lambda *arguments: (-change(*arguments)[0], *change(*arguments)[1:]))


# -- the test ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plant, check", DEFECTS)
def test_code(plant: Plant, check: Check, monkeypatch: pytest.MonkeyPatch):
    plant(monkeypatch)
    is_caught(check)
