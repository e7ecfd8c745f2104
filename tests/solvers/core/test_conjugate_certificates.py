"""Certificates of terms that are no norms, from their convex conjugates: closed forms, and what a dual point is for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from exact_lasso import ElasticNet

from gramian.solvers import FISTA, L1, Quadratic, Status, certify, solve
from gramian.solvers.backend._xp import namespace

RNG = np.random.default_rng(0)
X, W = RNG.normal(size=(40, 5)), RNG.normal(size=(3, 5))


def objective(term: ElasticNet, point: np.ndarray) -> float:
    penalty = term.sparse * np.abs(point).sum() + 0.5 * term.ridge * (point**2).sum()
    return 0.5 * float(np.sum((X @ (point - W).T) ** 2)) + float(penalty)


def test_the_gap_of_a_ridge_closes_at_its_closed_form(xp):
    problem, term = Quadratic.from_data(xp.asarray(X), xp.asarray(W)), ElasticNet(0.0, 7.0)
    best = np.linalg.solve(X.T @ X + 7 * np.eye(5), X.T @ X @ W.T).T
    certificate = certify(problem, term, xp.asarray(best))
    assert certificate.objective == pytest.approx(objective(term, best), rel=1e-12)
    assert abs(certificate.gap) <= 1e-10 * certificate.objective and certificate.residual is None
    for point in (W, 0 * W, best + 1, RNG.normal(size=W.shape)):
        certificate = certify(problem, term, xp.asarray(point))
        assert certificate.bound <= objective(term, best) * (1 + 1e-12)
        assert certificate.gap >= (objective(term, point) - objective(term, best)) * (1 - 1e-10)


def test_the_gap_of_an_elastic_net_closes(xp):
    problem, term = Quadratic.from_data(xp.asarray(X), xp.asarray(W)), ElasticNet(12.0, 3.0)
    found = solve(problem, term, FISTA(), tol=1e-9)
    assert found.status is Status.CONVERGED and found.certificate.relative_gap <= 1e-9
    # the ridge is a part of the loss as well: (G + 3 I, its own anchor) with an L1 term has the same optimum
    gram = X.T @ X + 3 * np.eye(5)
    anchor = np.linalg.solve(gram, X.T @ X @ W.T).T
    same = solve(Quadratic(xp.asarray(gram), xp.asarray(anchor)), L1(12.0), FISTA(), tol=1e-9)
    ours, theirs = (objective(term, xp.numpy(each.weights)) for each in (found, same))
    assert ours == pytest.approx(theirs, rel=3e-9)


@dataclass(frozen=True)
class Interval:
    """The L1 norm by its conjugate, which is infinite where |u_j| > weight: what has a dual point must say so."""

    weight: float
    helped: bool

    def value(self, weights):
        return L1(self.weight).value(weights)

    def conjugate(self, slope):
        xp = namespace(slope)
        size = xp.max(xp.abs(slope), axis=1)
        return xp.where(size > self.weight, float("inf") + 0 * size, 0 * size)

    @property
    def dual(self):
        return self.nearer if self.helped else None

    def nearer(self, problem, weights):
        """U = W + s (V - W) has the gradient s g where X* = X."""
        xp = namespace(weights)
        size = xp.max(xp.abs(problem.gradient(weights)), axis=1)
        scale = self.weight * (1 - 1e-12) / xp.where(size > self.weight, size, self.weight + 0 * size)
        return problem.anchor + scale[:, None] * (weights - problem.anchor)


def test_a_dual_point_makes_a_conjugate_finite(xp):
    problem, point = Quadratic.from_data(xp.asarray(X), xp.asarray(W)), xp.asarray(0.5 * W)
    alone = certify(problem, Interval(1.0, False), point)  # zero is a bound, since neither f nor h is anywhere below it
    assert -1e-12 * alone.objective <= alone.bound <= 0
    helped, norm = certify(problem, Interval(1.0, True), point), certify(problem, L1(1.0), point)
    assert 0 < helped.bound <= norm.bound * (1 + 1e-11) and helped.objective == norm.objective
    found = solve(problem, L1(1.0), FISTA(), tol=1e-12).weights
    assert certify(problem, Interval(1.0, True), found).relative_gap <= 1e-9
