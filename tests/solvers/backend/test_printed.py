"""Exported objects print in a line, and never their arrays, on every backend."""

from __future__ import annotations

import inspect
from dataclasses import is_dataclass
from enum import Enum

import numpy as np
import pytest

import gramian.solvers as solvers
from gramian.solvers import (
    L1,
    Affine,
    Box,
    Budget,
    Certificate,
    ElasticNet,
    GroupL2,
    MaskProblem,
    Moments,
    NonNegative,
    Nuclear,
    Quadratic,
    Ridge,
    RowSum,
    Shrinkage,
    Simplex,
    Solution,
    SparseGroup,
    Status,
    Support,
    TargetMoments,
    TopK,
    allocate,
    empirical_ridge,
    exchange_units,
    greedy_removal,
    l0_bound,
    lasso_path,
    lasso_to_sparsity,
    refit,
    relaxed_mask,
    threshold,
)
from gramian.solvers.backend.printed import digits, extent, fraction_of_zeros, kept, span

MASK = np.arange(8) > 1


def printed(xp) -> list[object]:
    """One of each exported class that holds arrays."""
    rng = np.random.default_rng(0)
    inputs, weight = xp.asarray(rng.normal(size=(64, 8))), xp.asarray(rng.normal(size=(4, 8)))
    layer = Quadratic.from_data(inputs, weight)
    moments = Moments(8)
    moments.update(inputs)
    targets = TargetMoments(8, 2)
    targets.update(inputs, inputs[:, :2])
    problem = MaskProblem.from_problem(layer)
    relaxed = relaxed_mask(problem, 6)
    searched = lasso_to_sparsity(layer, 0.5, per_row=True, tol=1e-3)
    mask = xp.asarray(np.broadcast_to(MASK, (4, 8)))
    return [
        layer,
        moments,
        refit(layer, mask),
        refit(layer, mask).certificate,
        L1(xp.asarray(np.full((4, 1), 2.0))),
        Support(mask),
        Affine(xp.asarray(np.ones((1, 8))), xp.asarray(np.zeros((4, 1)))),
        Ridge(2.0),
        ElasticNet(2.0, 1.0),
        NonNegative(),
        Box(xp.asarray(np.full(8, -1.0)), 1.0),
        GroupL2(np.arange(8) // 2, 1.0),
        SparseGroup(np.arange(8) // 2, 1.0, 2.0),
        Simplex(1.0),
        RowSum(1.0),
        Nuclear(1.0),
        targets,
        l0_bound(layer, TopK(0.5)),
        problem,
        relaxed,
        relaxed.budget,
        threshold(problem, relaxed),
        allocate([problem, problem], 12),
        greedy_removal(layer),
        exchange_units(layer, xp.asarray(MASK)),
        searched,
        lasso_path(layer, [10.0])[0],
        empirical_ridge(layer, TopK(0.5), 64, heldout=layer),
        solvers.low_rank(layer, 2),
        solvers.armor(layer, "2:4", block=2, sweeps=1, warm_start="sparsegpt"),
        solvers.quantise(layer, 0.5, group=4, rounds=1),
        solvers.quantise(layer, 0.5, group=4, rounds=1).certificate,
        solvers.Grid(4, 32),
    ]


def test_every_exported_object_prints_in_a_line(xp):
    for found in printed(xp):
        text = repr(found)
        assert text.startswith(type(found).__name__ + "(") and text.endswith(")")
        assert str(found) == text and len(text) <= 128
        assert not any(mark in text for mark in ("\n", "[", "array(", "tensor"))


def test_no_class_was_forgotten(xp):
    # of numbers, protocols, an error
    plain = {solvers.FISTA, solvers.TopK, solvers.NM, solvers.Solver, solvers.Pattern, solvers.Term, solvers.NotSolved}
    exported = {found for name in solvers.__all__ if inspect.isclass(found := getattr(solvers, name))}
    assert {*map(type, printed(xp))} == {found for found in exported - plain if not issubclass(found, Enum)}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_printed_is_true(xp, dtype):
    weights = xp.asarray([[1.0, 0.0, 0.0], [0.0, 2.0, 3.0]], dtype)
    certificate = Certificate(objective=2.0, bound=2.0 - 8e-9, relative_error=0.125)
    solution = Solution(weights, Status.STEP_LIMIT, certificate)
    assert repr(solution) == "Solution(2x3, step limit, gap 4e-9, 50 % zeros)"
    assert repr(certificate) == "Certificate(objective 2, relative error 0.12, gap 4e-9)"
    off = Certificate(1.0, float("-inf"), 0.5, residual=0.25, violation=3.0)
    assert repr(off) == "Certificate(objective 1, relative error 0.5, KKT residual 0.25, violation 3)"
    gram = xp.asarray(np.eye(3), dtype)
    problem, moved = Quadratic(gram, weights), Quadratic(gram, weights, weights, xp.asarray([1.0, 1.0], dtype))
    assert repr(problem).startswith(f"Quadratic(2x3, {dtype}, ") and "X* != X" not in repr(problem)
    assert repr(moved).endswith(", X* != X)")
    assert repr(Moments(3)) == "Moments(3 channels, no tokens)"
    assert repr(Support(weights != 0)) == "Support(2x3, 50 % zeros)"
    assert repr(Shrinkage(weights[0, :], 6.0, ((1.0, 2.0),))) == "Shrinkage(3 channels, strength 6 of 1 tried)"


def test_numbers_are_short(xp):
    assert [digits(value) for value in (4e-9, 1234567.0, 0.5, 0.0, float("inf"), -1e-10)] == [
        "4e-9",
        "1.2e6",
        "0.5",
        "0",
        "inf",
        "-1e-10",
    ]
    array = xp.asarray([[1.0, 4.0]])
    assert span(array) == "1 to 4" and span(array[:, :1]) == "1" and extent(array) == "1x2"
    assert kept(array > 1, array > 0) == "3 of 4" and fraction_of_zeros(array > 1) == "50 % zeros"
    assert fraction_of_zeros(array[:, :0]) == "0 % zeros"


def test_printing_takes_nothing_from_equality():
    assert Certificate(1.0, 0.5, 0.1) == Certificate(1.0, 0.5, 0.1) != Certificate(1.0, 0.25, 0.1)
    assert Budget(1.0, 2.0) == Budget(1.0, 2.0) and is_dataclass(Certificate)
