"""Greedy Output Approximation, Sec. 3.3: the two-step recovery of Algorithm 2 (claims G9, G10). Y = X W, with tokens in
rows."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from gramian.proofs.greedy_output.gaussian_moments import relu
from gramian.proofs.kit.claims import Claim, Counterexample, Property, Verdict
from gramian.proofs.kit.grids import grids
from gramian.proofs.kit.rational import dot, exact, matmul, solve, transpose

__all__ = ["G9", "G10", "least_squares"]

PAPER = "Greedy Output Approximation"


class Module(NamedTuple):
    """dense: X (N, d). pruned: what the pruned predecessors deliver, (N, d). first: W1 (d, h). second: W2 (h, o)."""

    dense: np.ndarray
    pruned: np.ndarray
    first: np.ndarray
    second: np.ndarray


@st.composite
def modules(draw: st.DrawFn) -> Module:
    tokens, width, inner, outputs = (draw(st.integers(1, top)) for top in (5, 3, 3, 2))
    return Module(*draw(grids((tokens, width), (tokens, width), (width, inner), (inner, outputs))))


Fit = Callable[[np.ndarray, np.ndarray], np.ndarray]  # inputs (N, d), outputs (N, q) to weights (d, q)


def least_squares(inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """argmin_W |X W - Y|_F, the one of least norm: X^+ Y."""
    return np.asarray(np.linalg.pinv(inputs, rcond=1e-10) @ outputs)


def with_ridge(inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    return np.linalg.solve(inputs.T @ inputs + np.eye(inputs.shape[1]), inputs.T @ outputs)


# --- G9: what each level, and both together, minimise ----------------------------------------------------------------


def is_optimal_for_its_level(module: Module, formula: Callable[[Module, np.ndarray], np.ndarray]) -> None:
    """The formula gives new weights of the first level for target outputs. They solve the normal equations, and are no worse
    than the dense ones."""
    outputs = module.dense @ module.first
    residual = module.pruned @ formula(module, outputs) - outputs
    np.testing.assert_allclose(module.pruned.T @ residual, 0, rtol=0, atol=1e-9)
    assert np.sum(residual**2) <= np.sum((module.pruned @ module.first - outputs) ** 2) + 1e-9


def recover(module: Module, fit: Fit = least_squares, activation: Callable[[Any], Any] = lambda value: value) -> np.ndarray:
    """Run Algorithm 2, both levels in turn, and return the module's outputs with the new weights."""
    first_outputs = module.dense @ module.first
    second_outputs = activation(first_outputs) @ module.second
    hidden = activation(module.pruned @ fit(module.pruned, first_outputs))
    return np.asarray(hidden @ fit(hidden, second_outputs))


def is_optimal_for_linear_modules(module: Module, formula: Callable[[Module], np.ndarray]) -> None:
    """Nothing that is linear in X* is nearer to Y than its projection on the columns of X*."""
    target = module.dense @ module.first @ module.second
    nearest = np.linalg.lstsq(module.pruned, target, rcond=1e-10)[0]
    np.testing.assert_allclose(formula(module), module.pruned @ nearest, rtol=0, atol=1e-8)


def changes_nothing_without_drift(module: Module, formula: Callable[[Module], np.ndarray]) -> None:
    """Where X* = X every level fits already, whatever the activation, so what is removed from the module later is not made up
    for."""
    target = relu(module.dense @ module.first) @ module.second
    np.testing.assert_allclose(formula(module._replace(pruned=module.dense)), target, rtol=0, atol=1e-8)


def fitted_scalar(inputs: list[Fraction], outputs: list[Fraction]) -> list[Fraction]:
    weight = dot(inputs, outputs) / dot(inputs, inputs)
    return [weight * value for value in inputs]


def both_levels_are_worse_than_none() -> None:
    """There is one feature, X = (-1, -1, 0), X* = (-1, 2, 2), W1 = -2, W2 = 1 and a ReLU: the error is 6 with Algorithm 2, and
    4 without."""
    dense, pruned = exact([-1, -1, 0]), exact([-1, 2, 2])
    first = [-2 * value for value in dense]
    target = [max(value, Fraction(0)) for value in first]
    recovered = [max(value, Fraction(0)) for value in fitted_scalar(pruned, first)]
    untouched = [max(-2 * value, Fraction(0)) for value in pruned]
    errors = [
        sum((a - b) ** 2 for a, b in zip(outputs, target))
        for outputs in (fitted_scalar(recovered, target), untouched, fitted_scalar(untouched, target))
    ]
    assert errors == [6, 4, 4]


def first_level_switches_the_module_off() -> None:
    """X = (-2, -2, -2), X* = (-1, 2, -1), W1 = W2 = -2 and a ReLU: the first level becomes 0, at an error of 192; it is 96
    without the algorithm, and 64 with its second level alone."""
    dense, pruned = exact([-2, -2, -2]), exact([-1, 2, -1])
    first = [-2 * value for value in dense]
    target = [-2 * max(value, Fraction(0)) for value in first]
    assert fitted_scalar(pruned, first) == [0, 0, 0]
    hidden = [max(-2 * value, Fraction(0)) for value in pruned]
    assert sum(value**2 for value in target) == 192
    assert sum((-2 * value - goal) ** 2 for value, goal in zip(hidden, target)) == 96
    assert sum((value - goal) ** 2 for value, goal in zip(fitted_scalar(hidden, target), target)) == 64


G9 = Claim(
    "G9",
    f"{PAPER}, Sec. 3.3 and Algorithm 2",
    "least squares for W1 on (X*, Y1), then for W2 on (s(X* W1), Y2), aligns the module's output as closely as possible and "
    "effectively minimises pruning errors",
    Verdict.REFUTED,
    "Each level is optimal for its own target; with a linear s the two together are optimal, at error |(I - P) Y2|, P the "
    "projection on the columns of X*. Through a ReLU they can be worse than the dense weights. Only drift of the input is "
    "corrected: where X* = X nothing changes, so what is pruned in the module afterwards is not made up for. Singular Grams "
    "need the pseudoinverse.",
    (
        Property(
            "each level solves its normal equations and is no worse than the dense weights",
            modules(),
            is_optimal_for_its_level,
            lambda module, outputs: least_squares(module.pruned, outputs),
            {
                "a hidden ridge": lambda module, outputs: with_ridge(module.pruned, outputs),
                "Gram of the dense inputs": lambda module, outputs: (
                    np.linalg.pinv(module.dense.T @ module.dense) @ module.pruned.T @ outputs
                ),
                "fitted to the dense inputs": lambda module, outputs: least_squares(module.dense, outputs),
            },
        ),
        Property(
            "linear s: the outputs are the projection of Y2 on the columns of X*",
            modules(),
            is_optimal_for_linear_modules,
            recover,
            {
                "second level only": lambda module: (
                    module.pruned
                    @ module.first
                    @ least_squares(module.pruned @ module.first, module.dense @ module.first @ module.second)
                ),
                "dense weights": lambda module: module.pruned @ module.first @ module.second,
                "a hidden ridge": lambda module: recover(module, with_ridge),
            },
        ),
        Property(
            "without drift the outputs do not change, ReLU included",
            modules(),
            changes_nothing_without_drift,
            lambda module: recover(module, activation=relu),
            {"a hidden ridge": lambda module: recover(module, with_ridge, relu)},
        ),
    ),
    (
        Counterexample("both levels are worse than none, all Grams invertible", both_levels_are_worse_than_none),
        Counterexample("the first level switches the module off", first_level_switches_the_module_off),
    ),
)


# --- G10: the printed formula ----------------------------------------------------------------------------------------


class Regression(NamedTuple):
    """inputs: X (N, d) of full column rank. outputs: Y (N, q)."""

    inputs: np.ndarray
    outputs: np.ndarray


@st.composite
def regressions(draw: st.DrawFn) -> Regression:
    extra, width, outputs = draw(st.integers(0, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    rows, targets = draw(grids((extra, width), (extra + width, outputs)))
    inputs = np.vstack([rows, np.eye(width)])
    inputs[-1, 0] += 1  # not symmetric when square
    return Regression(inputs, targets)


class Solver(NamedTuple):
    """rows: of X (N, d), Y (N, q), for Y = X W. columns: of X (d, N), Y (q, N), for Y = W X."""

    rows: Callable[[np.ndarray, np.ndarray], np.ndarray]
    columns: Callable[[np.ndarray, np.ndarray], np.ndarray]


def solves_both_orientations(instance: Regression, formula: Solver) -> None:
    exact_weights = np.linalg.lstsq(instance.inputs, instance.outputs, rcond=None)[0]
    try:
        rows = formula.rows(instance.inputs, instance.outputs)
        columns = formula.columns(instance.inputs.T, instance.outputs.T)
    except (ValueError, np.linalg.LinAlgError) as error:
        raise AssertionError(f"the shapes do not fit: {error}") from error
    np.testing.assert_allclose(rows, exact_weights, rtol=0, atol=1e-8)
    np.testing.assert_allclose(columns, exact_weights.T, rtol=0, atol=1e-8)


def gram_rows(inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    return np.linalg.solve(inputs.T @ inputs, inputs.T @ outputs)


def gram_columns(inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    return np.linalg.solve(inputs @ inputs.T, inputs @ outputs.T).T


def printed_solution(inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.pinv(inputs @ inputs.T) @ inputs.T @ outputs)


def printed_product_does_not_exist() -> None:
    """For two tokens of one feature X X^T is (2, 2) and X^T is (1, 2); the other way round they are (1, 1) and (2, 1)."""
    for inputs in (exact([[1], [2]]), exact([[1, 2]])):
        square, flipped = matmul(inputs, transpose(inputs)), transpose(inputs)
        assert len(square[0]) != len(flipped)


def printed_product_when_square() -> None:
    """X = [[1, 1], [0, 1]], W = (1, 1)^T, Y = X W: least squares returns W, and the printed formula (-1, 4)^T."""
    inputs, weight = exact([[1, 1], [0, 1]]), exact([1, 1])
    outputs = matmul(inputs, weight)
    printed = solve(matmul(inputs, transpose(inputs)), matmul(transpose(inputs), outputs))
    correct = solve(matmul(transpose(inputs), inputs), matmul(transpose(inputs), outputs))
    assert printed == exact([-1, 4]) and correct == weight


G10 = Claim(
    "G10",
    f"{PAPER}, Algorithm 2",
    "W = (X X^T)^-1 X^T Y, then Y = W X",
    Verdict.REFUTED,
    "The product exists only for square X, where it solves Y = X W only if X is normal. For X (N, d) and Y = X W the solution "
    "is W = (X^T X)^-1 X^T Y, as Algorithms 3 and 4 have it with xtx. For X (d, N) and Y = W X it is W = Y X^T (X X^T)^-1.",
    (
        Property(
            "(X^T X)^-1 X^T Y for tokens in rows, Y X^T (X X^T)^-1 for tokens in columns",
            regressions(),
            solves_both_orientations,
            Solver(gram_rows, gram_columns),
            {
                "as printed, tokens in rows": Solver(printed_solution, gram_columns),
                "as printed, tokens in columns": Solver(gram_rows, printed_solution),
                "normal equations of the other orientation": Solver(gram_columns, gram_rows),
            },
        ),
    ),
    (
        Counterexample("the product does not exist", printed_product_does_not_exist),
        Counterexample("the product is wrong for a square X", printed_product_when_square),
    ),
)
