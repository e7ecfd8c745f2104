"""No rounding flatters a certificate: nasty problems beside their optimum in rational arithmetic, with no tolerance at all."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from exact_lasso import KINDS, ElasticNet, ExactRow, drawn

from gramian.proofs.kit.rational import exact
from gramian.solvers import FISTA, L1, Certificate, Quadratic, certify, lambda_max, lasso, solve

SOME, MANY = 60, 2000


def certified(rng: np.random.Generator, problem: Quadratic, term: Any, known: list[list[Fraction]]) -> Iterator[Any]:
    """Yield points of solvers and of no solver at all, each with its certificate."""
    solvers = [lambda: solve(problem, term, FISTA(), tol=1e-9, max_steps=200)]
    if isinstance(term, L1):
        solvers.append(lambda: lasso(problem, term, tol=1e-9, max_steps=300))
    for run in solvers:
        solution = run()
        if np.all(np.isfinite(solution.weights)):
            yield solution.weights, solution.certificate
    double = problem.double
    for point in (double.anchor, 0 * double.anchor, double.anchor * (1 + 1e-9 * rng.normal(size=double.shape))):
        yield point, certify(problem, term, point)
    for point in known[:: max(1, len(known) // 4)]:
        near = np.array([[float(value) for value in point]])
        if np.all(np.isfinite(near)):
            near = near * (1 + rng.normal(size=near.shape) * 10.0 ** rng.integers(-17, 0))
            yield near, certify(problem, term, near)


def checked(seed: int) -> tuple[str, int, int]:
    """Hold every certificate of one problem to exact arithmetic; return its kind, and how many had a bound, of how many."""
    rng = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    with np.errstate(all="ignore"):
        problem = drawn(rng, kind)
        top = float(np.max(lambda_max(problem)))
        sparse = float(np.asarray(top * 10.0 ** rng.integers(-12, 2) if top > 0 else 1.0, dtype=problem.anchor.dtype))
        ridge = float(np.max(problem.diagonal)) * 10.0 ** rng.integers(-9, 1) if rng.random() < 0.3 else 0.0
        term: Any = ElasticNet(sparse, ridge) if ridge > 0 else L1(sparse)
        row = ExactRow.of(problem, sparse, ridge)
        points = list(row.stationary())
        certificates = list(certified(rng, problem, term, [point for point, _ in points]))
    optima = [row.objective(point) for point, optimal in points if optimal]
    if row.semidefinite and optima:
        rivals = optima[:1]
    else:  # then there is no minimum, and a bound is one of all points whose loss is not negative
        rivals = [row.objective(point) for point, _ in points if row.loss(point) >= 0]
    bounded = 0
    for point, certificate in certificates:
        reached = row.objective(exact(np.asarray(point, dtype=float)[0]))
        check(certificate, reached, rivals, f"seed {seed}, {kind}, {problem.gram.dtype}: {certificate}")
        bounded += certificate.bound > -np.inf
    return kind, bounded, len(certificates)


def check(certificate: Certificate, reached: Fraction, rivals: list[Fraction], where: str) -> None:
    """The bound is below whatever is known, and the gap of the point above what it could still gain."""
    assert not certificate.relative_error < 0, where
    if certificate.bound == -np.inf:
        return
    for rival in rivals:
        above = Fraction(certificate.bound) - rival
        assert above <= 0, f"{where}: the bound is {float(above)} above what is reached, {float(rival)}"
        short = reached - rival - (Fraction(certificate.objective) - Fraction(certificate.bound))
        assert short <= 0, f"{where}: the gap is {float(short)} too small"


def test_no_bound_of_some_nasty_problems_is_above_their_exact_optimum():
    found = [checked(seed) for seed in range(SOME)]
    assert sum(bounded for _, bounded, _ in found) > 0.9 * sum(count for _, _, count in found)


@pytest.mark.slow
def test_no_bound_of_many_nasty_problems_is_above_their_exact_optimum():
    """`pytest -m slow tests/solvers/core/test_exact_certificates.py` checks 2,000 problems, some 15,000 certificates."""
    found = [checked(seed) for seed in range(SOME, SOME + MANY)]
    assert sum(bounded for _, bounded, _ in found) > 0.9 * sum(count for _, _, count in found)
