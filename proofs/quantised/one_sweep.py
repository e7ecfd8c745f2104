"""One sweep over columns that are pruned and quantised (claims C1, C2): what remains is the argmin, and zeros are exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from gramian.proofs.kit.claims import Claim, Property, Verdict
from gramian.solvers import Grid, Quadratic, quantise
from gramian.solvers.support.obs import inverse_factor

__all__ = ["C1", "C2"]


class Decided(NamedTuple):
    """inputs: X (N, p), of full rank. weights: V (q, p), best given its first j. column: j. value: what it becomes, (q,)."""

    inputs: np.ndarray
    weights: np.ndarray
    column: int
    value: np.ndarray


@st.composite
def decided(draw: st.DrawFn) -> Decided:
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    width, rows = draw(st.integers(2, 7)), draw(st.integers(1, 4))
    inputs = rng.normal(size=(3 * width, width)) @ (np.eye(width) + rng.normal(size=(width, width)) / 2)
    weights, column = rng.normal(size=(rows, width)), draw(st.integers(0, width - 2))
    return Decided(inputs, weights, column, np.round(weights[:, column]) * rng.integers(0, 2, size=rows))


Update = Callable[[np.ndarray, np.ndarray, int, np.ndarray], np.ndarray]  # U, V, j, and what V_j becomes


def update(factor: np.ndarray, weights: np.ndarray, j: int, value: np.ndarray, power: int = 1, later: int = 0) -> np.ndarray:
    """V_{j:} - (v_j - q_j) / U_jj U_{j,j:}."""
    error = (weights[:, j] - value) / factor[j, j] ** power
    found = weights.copy()
    found[:, j + later :] -= np.outer(error, factor[j, j + later :])
    return found


def is_the_argmin(case: Decided, formula: Update) -> None:
    """Least squares on the columns right of j, all others held."""
    gram, j = case.inputs.T @ case.inputs, case.column
    factor = inverse_factor(Quadratic(gram, case.weights), 0.0)[0]
    found = formula(factor, case.weights, j, case.value)
    np.testing.assert_allclose(found[:, j], case.value, atol=1e-9)
    right = case.inputs[:, j + 1 :]
    target = case.inputs[:, j] * (case.weights[:, j] - case.value)[:, None]
    change = np.linalg.lstsq(right, target.T, rcond=None)[0].T
    np.testing.assert_allclose(found[:, j + 1 :], case.weights[:, j + 1 :] + change, rtol=1e-7, atol=1e-7)


C1 = Claim(
    "C1",
    "gramian, solvers/support/sweep.py",
    "where V is best given its first j - 1 columns, V_{j:} - (v_j - q_j) / U_jj U_{j,j:} with G^-1 = U^T U is best given its "
    "first j columns, of which the last is q_j, whether q_j is zero or rounded",
    Verdict.HOLDS,
    properties=(
        Property(
            "V_{j+1:} + argmin_D |X_{j+1:} D^T - X_j (v_j - q_j)^T|^2 = V_{j+1:} - (v_j - q_j) / U_jj U_{j,j+1:}",
            decided(),
            is_the_argmin,
            update,
            {
                "divided by U_jj^2": lambda factor, weights, j, value: update(factor, weights, j, value, 2),
                "the column alone": lambda factor, weights, j, value: np.where(
                    np.arange(weights.shape[1]) == j, value[:, None], weights
                ),
                "the lower factor": lambda factor, weights, j, value: update(factor.T, weights, j, value),
            },
        ),
    ),
)


class Layer(NamedTuple):
    """A problem of inputs X (N, p) and weights W (q, p), bits, and inputs that share a scale."""

    problem: Quadratic
    bits: int
    group: int


@st.composite
def small_layers(draw: st.DrawFn) -> Layer:
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    inputs, weight = rng.normal(size=(20, 8)), rng.normal(size=(3, 8))
    return Layer(Quadratic.from_data(inputs, weight), draw(st.sampled_from([2, 4, 8])), draw(st.sampled_from([4, 8])))


def dequantised(layer: Layer, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """s c, and the mask, of a sweep that keeps two of every four; shift: of the grid, in steps."""
    found = quantise(layer.problem, "2:4", bits=layer.bits, group=layer.group)
    scales = Grid(layer.bits, layer.group).spread(found.scales, 8)
    return (np.asarray(found.codes) + shift) * np.asarray(scales), np.asarray(found.mask)


def zeros_are_exact(layer: Layer, formula: Callable[[Layer], tuple[np.ndarray, np.ndarray]]) -> None:
    weights, mask = formula(layer)
    assert np.all(weights[~mask] == 0)
    assert np.all(mask.reshape(3, -1, 4).sum(axis=2) == 2)
    assert np.all(weights.astype(np.float32) == weights), "codes times scales are exact in float32"


C2 = Claim(
    "C2",
    "gramian, solvers/quantised/one_sweep.py",
    "what is pruned is exactly zero once codes are multiplied by scales, and products of codes and scales are exact in float32",
    Verdict.HOLDS,
    properties=(
        Property(
            "s c = 0 off the mask, and float32(s c) = s c",
            small_layers(),
            zeros_are_exact,
            dequantised,
            {
                "a grid between whole numbers": lambda layer: dequantised(layer, 0.5),
                "no mask": lambda layer: (dequantised(layer)[0] + 1e-9, dequantised(layer)[1]),
            },
        ),
    ),
)
