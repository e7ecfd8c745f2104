"""Numerical Pruning, Theorems 2 and 10 and Algorithm 1, line 10: what the box and a singular H change (claims N7, N8).

The notation is that of `relaxed_mask`: A = (W W^T) o (X^T X), H = A + lambda 1 1^T, q = D - r, a = A^-1 1, s = 1^T a.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose
from scipy.optimize import lsq_linear

from gramian.proofs.kit.claims import Claim, Counterexample, Property, Verdict
from gramian.proofs.kit.rational import Matrix, exact, identity, rank, solve, transpose
from gramian.proofs.numerical_pruning.relaxed_mask import (
    Relaxed,
    exact_gradient,
    exact_hadamard,
    exact_limit,
    exact_newton,
    exact_objective,
    newton_step,
    relaxed,
)

__all__ = ["CLAIMS", "box_point"]

PAPER = "Numerical Pruning"

# -- the box -----------------------------------------------------------------------------------------------------------


def box_point(case: Relaxed) -> np.ndarray:
    """argmin of Eq. (3) over 0 <= z <= 1: bounded least squares |A^(1/2) u|^2 + lambda (1^T u - q)^2, by an active set."""
    values, vectors = np.linalg.eigh(case.hadamard)
    unit = np.sqrt(case.scale) or 1.0
    rows = np.vstack([np.sqrt(np.maximum(values, 0))[:, None] * vectors.T, np.sqrt(case.penalty) * np.ones(case.width)]) / unit
    target = np.append(np.zeros(case.width), np.sqrt(case.penalty) * case.excess / unit)
    return np.asarray(1 - lsq_linear(rows, target, bounds=(0, 1), method="bvls", tol=1e-14, max_iter=100).x)


def check_box(case: Relaxed, formula: Any) -> None:
    """The mask is feasible, and its Frank-Wolfe gap sum_j max(g_j z_j, g_j (z_j - 1)), a bound on f(z) - min f, vanishes."""
    mask = formula(case)
    assert np.all((mask >= -1e-9) & (mask <= 1 + 1e-9)), mask
    gradient = case.gradient(mask)
    assert np.sum(np.maximum(gradient * mask, gradient * (mask - 1))) <= 1e-8 * case.scale


@st.composite
def whole(draw: st.DrawFn, largest: int = 2) -> tuple[Matrix, Matrix]:
    """Draw (X, W) of small integers, whose A is singular about as often as not; some have a dead column of X, a dead row of W,
    or twins."""
    width = draw(st.integers(1, 4))
    entries = st.integers(-largest, largest)
    tall, wide = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    inputs, weight = (draw(arrays(int, (rows, width), elements=entries, fill=st.nothing())) for rows in (tall, wide))
    one, other = draw(st.integers(0, width - 1)), draw(st.integers(0, width - 1))
    match draw(st.sampled_from(["any", "dead input", "dead weight", "twins"])):
        case "dead input":
            inputs[:, one] = 0
        case "dead weight":
            weight[:, one] = 0
        case "twins":
            inputs[:, one], weight[:, one] = inputs[:, other], weight[:, other]
    return exact(inputs), exact(weight.T)


@st.composite
def exact_problems(draw: st.DrawFn) -> tuple[Matrix, Fraction, Fraction]:
    """Draw (A, r, lambda) in Fractions, with A >= I."""
    inputs, weight = draw(whole(largest=draw(st.sampled_from([1, 4]))))  # beside I: nearly orthogonal channels or far from it
    matrix = exact_hadamard(inputs + identity(len(weight)), [[*row, Fraction(1)] for row in weight])
    share, penalty = draw(st.sampled_from(["1/50", "1/8", "9/10"])), draw(st.sampled_from(["1/10", "10", "1000"]))
    return matrix, Fraction(share) * len(matrix), Fraction(penalty)


def inside(problem: tuple[Matrix, Fraction, Fraction]) -> bool:
    """Return whether a >= 0 and lambda q a <= 1 + lambda s."""
    return below_one(problem) and above_zero(problem)


def below_one(problem: tuple[Matrix, Fraction, Fraction]) -> bool:
    return bool(min(solve(problem[0], [Fraction(1)] * len(problem[0]))) >= 0)


def above_zero(problem: tuple[Matrix, Fraction, Fraction]) -> bool:
    matrix, kept, penalty = problem
    direction = solve(matrix, [Fraction(1)] * len(matrix))
    return bool(penalty * (len(matrix) - kept) * max(direction) <= 1 + penalty * sum(direction))


def check_inside(problem: tuple[Matrix, Fraction, Fraction], formula: Any) -> None:
    mask = exact_newton(*problem)
    assert formula(problem) == (0 <= min(mask) and max(mask) <= 1)


def check_outside_the_box() -> None:
    """With X = [[1, 2], [0, 1]], W = (1, 1)^T and r = 1 Newton's point is (0, 4/3) at lambda = 1 and (-33/67, 301/201) at
    lambda = 100, and it tends to (-1/2, 3/2). At lambda = 1 the box optimum is (1/2, 1), of value 1/4; Newton's point,
    clipped, gives 1/2."""
    matrix = exact_hadamard(exact([[1, 2], [0, 1]]), exact([[1], [1]]))
    assert exact_newton(matrix, 1, 1) == [0, Fraction(4, 3)]
    assert exact_newton(matrix, 1, 100) == [Fraction(-33, 67), Fraction(301, 201)]
    assert exact_limit(matrix, 1) == exact(["-1/2", "3/2"])
    best = exact(["1/2", "1"])
    first, second = exact_gradient(matrix, best, 1, 1)
    assert first == 0 and second < 0  # interior, and held at its upper bound: the optimality conditions of the box
    assert exact_objective(matrix, best, 1, 1) == Fraction(1, 4)
    assert exact_objective(matrix, exact([0, 1]), 1, 1) == Fraction(1, 2)


# -- when H is invertible ----------------------------------------------------------------------------------------------


def check_rank(layer: tuple[Matrix, Matrix], formula: Any) -> None:
    """The formula is the rank of H, which does not depend on lambda > 0."""
    matrix = exact_hadamard(*layer)
    for penalty in (Fraction(1, 3), Fraction(7)):
        assert rank([[value + penalty for value in row] for row in matrix]) == formula(matrix)


def surely_definite(inputs: Matrix, weight: Matrix) -> bool:
    """Return whether X^T X > 0 and no row of W is zero, or W W^T > 0 and no column of X is zero."""
    width = len(weight)
    alive_weight, alive_inputs = all(any(row) for row in weight), all(any(column) for column in transpose(inputs))
    return (rank(inputs) == width and alive_weight) or (rank(weight) == width and alive_inputs)


def check_definite(layer: tuple[Matrix, Matrix], formula: Any) -> None:
    found = rank(exact_hadamard(*layer))
    assert found <= rank(layer[0]) * rank(layer[1])
    assert found == len(layer[1]) or not formula(*layer)


def check_singular_hessians() -> None:
    """The duplicate channels X = [1 1], W = (1, 1)^T have H = (1 + lambda) 1 1^T. With the two dead channels of X = I_3, W =
    (1, 0, 0)^T the rank is 2. With one, W = (1, 2, 0)^T, r = 3/2 and lambda = 1, H is invertible and gives the dead channel
    the score -1/2. For X = [1 1], W = (1, -1)^T, A is singular and H is not; z = (1/2, 1/2) at r = 1 prunes half of everything
    at no loss."""
    for inputs, weight, expected in (([[1, 1]], [[1], [1]], 1), (identity(3), [[1], [0], [0]], 2)):
        matrix = exact_hadamard(exact(inputs), exact(weight))
        for penalty in (1, 100):
            assert rank([[value + penalty for value in row] for row in matrix]) == expected < len(matrix)
    dead = exact_hadamard(identity(3), exact([[1], [2], [0]]))
    assert exact_newton(dead, Fraction(3, 2), 1) == exact(["1", "1", "-1/2"])
    opposite = exact_hadamard(exact([[1, 1]]), exact([[1], [-1]]))
    assert rank(opposite) == 1 and exact_newton(opposite, 1, 5) == exact(["1/2", "1/2"])


def check_minimiser(case: Relaxed, formula: Any) -> None:
    """The formula is a stationary point of a convex function, and so a minimiser, however singular H is."""
    assert_allclose(case.gradient(formula(case)), 0, atol=1e-8 * case.scale)


def ridged_step(case: Relaxed) -> np.ndarray:
    """Return one step with H + mean(diag A) I, the usual cure for a singular H."""
    ridge = float(np.mean(np.diag(case.hadamard))) or 1.0
    return case.start - np.linalg.solve(case.hessian + ridge * np.eye(case.width), case.gradient(case.start))


CLAIMS = (
    Claim(
        "N7",
        f"{PAPER}, Theorems 2 and 10",
        "Algorithm 1 gets the optimal z of Eq. (3), a minimum over z in [0, 1]^D.",
        Verdict.REFUTED,
        "Newton's method does not see the box. Its point lies inside exactly when a >= 0 (that is z <= 1) and "
        "lambda q a <= 1 + lambda s (z >= 0), and clipping it is not optimal. Bounded least squares solves Eq. (3).",
        (
            Property(
                "bounded least squares solves Eq. (3)",
                relaxed(definite=False),
                check_box,
                box_point,
                {
                    "Newton's point": newton_step,
                    "Newton's point, clipped": lambda case: np.clip(newton_step(case), 0, 1),
                },
            ),
            Property(
                "when Newton's point is inside",
                exact_problems(),
                check_inside,
                inside,
                {
                    "z <= 1 only": below_one,
                    "z >= 0 only": above_zero,
                    "always": lambda problem: True,
                },
            ),
        ),
        (Counterexample("two correlated channels", check_outside_the_box),),
    ),
    Claim(
        "N8",
        f"{PAPER}, Algorithm 1, line 10",
        "H^-1 exists for H = (W W^T) o (X^T X) + lambda 1_{D x D}, lambda > 0.",
        Verdict.CONDITIONAL,
        "ker H is what ker A and 1^perp share, so H is invertible exactly when A is, or ker A is a line on which 1^T v != 0. "
        "A is invertible if X^T X > 0 and no row of W is zero, or W W^T > 0 and no column of X is zero; rank A <= rank X rank "
        "W. Duplicate or dead channels make H singular. A minimiser always exists, and a least-squares step finds one.",
        (
            Property(
                "the rank of H",
                whole(),
                check_rank,
                lambda matrix: rank([*matrix, exact([1] * len(matrix))]),
                {
                    "rank A": rank,
                    "D": len,
                    "rank A + 1": lambda matrix: min(len(matrix), rank(matrix) + 1),
                },
            ),
            Property(
                "when A is invertible",
                whole(),
                check_definite,
                surely_definite,
                {
                    "X^T X > 0 alone": lambda inputs, weight: rank(inputs) == len(weight),
                    "W W^T > 0 alone": lambda inputs, weight: rank(weight) == len(weight),
                    "no dead channel": lambda inputs, weight: all(map(any, weight)) and all(map(any, transpose(inputs))),
                },
            ),
            Property(
                "a least-squares step serves any H",
                relaxed(definite=False),
                check_minimiser,
                newton_step,
                {
                    "a ridge": ridged_step,
                    "no step": lambda case: case.start,
                },
            ),
        ),
        (Counterexample("duplicate and dead channels", check_singular_hessians),),
    ),
)
