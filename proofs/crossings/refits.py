"""Refits across the papers: compensation, the LASSO without its penalty, and least-squares recovery (claims X3 to X5).

The inputs are X (N, p), the weights W (p, q), the outputs Y = X W, and G = X^T X; P are the pruned inputs, K the kept ones.
FISTAPruner's arrays are the transposes of these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from gramian.proofs.greedy_output.recovery import least_squares
from gramian.proofs.greedy_output.second_moments import squared_norm
from gramian.proofs.kit.claims import Claim, Counterexample, Property, Verdict
from gramian.proofs.kit.grids import grids
from gramian.proofs.kit.rational import exact, matmul, solve, transpose
from gramian.proofs.kit.references import exact_lasso

__all__ = ["X3", "X4", "X5", "close"]

GREEDY, NUMERICAL, FISTA = "Greedy Output Approximation", "Numerical Pruning", "FISTAPruner"


class Split(NamedTuple):
    """inputs: X (N, p). drifted: X* (N, p), what pruned predecessors deliver. weight: W (p, q). pruned: boolean (p,)."""

    inputs: np.ndarray
    drifted: np.ndarray
    weight: np.ndarray
    pruned: np.ndarray

    @property
    def gram(self) -> np.ndarray:
        return np.asarray(self.inputs.T @ self.inputs)

    @property
    def outputs(self) -> np.ndarray:
        return np.asarray(self.inputs @ self.weight)

    def embedded(self, kept: np.ndarray) -> np.ndarray:
        """Return weights (p, q) that are zero on P, from those on K."""
        weight = np.zeros_like(self.weight)
        weight[~self.pruned] = kept
        return weight


@st.composite
def splits(draw: st.DrawFn, drift: bool = False) -> Split:
    """Draw layers with dead channels, with duplicate ones, and with more channels than tokens; any number of channels is
    removed."""
    tokens, width, outputs = draw(st.integers(1, 6)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    inputs, drifted, weight = draw(grids((tokens, width), (tokens, width), (width, outputs)))
    return Split(inputs, drifted if drift else inputs, weight, draw(grids((width,), values=(0.0, 1.0)))[0] > 0)


def close(measured: Any, expected: Any) -> None:
    np.testing.assert_allclose(measured, expected, rtol=0, atol=1e-9 * (1 + np.max(np.abs(expected), initial=0)))


def schur_loss(split: Split, sign: float = -1.0) -> float:
    """tr W_P^T (G_PP - G_PK G_KK^+ G_KP) W_P."""
    gone, kept, gram = split.pruned, ~split.pruned, split.gram
    coupling = gram[np.ix_(gone, kept)]
    complement = gram[np.ix_(gone, gone)] + sign * coupling @ np.linalg.pinv(gram[np.ix_(kept, kept)], rcond=1e-10) @ coupling.T
    return float(np.trace(split.weight[gone].T @ complement @ split.weight[gone]))


def is_the_compensated_loss(split: Split, formula: Callable[[Split], float]) -> None:
    """The formula is the loss of least squares on the kept columns, computed from the data."""
    best = least_squares(split.inputs[:, ~split.pruned], split.outputs)
    loss = formula(split)
    close(loss, squared_norm(split.inputs[:, ~split.pruned] @ best - split.outputs))
    plain = squared_norm(split.inputs[:, split.pruned] @ split.weight[split.pruned])
    assert -1e-9 * (1 + plain) <= loss <= plain * (1 + 1e-9) + 1e-9


X3 = Claim(
    "X3",
    f"{NUMERICAL}, Remark 4 and Eq. (3)",
    "compensated loss = tr W_P^T (G / G_KK) W_P, G / G_KK the Schur complement: at most the uncompensated |X_P W_P|_F^2",
    Verdict.HOLDS,
    properties=(
        Property(
            "min over W_K of |X_K W_K - X W|^2 = tr W_P^T (G_PP - G_PK G_KK^+ G_KP) W_P <= |X_P W_P|^2",
            splits(),
            is_the_compensated_loss,
            schur_loss,
            {
                "the other sign": lambda split: schur_loss(split, 1.0),
                "without the coupling": lambda split: schur_loss(split, 0.0),
                "half of it": lambda split: 0.5 * schur_loss(split),
            },
        ),
    ),
)


def compensated(split: Split, inputs: np.ndarray, sign: float = 1.0) -> np.ndarray:
    """W_K + G_KK^+ G_KP W_P: Theorem 3 of Numerical Pruning as a refit, with the Gram of these inputs."""
    kept, gram = ~split.pruned, inputs.T @ inputs
    inverse = np.linalg.pinv(gram[np.ix_(kept, kept)], rcond=1e-10)
    return np.asarray(split.weight[kept] + sign * inverse @ gram[np.ix_(kept, split.pruned)] @ split.weight[split.pruned])


def is_stationary_on_the_support(split: Split, formula: Callable[[Split], np.ndarray]) -> None:
    """FISTAPruner's gradient X*^T (X* V - X W) vanishes on K, and the fit is that of the least-squares level."""
    kept = ~split.pruned
    weight = formula(split)
    residual = split.drifted @ split.embedded(weight) - split.outputs
    close(split.drifted[:, kept].T @ residual, np.zeros_like(weight))
    level = least_squares(split.drifted[:, kept], split.outputs)
    close(split.drifted[:, kept] @ weight, split.drifted[:, kept] @ level)


def drift_is_not_compensated() -> None:
    """With X = (1, 1)^T, X* = (2, 2)^T, W = 1 and nothing pruned, Theorem 3 keeps 1, but the optimum on X* is 1/2."""
    inputs, drifted = exact([[1], [1]]), exact([[2], [2]])
    optimum = solve(matmul(transpose(drifted), drifted), matmul(transpose(drifted), inputs))
    assert optimum == exact([["1/2"]]) and optimum != [[1]]


X4 = Claim(
    "X4",
    f"{NUMERICAL}, Theorem 3; {FISTA}, Eq. (3) with lambda = 0; {GREEDY}, Algorithm 2",
    "compensation after pruning, the LASSO problem without penalty on the support K, and a least-squares level on X_K agree",
    Verdict.CONDITIONAL,
    "All three agree where X* = X: W_K + G_KK^+ G_KP W_P has the same fit, and the same weights where X_K has full column "
    "rank. With X* != X the last two are X*_K^+ X W, and Theorem 3 does not know of the drift.",
    (
        Property(
            "X* = X: W_K + G_KK^+ G_KP W_P is stationary on K and fits like X_K^+ Y",
            splits(),
            is_stationary_on_the_support,
            lambda split: compensated(split, split.inputs),
            {
                "the other sign": lambda split: compensated(split, split.inputs, -1.0),
                "no compensation": lambda split: split.weight[~split.pruned],
            },
        ),
        Property(
            "X* != X: G*_KK^+ X*_K^T X W is stationary on K",
            splits(drift=True),
            is_stationary_on_the_support,
            lambda split: (
                np.linalg.pinv(split.drifted[:, ~split.pruned].T @ split.drifted[:, ~split.pruned], rcond=1e-10, hermitian=True)
                @ split.drifted[:, ~split.pruned].T
                @ split.outputs
            ),
            {
                "compensation with the Gram of X*": lambda split: compensated(split, split.drifted),
                "compensation with the Gram of X": lambda split: compensated(split, split.inputs),
            },
        ),
    ),
    (Counterexample("drift alone", drift_is_not_compensated),),
)


# --- X5: the LASSO and its support -----------------------------------------------------------------------------------


class Lasso(NamedTuple):
    """inputs: X (N, p). outputs: Y (N, q). penalty: lambda."""

    inputs: np.ndarray
    outputs: np.ndarray
    penalty: float


@st.composite
def lassos(draw: st.DrawFn) -> Lasso:
    tokens, width, outputs = draw(st.integers(1, 5)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    inputs, targets = draw(grids((tokens, width), (tokens, outputs)))
    return Lasso(inputs, targets, draw(st.sampled_from([0.1, 0.5, 2.0, 5.0])))


def refit(lasso: Lasso, row: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the least-squares weights on the support of one row of the LASSO solution."""
    support = np.abs(row) > 1e-9
    weight = np.zeros_like(row)
    weight[support] = least_squares(lasso.inputs[:, support], target)
    return weight


def never_fits_worse(lasso: Lasso, formula: Callable[[Lasso, np.ndarray, np.ndarray], np.ndarray]) -> None:
    """A refit fits no worse than the LASSO point v; there lambda |v|_1 = <X v, y - X v>, so v fits worse wherever it is
    shrunk."""
    point, _ = exact_lasso(lasso.inputs, lasso.outputs, lasso.penalty)
    for row, target in zip(point, lasso.outputs.T):
        residual = target - lasso.inputs @ row
        close(lasso.penalty * np.sum(np.abs(row)), (lasso.inputs @ row) @ residual)
        weight = formula(lasso, row, target)
        assert not np.any(weight[np.abs(row) <= 1e-9]), "outside of the support"
        assert squared_norm(lasso.inputs @ weight - target) <= squared_norm(residual) * (1 + 1e-9) + 1e-12


X5 = Claim(
    "X5",
    f"{FISTA}, Eq. (3); {NUMERICAL}, Theorem 3",
    "refitting on the support of the LASSO solution never fits worse than the LASSO solution",
    Verdict.HOLDS,
    properties=(
        Property(
            "|X V_refit - Y| <= |X V_lasso - Y|, with zeros in the same places",
            lassos(),
            never_fits_worse,
            refit,
            {
                "the free solution, masked": lambda lasso, row, target: (
                    least_squares(lasso.inputs, target) * (np.abs(row) > 1e-9)
                ),
                "shrunk once more": lambda lasso, row, target: 0.9 * row,
                "the free solution": lambda lasso, row, target: least_squares(lasso.inputs, target),
            },
        ),
    ),
)
