"""Every term beside cvxpy: its proximal map, and what FISTA makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from gramian.proofs.kit.convex import cvxpy, minimum
from gramian.proofs.kit.strategies import TERMS, Layer
from gramian.solvers import (
    FISTA,
    L1,
    Affine,
    Box,
    ElasticNet,
    GroupL2,
    NonNegative,
    Nuclear,
    Ridge,
    RowSum,
    Simplex,
    SparseGroup,
    Status,
    Support,
    solve,
)

ROWS, COLUMNS = 3, 6
RNG = np.random.default_rng(0)
STAR, DRIFT, WEIGHT = RNG.normal(size=(20, COLUMNS)), RNG.normal(size=(20, COLUMNS)), RNG.normal(size=(ROWS, COLUMNS))
LAYER = Layer(STAR, WEIGHT, STAR + 0.3 * DRIFT)
PER_ENTRY, PER_CHANNEL = RNG.uniform(0.2, 3, (ROWS, COLUMNS)), RNG.uniform(0.5, 2, COLUMNS)
HOLES = PER_CHANNEL * np.array([1, 0, 1, 1, 0, 1])
LABELS = np.array([0, 1, 0, 2, 1, 0])
GROUP_WEIGHTS, TOTALS = np.array([4.0, 0.0, 6.0]), np.array([0.5, 1.0, 3.0])
MASK, MATRIX, VALUES = RNG.random((ROWS, COLUMNS)) < 0.5, RNG.normal(size=(2, COLUMNS)), RNG.normal(size=(ROWS, 2))


class Case(NamedTuple):
    """term: in numpy. model: h(V) and constraints in cvxpy."""

    term: Any
    model: Callable[[Any, Any], tuple[Any, list[Any]]]


def grouped(cp: Any, v: Any, weights: Any) -> Any:
    return sum(weights[g] * cp.sum(cp.norm(v[:, np.flatnonzero(LABELS == g)], 2, axis=1)) for g in range(3))


CASES = {
    "L1": Case(L1(PER_ENTRY), lambda cp, v: (cp.sum(cp.multiply(PER_ENTRY, cp.abs(v))), [])),
    "L1, free channels": Case(L1(HOLES), lambda cp, v: (cp.sum(cp.abs(v) @ HOLES), [])),
    "L1, all free": Case(L1(0.0), lambda cp, v: (0, [])),
    "Ridge": Case(Ridge(PER_ENTRY), lambda cp, v: (0.5 * cp.sum(cp.multiply(PER_ENTRY, cp.square(v))), [])),
    "Ridge, free channels": Case(Ridge(HOLES), lambda cp, v: (0.5 * cp.sum(cp.square(v) @ HOLES), [])),
    "ElasticNet": Case(ElasticNet(2.0, 3.0), lambda cp, v: (2 * cp.sum(cp.abs(v)) + 1.5 * cp.sum_squares(v), [])),
    "ElasticNet, partly a ridge": Case(
        ElasticNet(PER_CHANNEL, HOLES), lambda cp, v: (cp.sum(cp.abs(v) @ PER_CHANNEL) + 0.5 * cp.sum(cp.square(v) @ HOLES), [])
    ),
    "ElasticNet, partly free": Case(
        ElasticNet(HOLES, HOLES[::-1].copy()),
        lambda cp, v: (cp.sum(cp.abs(v) @ HOLES) + 0.5 * cp.sum(cp.square(v) @ HOLES[::-1]), []),
    ),
    "NonNegative": Case(NonNegative(), lambda cp, v: (0, [v >= 0])),
    "Box": Case(Box(-0.25, PER_ENTRY), lambda cp, v: (0, [v >= -0.25, v <= PER_ENTRY])),
    "GroupL2": Case(GroupL2(LABELS, 5.0), lambda cp, v: (grouped(cp, v, [5, 5, 5]), [])),
    "GroupL2, a free group": Case(GroupL2(LABELS, GROUP_WEIGHTS), lambda cp, v: (grouped(cp, v, GROUP_WEIGHTS), [])),
    "SparseGroup": Case(
        SparseGroup(LABELS, 2.0, GROUP_WEIGHTS), lambda cp, v: (2 * cp.sum(cp.abs(v)) + grouped(cp, v, GROUP_WEIGHTS), [])
    ),
    "Nuclear": Case(Nuclear(8.0), lambda cp, v: (8 * cp.norm(v, "nuc"), [])),
    "Simplex": Case(Simplex(TOTALS), lambda cp, v: (0, [v >= 0, cp.sum(v, axis=1) == TOTALS])),
    "Simplex, prices": Case(Simplex(2.0, PER_CHANNEL), lambda cp, v: (0, [v >= 0, v @ PER_CHANNEL == 2])),
    "RowSum": Case(RowSum(TOTALS), lambda cp, v: (0, [cp.sum(v, axis=1) == TOTALS])),
    "RowSum, prices": Case(RowSum(-2.0, PER_CHANNEL), lambda cp, v: (0, [v @ PER_CHANNEL == -2])),
    "Support": Case(Support(MASK), lambda cp, v: (0, [cp.multiply(v, 1.0 * ~MASK) == 0])),
    "Affine": Case(Affine(MATRIX, VALUES), lambda cp, v: (0, [v @ MATRIX.T == VALUES])),
}


def reference(case: Case, inputs: np.ndarray, outputs: np.ndarray, step: float = 1.0) -> float:
    """min 1/2 |X V^T - Y|^2 + step h(V)"""
    cp = cvxpy()
    point = cp.Variable((ROWS, COLUMNS))
    penalty, constraints = case.model(cp, point)
    return minimum(0.5 * cp.sum_squares(inputs @ point.T - outputs) + step * penalty, constraints)


def penalty(term: Any, point: np.ndarray) -> float:
    return float(np.sum(term.value(point))) if hasattr(term, "value") else 0.0


def test_every_term_has_a_case():
    assert {type(case.term) for case in CASES.values()} == set(TERMS)


@pytest.mark.parametrize("name", CASES)
def test_prox(xp, name):
    case, step = CASES[name], 0.5
    point = 2 * RNG.normal(size=(ROWS, COLUMNS)) + 0.5
    found = xp.numpy(xp.moved(case.term).prox(xp.asarray(point), step))
    reached = 0.5 * np.sum((found - point) ** 2) + step * penalty(case.term, found)
    least = reference(case, np.eye(COLUMNS), point.T, step)
    assert reached == pytest.approx(least, rel=1e-8)
    if hasattr(case.term, "violation"):
        assert case.term.violation(found) <= 1e-12


@pytest.mark.parametrize("name", CASES)
def test_what_fista_finds(xp, name):
    """The gap closes to 1e-8, and objective and bound enclose the optimum of cvxpy, as far as that is exact."""
    case = CASES[name]
    found = solve(LAYER.problem(xp), xp.moved(case.term), FISTA(), tol=1e-8)
    least, weights = reference(case, LAYER.inputs, LAYER.outputs), xp.numpy(found.weights)
    assert found.status is Status.CONVERGED and found.certificate.violation == 0
    assert found.certificate.objective == pytest.approx(LAYER.loss(weights) + penalty(case.term, weights), rel=1e-12)
    assert found.certificate.objective == pytest.approx(least, rel=1e-7)
    assert found.certificate.bound <= least * (1 + 1e-8)
