"""cvxpy, which is imported when it is first needed, because that takes a second, and is taken as untyped."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

__all__ = ["cvxpy", "minimum"]

TIGHT = {"tol_gap_abs": 1e-11, "tol_gap_rel": 1e-11, "tol_feas": 1e-11}


def cvxpy() -> Any:
    """Return the package."""
    return import_module("cvxpy")


def minimum(loss: Any, constraints: Sequence[Any] = ()) -> float:
    """min loss subject to the constraints, which are expressions of cvxpy, by an interior point method to a gap of 1e-11."""
    cp = cvxpy()
    problem = cp.Problem(cp.Minimize(loss), list(constraints))
    problem.solve(solver=cp.CLARABEL, **TIGHT)
    return float(problem.value)
