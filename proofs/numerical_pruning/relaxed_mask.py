"""Numerical Pruning, Section 3.2: the relaxed mask and Newton's method for it, Eqs. (2)-(7) and Algorithm 1 (claims N4 to N6).

Shapes are those of the paper: X is (N, D), W is (D, D'), and the mask z is (D,). With A = (W W^T) o (X^T X), u = 1 - z and q =
D - r, Eq. (3) reads min 1/2 u^T A u + 1/2 lambda (q - 1^T u)^2. Where A is invertible, a = A^-1 1 and s = 1^T a, Newton's
point is u = lambda q / (1 + lambda s) a, which tends to q a / s as lambda grows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose

from gramian.proofs.kit.claims import Claim, Counterexample, Property, Verdict
from gramian.proofs.kit.convex import cvxpy
from gramian.proofs.kit.rational import Matrix, Rational, Vector, dot, exact, identity, matmul, solve, transpose
from gramian.proofs.kit.references import central_gradient
from gramian.proofs.kit.strategies import layers

__all__ = ["CLAIMS", "Relaxed", "limit_point", "newton_point", "newton_step", "relaxed"]

PAPER = "Numerical Pruning"


@dataclass(frozen=True)
class Relaxed:
    """inputs: X (N, D). weight: W (D, D'). kept: r in (0, D). penalty: lambda > 0. start: z_0 (D,)."""

    inputs: np.ndarray
    weight: np.ndarray
    kept: float
    penalty: float
    start: np.ndarray

    @property
    def hadamard(self) -> np.ndarray:
        """A = (W W^T) o (X^T X), (D, D), positive semidefinite."""
        return np.asarray((self.weight @ self.weight.T) * (self.inputs.T @ self.inputs))

    @property
    def hessian(self) -> np.ndarray:
        """H = A + lambda 1 1^T, Eq. (7)."""
        return self.hadamard + self.penalty

    @property
    def width(self) -> int:
        return int(self.weight.shape[0])

    @property
    def excess(self) -> float:
        """Return q = D - r, how much of the mask is to be removed."""
        return self.width - self.kept

    @property
    def scale(self) -> float:
        """Return the size of what rounding errors of an objective are relative to."""
        return float(np.sum(self.inputs**2) * np.sum(self.weight**2)) + self.penalty * self.width**2

    def objective(self, mask: np.ndarray) -> float:
        """Return Eq. (3), computed from its definition."""
        error = self.inputs @ self.weight - self.inputs @ (mask[:, None] * self.weight)
        return 0.5 * float(np.sum(error**2)) + 0.5 * self.penalty * (float(np.sum(mask)) - self.kept) ** 2

    def gradient(self, mask: np.ndarray) -> np.ndarray:
        """Eq. (6)."""
        return np.asarray(self.hadamard @ (mask - 1) + self.penalty * (np.sum(mask) - self.kept))


@st.composite
def relaxed(draw: st.DrawFn, definite: bool = True, size: int = 4, diagonal: bool = False) -> Relaxed:
    """Draw a relaxed mask problem. definite: X holds the rows of I and W a column of ones, so that A >= I before scaling.
    diagonal: X is diagonal."""
    layer = draw(layers(tokens=4, inputs=size, outputs=2, shifted=False, scales=(1.0,)))
    inputs, weight = layer.inputs, layer.weight.T
    width = weight.shape[0]
    if diagonal:
        inputs = np.diag(1 + np.abs(inputs[0]))
    elif definite:
        inputs = np.vstack([inputs, np.eye(width)])
    if definite or diagonal:
        weight = np.column_stack([weight, np.ones(width)])
    inputs = inputs * draw(st.sampled_from([1.0, 1e-3, 1e3]))
    unit = float(np.mean((weight @ weight.T).diagonal() * np.sum(inputs**2, axis=0))) or 1.0
    kept = width * draw(st.sampled_from([0.1, 0.25, 0.5, 0.8]))
    penalty = unit * draw(st.sampled_from([1e-2, 1.0, 1e2]))
    return Relaxed(inputs, weight, kept, penalty, draw(arrays(float, width, elements=st.sampled_from([0.0, 0.5, 1.0]))))


# -- exact forms for the counterexamples -------------------------------------------------------------------------------


def exact_hadamard(inputs: Matrix, weight: Matrix) -> Matrix:
    left, right = matmul(weight, transpose(weight)), matmul(transpose(inputs), inputs)
    return [[x * y for x, y in zip(*rows, strict=True)] for rows in zip(left, right, strict=True)]


def exact_gradient(matrix: Matrix, mask: Vector, kept: Rational, penalty: Rational) -> Vector:
    excess = penalty * (sum(mask) - kept)
    return [value + excess for value in matmul(matrix, [entry - 1 for entry in mask])]


def exact_objective(matrix: Matrix, mask: Vector, kept: Rational, penalty: Rational) -> Fraction:
    change = [1 - entry for entry in mask]
    return (dot(change, matmul(matrix, change)) + penalty * (sum(mask) - kept) ** 2) / 2


def exact_newton(matrix: Matrix, kept: Rational, penalty: Rational) -> Vector:
    """Return z with A z + lambda 1 1^T z = A 1 + lambda r 1, which is one Newton step from anywhere."""
    hessian = [[value + penalty for value in row] for row in matrix]
    return solve(hessian, [sum(row) + penalty * kept for row in matrix])


def exact_limit(matrix: Matrix, kept: Rational) -> Vector:
    """1 - q a / s: Newton's point for lambda to infinity, which minimises on 1^T z = r."""
    direction = solve(matrix, [Fraction(1)] * len(matrix))
    return [1 - (len(matrix) - kept) * value / sum(direction) for value in direction]


# -- the closed form and Algorithm 1 -----------------------------------------------------------------------------------


def newton_point(case: Relaxed) -> np.ndarray:
    """1 - lambda q / (1 + lambda s) a."""
    direction = np.linalg.solve(case.hadamard, np.ones(case.width))
    return np.asarray(1 - case.penalty * case.excess / (1 + case.penalty * np.sum(direction)) * direction)


def limit_point(case: Relaxed) -> np.ndarray:
    """1 - q a / s."""
    direction = np.linalg.solve(case.hadamard, np.ones(case.width))
    return np.asarray(1 - case.excess * direction / np.sum(direction))


def newton_step(case: Relaxed) -> np.ndarray:
    """z_0 - H^-1 g: one turn of Algorithm 1, and the least-norm step where H is singular."""
    return np.asarray(case.start - np.linalg.lstsq(case.hessian, case.gradient(case.start), rcond=1e-12)[0])


def overshoot(case: Relaxed) -> float:
    """1^T z - r = q / (1 + lambda s) at Newton's point."""
    return case.excess / (1 + case.penalty * float(np.sum(np.linalg.inv(case.hadamard))))


def check_overshoot(case: Relaxed, formula: Any) -> None:
    """The formula is how far the constraint is missed; it is positive, and falls in lambda like 1 / lambda."""
    value = formula(case)
    assert_allclose(value, np.sum(newton_step(case)) - case.kept, rtol=0, atol=1e-8 * case.width)
    far = replace(case, penalty=1e6 * case.penalty), replace(case, penalty=1e9 * case.penalty)
    assert value > formula(far[0]) > formula(far[1]) > 0
    assert_allclose(formula(far[0]), 1e3 * formula(far[1]), rtol=1e-3)


def optimum(case: Relaxed) -> float:
    """1/2 lambda q^2 / (1 + lambda s): Eq. (3) at its unconstrained minimiser."""
    return 0.5 * case.penalty * case.excess * overshoot(case)


def check_newton(case: Relaxed, formula: Any) -> None:
    """The gradient vanishes at that point, wherever the iteration started, so that nothing remains to be done."""
    gradient = case.gradient(formula(case))
    assert_allclose(gradient, 0, atol=1e-9 * case.scale)


def check_optimum(case: Relaxed, formula: Any) -> None:
    assert_allclose(formula(case), case.objective(newton_step(case)), rtol=1e-7)


def ridge_step(case: Relaxed) -> np.ndarray:
    """Return one step with H_r = lambda I for lambda 1 1^T."""
    return case.start - np.linalg.solve(case.hadamard + case.penalty * np.eye(case.width), case.gradient(case.start))


# -- Eqs. (6), (7) -----------------------------------------------------------------------------------------------------


def check_derivatives(case: Relaxed, formula: Any) -> None:
    """(g, H) agree with differences of the definition, which for a quadratic are exact at any step, and H is positive
    semidefinite."""
    gradient, hessian = formula(case, case.start)
    assert_allclose(gradient, central_gradient(case.objective, case.start, 0.5), rtol=0, atol=1e-9 * case.scale)
    columns = [case.gradient(case.start + unit) - case.gradient(case.start) for unit in np.eye(case.width)]
    assert_allclose(hessian, np.transpose(columns), rtol=0, atol=1e-9 * case.scale)
    assert np.linalg.eigvalsh(hessian - case.penalty).min() >= -1e-9 * case.scale  # a Hadamard product of two such matrices
    change = 1 - case.start
    loss = case.objective(case.start) - 0.5 * case.penalty * (np.sum(case.start) - case.kept) ** 2
    assert_allclose(0.5 * change @ (hessian - case.penalty) @ change, loss, rtol=0, atol=1e-9 * case.scale)


def derivatives(case: Relaxed, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return case.gradient(mask), case.hessian


# -- Eq. (2) against Eq. (3) -------------------------------------------------------------------------------------------


def linear_optimum(problem: tuple[list[int], float]) -> float:
    """Return Eq. (2) for X = I and W = diag(w): sum w_j u_j is least when the smallest w_j are removed first, as far as q
    reaches."""
    weights, excess = problem
    return sum(weight * min(1.0, max(0.0, excess - rank)) for rank, weight in enumerate(sorted(weights)))


def squared_value(problem: tuple[list[int], float]) -> float:
    """Return Eq. (2) at the minimiser of 1/2 sum w_j^2 u_j^2, where u_j is proportional to 1 / w_j^2."""
    weights, excess = np.array(problem[0], dtype=float), problem[1]
    return float(np.sum(weights * excess * weights**-2 / np.sum(weights**-2)))


def check_linear(problem: tuple[list[int], float], formula: Any) -> None:
    """The formula is the optimum of Eq. (2) as it stands, which an interior point method finds."""
    cp = cvxpy()
    weight = np.diag(np.array(problem[0], dtype=float))
    mask = cp.Variable(len(weight))
    errors = sum(cp.norm(column - cp.multiply(mask, column)) for column in weight.T)
    model = cp.Problem(cp.Minimize(errors), [cp.sum(mask) == len(weight) - problem[1], mask >= 0, mask <= 1])
    assert_allclose(model.solve(solver=cp.CLARABEL), formula(problem), rtol=1e-6)


def check_other_problem() -> None:
    """With X = I_2, W = diag(2, 1) and r = 1, Eq. (2) is 1 + t on the segment z = (1 - t, t), and least at (1, 0); its square
    is least at (4/5, 1/5). The minimiser of Eq. (3) at lambda = 1 is (8/9, 5/9), which Eq. (2) does not admit."""
    matrix = exact_hadamard(identity(2), exact([[2, 0], [0, 1]]))
    assert exact_limit(matrix, 1) == exact(["4/5", "1/5"])
    assert 2 * (1 - Fraction(4, 5)) + (1 - Fraction(1, 5)) == Fraction(6, 5) > 2 * (1 - 1) + (1 - 0)
    assert exact_objective(matrix, exact(["4/5", "1/5"]), 1, 1) < exact_objective(matrix, exact([1, 0]), 1, 1)
    penalised = exact_newton(matrix, 1, 1)
    assert penalised == exact(["8/9", "5/9"]) and exact_gradient(matrix, penalised, 1, 1) == [0, 0]
    assert sum(penalised) == Fraction(13, 9) != 1


SEPARATE = st.tuples(st.lists(st.integers(1, 9), min_size=2, max_size=4, unique=True), st.sampled_from([0.5, 1.0, 1.5]))

CLAIMS = (
    Claim(
        "N4",
        f"{PAPER}, Eqs. (2) and (3)",
        "argmin over z in [0, 1]^D with 1^T z = r of sum_i |X W_i - X (z o W_i)|_2 is equivalent to "
        "argmin over z in [0, 1]^D of 1/2 sum_i |X W_i - X (z o W_i)|_2^2 + 1/2 lambda (1^T z - r)^2.",
        Verdict.REFUTED,
        "Squares change the minimiser (not for D' = 1), and a penalty is no equality: at the unconstrained minimiser of (3), "
        "A invertible, 1^T z - r = q / (1 + lambda s), which is positive for r < D and of order 1 / lambda. For X = I and "
        "diagonal W (2) removes the smallest channels whole, while squares spread u_j as 1 / W_jj^2.",
        (
            Property(
                "the constraint is missed by q / (1 + lambda s)",
                relaxed(),
                check_overshoot,
                overshoot,
                {
                    "no 1": lambda case: case.excess / (case.penalty * np.sum(np.linalg.inv(case.hadamard))),
                    "r for q": lambda case: overshoot(case) * case.kept / case.excess,
                    "no lambda": lambda case: overshoot(replace(case, penalty=1.0)),
                },
            ),
            Property(
                "Eq. (2) for orthogonal channels",
                SEPARATE,
                check_linear,
                linear_optimum,
                {"the minimiser of the squares": squared_value},
                slow=20,
            ),
        ),
        (Counterexample("two orthogonal channels", check_other_problem),),
    ),
    Claim(
        "N5",
        f"{PAPER}, Eqs. (6) and (7), Lemmas 12-15",
        "For Eq. (3): g = ((W W^T) o (X^T X))(z - 1_D) + lambda (1^T z - r) 1_D and H = (W W^T) o (X^T X) + lambda 1_{D x D}.",
        Verdict.HOLDS,
        "It holds as printed, but for slips on the way: f(z)_i = X (z o W_i) and its derivatives are in R^N, not R^D, and the "
        "middle line of Lemma 15 needs the outer product 1_D 1_D^T. A is positive semidefinite (Schur), and L(z) = 1/2 (1 - "
        "z)^T A (1 - z).",
        (
            Property(
                "gradient and Hessian",
                relaxed(definite=False),
                check_derivatives,
                derivatives,
                {
                    "1 - z": lambda case, mask: (case.gradient(2 - mask), case.hessian),
                    "no 1/2 in the loss": lambda case, mask: (2 * case.gradient(mask), 2 * case.hessian),
                    "no penalty": lambda case, mask: (case.hadamard @ (mask - 1), case.hadamard),
                    "lambda I for lambda 1 1^T": lambda case, mask: (
                        case.gradient(mask),
                        case.hadamard + case.penalty * np.eye(case.width),
                    ),
                    "matrix product for Hadamard product": lambda case, mask: (
                        case.gradient(mask),
                        case.weight @ case.weight.T @ case.inputs.T @ case.inputs + case.penalty,
                    ),
                },
            ),
        ),
    ),
    Claim(
        "N6",
        f"{PAPER}, Algorithm 1 and Section 3.5",
        "z_{t+1} = z_t - H^-1 g from any z_0 in [0, 1]^D converges in T (about 50) iterations to the optimum, in O(T D^3).",
        Verdict.CONDITIONAL,
        "It converges to the optimum without the box, if H is invertible. The objective is quadratic, so one step is exact "
        "from any z_0, and T is 1. If A is invertible, z = 1 - lambda q / (1 + lambda s) A^-1 1, with the objective 1/2 "
        "lambda q^2 / (1 + lambda s). The cost is one Cholesky factor, D^3 / 3, and the forming of A, N D^2 + D^2 D', which "
        "O(T D^3) omits and which dominates for N >> D. In the pseudocode lines 4 and 5 should read z_t for z, and t = 0..T "
        "is T + 1 steps.",
        (
            Property(
                "the closed form",
                relaxed(),
                check_newton,
                newton_point,
                {
                    "no 1 in the denominator": limit_point,
                    "r for q": lambda case: newton_point(replace(case, kept=case.excess)),
                    "the other sign": lambda case: 2 - newton_point(case),
                },
            ),
            Property(
                "one step from anywhere",
                relaxed(),
                check_newton,
                newton_step,
                {
                    "half a step": lambda case: (case.start + newton_step(case)) / 2,
                    "H_r = lambda I": ridge_step,
                    "no penalty in g": lambda case: newton_step(replace(case, kept=float(np.sum(case.start)))),
                },
            ),
            Property(
                "the optimum",
                relaxed(),
                check_optimum,
                optimum,
                {
                    "no 1/2": lambda case: 2 * optimum(case),
                    "q for q^2": lambda case: optimum(case) / case.excess,
                    "the limit of large lambda": lambda case: case.excess**2 / (2 * np.sum(np.linalg.inv(case.hadamard))),
                },
            ),
        ),
    ),
)
