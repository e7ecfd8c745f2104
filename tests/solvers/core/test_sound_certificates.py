"""Certificates of what no data could have made, and of numbers at the ends of their range: never better than what is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from gramian.proofs import laws
from gramian.proofs.kit.reproduction import snippet
from gramian.proofs.kit.strategies import terms
from gramian.solvers import (
    FISTA,
    L1,
    NM,
    Affine,
    Moments,
    Quadratic,
    Status,
    TopK,
    affine_least_squares,
    certify,
    lambda_max,
    lasso,
    lasso_to_sparsity,
    refit,
    solve,
    sparsegpt,
)

INFINITY = float("inf")
DATA = np.random.default_rng(0)
X, W = DATA.normal(size=(30, 6)), DATA.normal(size=(3, 6))


def indefinite(xp):
    """No pair of channels shows it: the least eigenvalue is -0.8."""
    gram = np.eye(3) * 1.9 - 0.9
    return Quadratic(xp.asarray(gram), xp.asarray(np.array([[1.0, -1.0, 0.5]])))


def test_a_loss_below_zero_is_no_loss(xp):
    problem = indefinite(xp)
    found = lasso(problem, L1(0.1))
    assert found.status is not Status.CONVERGED and found.certificate.bound == -INFINITY
    assert found.certificate.relative_gap == INFINITY
    found = solve(problem, L1(0.1), FISTA(), max_steps=50)
    assert found.status is not Status.CONVERGED


def test_a_slope_where_there_are_no_inputs_has_no_minimum(xp):
    arrays = [np.diag([1.0, 0.0]), np.array([[1.0, -1.0]]), np.array([[0.0, 1.0]]), np.array([0.0])]
    problem = Quadratic(*map(xp.asarray, arrays))
    found = solve(problem, L1(0.1), FISTA(), max_steps=100)
    assert found.status is not Status.CONVERGED and found.certificate.bound == -INFINITY


def test_what_rounding_makes_of_a_singular_gram_is_not_taken_for_an_optimum():
    rng = np.random.default_rng(0)
    tokens = (rng.normal(size=(40, 200)) * np.exp(rng.normal(size=200))).astype(np.float32)
    tokens[:, 5:20] = tokens[:, 4:5]
    moments = Moments(200)
    moments.update(tokens, products="float32")
    problem = Quadratic.from_moments(moments, rng.normal(size=(3, 200)))
    found = lasso(problem, L1(1e-8 * float(lambda_max(problem)[0, 0])), max_steps=1000)
    assert found.status is not Status.CONVERGED or found.certificate.objective >= 0


def test_points_out_of_range_are_not_certified(xp):
    problem = Quadratic.from_data(xp.asarray(X), xp.asarray(W))
    for start in (1e155, 1e300):
        with np.errstate(all="ignore"):
            found = solve(problem, L1(0.1), FISTA(), start=xp.asarray(np.full(W.shape, start)), max_steps=1)
        assert found.status is not Status.CONVERGED and not found.certificate.measure <= 1


def test_equalities_hold_but_for_rounding(xp):
    problem = Quadratic.from_data(xp.asarray(X), xp.asarray(W))
    term = Affine(xp.asarray(DATA.normal(size=(2, 6))), xp.asarray(DATA.normal(size=(3, 2))))
    found = solve(problem, term, FISTA(), tol=1e-9)
    assert found.status is Status.CONVERGED and found.certificate.violation == 0
    direct = affine_least_squares(problem, term.matrix, term.values)
    assert found.certificate.objective == pytest.approx(direct.certificate.objective, rel=1e-9)
    assert certify(problem, term, found.weights + 1e-9).violation > 1e-10


@pytest.mark.parametrize("kind", [Affine, L1])
def test_fista_holds_to_the_laws_on_sets_and_norms(kind):
    laws.check_solver(FISTA(), terms_of=lambda shape: terms(kind, shape), examples=15)


def test_a_search_ends_whatever_its_width():
    tied = Quadratic(np.eye(4), np.ones((2, 4)))
    with pytest.raises(ValueError, match="only a positive width ends the search"):
        lasso_to_sparsity(tied, 0.5, width=0.0)
    for problem in (tied, tied.astype(np.float32)):
        assert lasso_to_sparsity(problem, 0.5, width=1e-300).zeros[0, 0] >= 4


@pytest.mark.parametrize("unit", [1e-10, 1e-8, 1e-6, 1.0, 1e6, 1e10])
def test_units_do_not_decide_what_equalities_leave(xp, unit):
    inputs = DATA.normal(size=(20, 4))
    inputs[:, 2] = 0  # the equality can be met there at no cost
    problem = Quadratic.from_data(xp.asarray(inputs * unit), xp.asarray(np.ones((1, 4))))
    found = affine_least_squares(problem, xp.asarray(np.array([[1.0, 2, 1, 1]])), xp.asarray(np.ones((1, 1))))
    assert found.certificate.relative_error < 1e-20
    inputs[:, 1] = 0
    matrix, some = np.array([[1.0, 1, 0, 0], [0, 1, 1, 0]]), DATA.normal(size=(1, 4))
    problem = Quadratic.from_data(xp.asarray(inputs * unit), xp.asarray(np.ones((1, 4))))
    found = affine_least_squares(problem, xp.asarray(matrix), xp.asarray(some @ matrix.T))
    np.testing.assert_allclose(xp.numpy(found.weights) @ matrix.T, some @ matrix.T, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("unit", [1e-12, 1e-9, 1.0, 1e9, 1e12])
def test_squares_stay_in_the_range_of_float32(xp, unit):
    problem = Quadratic.from_data(xp.asarray(X * unit), xp.asarray(W))
    single = problem.astype(xp.dtype("float32"))
    exact = np.linalg.eigvalsh((X * unit).T @ (X * unit))[-1]
    assert exact <= single.lipschitz * (1 + 1e-5) <= 2 * exact
    weight = 0.3 * float(lambda_max(problem)[0, 0])
    assert solve(single, L1(weight), FISTA(), tol=1e-4).status is Status.CONVERGED
    found, expected = (lasso_to_sparsity(each, 0.5) for each in (single, Quadratic.from_data(X, W)))
    assert int(found.zeros[0, 0]) == int(expected.zeros[0, 0]) == 9
    assert float(found.weight[0, 0]) == pytest.approx(float(expected.weight[0, 0]) * unit**2, rel=1e-2)


@pytest.mark.parametrize("pattern", [TopK(0.5), NM(2, 4)], ids=str)
def test_ranks_of_large_numbers(pattern):
    inputs, weight = DATA.normal(size=(40, 8)), DATA.normal(size=(5, 8))
    plain, large = (
        sparsegpt(Quadratic.from_data(inputs * size, weight * size).astype(np.float32), pattern) for size in (1.0, 1e10)
    )
    assert large.certificate.relative_error == pytest.approx(plain.certificate.relative_error, rel=1e-4)


def test_what_overflows_is_refused():
    with np.errstate(over="ignore"), pytest.raises(ValueError, match="gram overflows"):
        Quadratic.from_data(X * 1e25, W).astype(np.float32)


@dataclass(frozen=True)
class Mine:
    """L1 under another name, with nothing more than a norm needs."""

    weight: Any

    def value(self, weights):
        return L1(self.weight).value(weights)

    def prox(self, weights, step):
        return L1(self.weight).prox(weights, step)

    def polar(self, gradient):
        return L1(self.weight).polar(gradient)

    def rescaled(self, scale):
        return Mine(self.weight / scale)


def test_a_norm_of_ones_own_has_a_gap():
    problem, ours = Quadratic.from_data(X, W), L1(3.0)
    found, expected = solve(problem, Mine(3.0), FISTA()), solve(problem, ours, FISTA())
    assert found.certificate == expected.certificate and found.certificate.residual is None
    laws.check_term(lambda shape: terms(L1, shape).map(lambda term: Mine(term.weight)), examples=10)
    with pytest.raises(TypeError, match="object has neither polar"):
        certify(problem, object(), W)


@pytest.mark.parametrize("law, solver", [(laws.check_refit, refit), (laws.check_affine, affine_least_squares)])
@pytest.mark.parametrize("forged", [{"residual": 7.0}, {"violation": 99.0}, {"relative_error": float("nan")}, {"bound": 1e9}])
def test_laws_look_at_certificates(law, solver, forged):
    def forger(*arguments, **options):
        solution = solver(*arguments, **options)
        return replace(solution, certificate=replace(solution.certificate, **forged))

    with pytest.raises(AssertionError):
        law(forger, examples=20)


class Plain:
    def __call__(self, problem, pattern):
        return sparsegpt(problem, pattern)


def test_an_instance_of_a_class_that_can_be_imported_is_made_again():
    problem = Quadratic.from_data(X, W)
    code, names = snippet(Plain.__call__, [Plain(), problem, TopK(0.5)]), {}
    exec(code.replace("Plain.__call__(", "answer = Plain.__call__("), names)  # it runs as it is printed
    assert np.array_equal(names["answer"].weights, sparsegpt(problem, TopK(0.5)).weights)


def test_arrays_of_two_libraries_are_named():
    ours, theirs = Quadratic.from_data(X, W), Quadratic.from_data(torch.asarray(X), torch.asarray(W))
    for work in (
        lambda: Quadratic.from_data(torch.asarray(X), W),
        lambda: lasso(theirs, L1(1.0), start=W),
        lambda: solve(theirs, L1(np.ones((3, 1))), FISTA()),
        lambda: refit(theirs, np.ones((3, 6), dtype=bool)),
        lambda: refit(ours, torch.ones((3, 6), dtype=torch.bool)),
        lambda: refit(ours, np.ones((3, 6), dtype=bool), start=torch.asarray(W)),
    ):
        with pytest.raises(TypeError, match=r"numpy array .* torch array|torch array .* numpy array"):
            work()
    moments = Moments(6)
    moments.update(X)
    with pytest.raises(TypeError, match="inputs is a torch array but what came before is a numpy array"):
        moments.update(torch.asarray(X))
    assert solve(theirs, L1(np.float32(3.0)), FISTA()).status is Status.CONVERGED


def test_no_graph_of_gradients_is_kept():
    layer = torch.nn.Linear(6, 6, dtype=torch.float64)
    moments = Moments(6)
    moments.update(layer(torch.asarray(X)), layer(torch.asarray(X)) + 1)
    assert not any(getattr(moments, name).requires_grad for name in ("gram", "cross", "drift", "total"))
    problem = Quadratic.from_moments(moments, layer.weight)
    assert not solve(problem, L1(0.1), FISTA(), max_steps=40).weights.requires_grad
    assert not sparsegpt(problem, TopK(0.5)).weights.requires_grad


def test_what_is_returned_is_not_what_was_given():
    problem = Quadratic.from_data(X, W)
    assert not np.shares_memory(solve(problem, L1(0.0), FISTA()).weights, W)


def test_a_gram_that_is_nearly_symmetric_is_made_so():
    gram = X.T @ X
    tilted = gram + 1e-6 * np.triu(gram, 1)
    problem = Quadratic(tilted, W)
    assert np.array_equal(problem.gram, problem.gram.T) and not np.shares_memory(problem.gram, tilted)
    np.testing.assert_allclose(problem.gram, (tilted + tilted.T) / 2)
