"""Numerical Pruning, Section 3.4 and Appendix B: Theorem 3 and Remark 4, weights that make up for pruned rows (claims N14,
N15).

Shapes are those of the paper: X is (N, D), W is (D, D'), and G = X^T X. P are the k pruned rows of W, K the kept ones, and M
is the (D, k) selection of P, so that M^T W = W_P. The change dW obeys dW_P = -W_P and costs |X dW|_F^2.
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
from gramian.proofs.kit.rational import dot, exact, matmul, rank, solve, transpose
from gramian.proofs.kit.strategies import layers
from gramian.solvers import Quadratic, Support, certify

__all__ = ["CLAIMS", "Pruned", "pruned_layers", "refit"]

PAPER = "Numerical Pruning"


@dataclass(frozen=True)
class Pruned:
    """inputs: X (N, D). weight: W (D, D'). pruned: boolean (D,), True for the rows of W that are removed; from
    `pruned_layers(outputs=True)` it is (D',), for columns. ridge: gamma > 0, in the units of 2 G."""

    inputs: np.ndarray
    weight: np.ndarray
    pruned: np.ndarray
    ridge: float

    @property
    def gram(self) -> np.ndarray:
        return np.asarray(self.inputs.T @ self.inputs)

    @property
    def gone(self) -> np.ndarray:
        return np.flatnonzero(self.pruned)

    @property
    def kept(self) -> np.ndarray:
        return np.flatnonzero(~self.pruned)

    @property
    def scale(self) -> float:
        """Return the size of what rounding errors of a loss are relative to."""
        return float(np.sum(self.inputs**2) * np.sum(self.weight**2))

    def loss(self, change: np.ndarray) -> float:
        return float(np.sum((self.inputs @ change) ** 2))

    def change(self, kept: Any = 0.0) -> np.ndarray:
        """Return dW, given what happens to the kept rows."""
        change = -self.weight * self.pruned[:, None]
        change[self.kept] = kept
        return np.asarray(change)

    def best(self, ridge: float = 0.0) -> np.ndarray:
        """argmin |X dW|_F^2 + ridge |dW|_F^2 by least squares on the kept rows; of all minimisers it is the smallest."""
        design = np.vstack([self.inputs[:, self.kept], np.sqrt(ridge) * np.eye(len(self.kept))])
        target = np.zeros((len(design), self.weight.shape[1]))
        target[: len(self.inputs)] = self.inputs[:, self.gone] @ self.weight[self.gone]
        return self.change(np.linalg.lstsq(design, target, rcond=None)[0])


@st.composite
def pruned_layers(draw: st.DrawFn, definite: bool = False, outputs: bool = False, inputs: int = 5) -> Pruned:
    """Draw a layer with rows to prune. definite: G >= I before scaling, because the rows of I are among those of X. outputs: W
    has columns to prune, not rows."""
    layer = draw(layers(tokens=3 if definite else 7, inputs=inputs, outputs=3, shifted=False, scales=(1.0,)))
    rows = np.vstack([layer.inputs, np.eye(layer.inputs.shape[1])]) if definite else layer.inputs
    rows = rows * draw(st.sampled_from([1.0, 1e-6, 1e6]))
    pruned = draw(arrays(bool, layer.weight.shape[0 if outputs else 1], fill=st.nothing()))
    ridge = draw(st.sampled_from([1e-2, 0.5, 3.0])) * (float(np.mean(rows**2)) or 1.0)
    return Pruned(rows, layer.weight.T.copy(), pruned, ridge)


# -- Theorem 3: the change ---------------------------------------------------------------------------------------------


def perturbation(case: Pruned, curvature: np.ndarray) -> np.ndarray:
    """-C^-1 M (M^T C^-1 M)^-1 M^T W, which is Eq. (11) for C = 2 G and its damped form for C = 2 G + gamma I."""
    inverse = np.linalg.inv(curvature)
    return -inverse[:, case.gone] @ np.linalg.solve(inverse[np.ix_(case.gone, case.gone)], case.weight[case.gone])


def theorem(case: Pruned) -> np.ndarray:
    return perturbation(case, 2 * case.gram)


def refit(case: Pruned) -> np.ndarray:
    """dW_K = G_KK^+ G_KP W_P: the least-squares refit of the kept rows, which needs no invertible G."""
    gram, kept, gone = case.gram, case.kept, case.gone
    inverse = np.linalg.pinv(gram[np.ix_(kept, kept)], rcond=1e-11, hermitian=True)
    return case.change(inverse @ gram[np.ix_(kept, gone)] @ case.weight[gone])


def no_inner_inverse(case: Pruned) -> np.ndarray:
    return np.asarray(-np.linalg.inv(2 * case.gram)[:, case.gone] @ case.weight[case.gone])


def block_of_the_gram(case: Pruned) -> np.ndarray:
    """Take M^T C M for (M^T C^-1 M)^-1."""
    gram = 2 * case.gram
    return np.asarray(-np.linalg.inv(gram)[:, case.gone] @ gram[np.ix_(case.gone, case.gone)] @ case.weight[case.gone])


def diagonal_refit(case: Pruned) -> np.ndarray:
    gram = case.gram
    size = np.diag(gram)[case.kept, None]
    return case.change(gram[np.ix_(case.kept, case.gone)] @ case.weight[case.gone] / np.where(size > 0, size, 1))


def check_theorem(case: Pruned, formula: Any) -> None:
    """The formula is the one minimiser, and the toolkit certifies it as optimal on its support."""
    change = formula(case)
    assert_allclose(change, case.best(), rtol=0, atol=1e-9 * np.max(np.abs(case.weight), initial=1))
    mask = np.repeat(~case.pruned[None, :], case.weight.shape[1], axis=0)
    answer = certify(Quadratic.from_data(case.inputs, case.weight.T), Support(mask), (case.weight + change).T)
    assert answer.residual is not None and answer.residual < 1e-9, answer
    assert answer.violation <= 1e-9 * np.max(np.abs(case.weight)), answer
    assert_allclose(2 * answer.objective, case.loss(change), rtol=0, atol=1e-9 * case.scale)


def check_refit(case: Pruned, formula: Any) -> None:
    """The pruned rows are exactly zero, X_K^T X dW = 0, and the residual R is Loewner-least: R'^T R' - R^T R is positive
    semidefinite for the R' of other feasible changes, so that R is least in every unitarily invariant norm."""
    change = formula(case)
    assert np.all((case.weight + change)[case.gone] == 0)
    slope = case.gram[case.kept] @ change
    assert np.max(np.abs(slope), initial=0) <= 1e-5 * np.linalg.norm(case.gram) * np.linalg.norm(case.weight)
    residual = case.inputs @ change
    free = np.random.default_rng(case.weight.size).normal(size=(4, len(case.kept), case.weight.shape[1]))
    for rival in [case.best(), *(case.change(kept) for kept in free)]:
        other = case.inputs @ rival
        assert np.linalg.eigvalsh(other.T @ other - residual.T @ residual).min(initial=0) >= -1e-9 * case.scale


def check_singular_gram() -> None:
    """With X = [1 1], W = (2, 3)^T and row 2 pruned, (2 X^T X)^-1 does not exist, and yet W' = (5, 0)^T has no loss."""
    inputs = exact([[1, 1]])
    assert rank(matmul(transpose(inputs), inputs)) == 1
    assert matmul(inputs, exact([[5], [0]])) == matmul(inputs, exact([[2], [3]]))


# -- Remark 4: what it costs -------------------------------------------------------------------------------------------


def remark(case: Pruned, curvature: np.ndarray) -> float:
    """1/2 tr(W^T M (M^T C^-1 M)^-1 M^T W), which is Eq. (12) for C = 2 G."""
    inverse, weight = np.linalg.inv(curvature), case.weight[case.gone]
    return 0.5 * float(np.sum(weight * np.linalg.solve(inverse[np.ix_(case.gone, case.gone)], weight)))


def schur(case: Pruned) -> np.ndarray:
    """G_PP - G_PK G_KK^-1 G_KP, of which (G^-1)_PP is the inverse."""
    gram, kept, gone = case.gram, case.kept, case.gone
    across = gram[np.ix_(gone, kept)]
    return np.asarray(gram[np.ix_(gone, gone)] - across @ np.linalg.solve(gram[np.ix_(kept, kept)], across.T))


def trace_loss(case: Pruned, matrix: np.ndarray) -> float:
    """tr(W_P^T S W_P)."""
    return float(np.sum(case.weight[case.gone] * (matrix @ case.weight[case.gone])))


def check_remark(case: Pruned, formula: Any) -> None:
    """The formula is the least loss, at most that of plain pruning, and no less when one row more is pruned."""
    value, slack = formula(case), 1e-9 * case.scale
    assert_allclose(value, case.loss(case.best()), rtol=0, atol=slack)
    assert -slack <= value <= case.loss(case.change()) + slack
    for row in case.gone:
        assert formula(replace(case, pruned=case.pruned & (np.arange(len(case.pruned)) != row))) <= value + slack


def spectral(case: Pruned) -> float:
    """lambda_max(W_P^T S W_P): the least loss where |.|_2 is the spectral norm, at the same change."""
    weight = case.weight[case.gone]
    return float(np.linalg.eigvalsh(weight.T @ schur(case) @ weight)[-1])


def check_spectral(case: Pruned, formula: Any) -> None:
    assert_allclose(np.linalg.norm(case.inputs @ case.best(), 2) ** 2, formula(case), rtol=0, atol=1e-9 * case.scale)


def check_wrong_side() -> None:
    """With X = [[1, 1], [0, 1]], W = (1, 1)^T and row 2 pruned, (2 X X^T)^-1 gives the change (1, -2) and not (1, -1), so that
    the pruned weight becomes -1 where it should be 0. Eq. (20) gives 1/2 where the least loss is 1. For N != D the shapes do
    not fit."""
    inputs = exact([[1, 1], [0, 1]])
    for gram, change, loss in (
        (matmul(transpose(inputs), inputs), [1, -1], 1),
        (matmul(inputs, transpose(inputs)), [1, -2], Fraction(1, 2)),
    ):
        inner = solve(exact(matmul(transpose(inputs), inputs)), exact([0, 1]))[1] / 2  # M^T (2 X^T X)^-1 M
        column = [value / 2 for value in solve(gram, exact([0, 1]))]
        assert [-value / inner for value in column] == change
        assert 1 / column[1] / 2 == loss
    assert dot(*2 * [matmul(inputs, exact([1, -1]))]) == 1


DEFINITE = pruned_layers(definite=True)

CLAIMS = (
    Claim(
        "N14",
        f"{PAPER}, Theorem 3, Eq. (11)",
        "argmin |X dW|_2^2 over dW (D, D') with M^T dW + M^T W = 0 is -(2 X^T X)^-1 M (M^T (2 X^T X)^-1 M)^-1 M^T W.",
        Verdict.CONDITIONAL,
        "It holds for G = X^T X positive definite, and the 2 cancels. The change is the refit dW_K = G_KK^+ G_KP W_P of the "
        "kept rows, which solves the problem for every X, and is the only solution if X_K has full column rank. Of all "
        "feasible changes it has the Loewner-least residual Gram, so it is optimal in the Frobenius, the spectral and every "
        "unitarily invariant norm.",
        (
            Property(
                "Eq. (11) is the minimiser",
                DEFINITE,
                check_theorem,
                theorem,
                {
                    "the other sign": lambda case: -theorem(case),
                    "no inner inverse": no_inner_inverse,
                    "M^T C M for (M^T C^-1 M)^-1": block_of_the_gram,
                    "the 2 in one place only": lambda case: theorem(case) / 2,
                },
            ),
            Property(
                "the refit takes no invertible Gram, in any norm",
                pruned_layers(),
                check_refit,
                refit,
                {
                    "the other sign": lambda case: case.change(-refit(case)[case.kept]),
                    "plain pruning": Pruned.change,
                    "G_KK by its diagonal": diagonal_refit,
                },
            ),
        ),
        (Counterexample("Eq. (11) undefined where the refit is exact", check_singular_gram),),
    ),
    Claim(
        "N15",
        f"{PAPER}, Remark 4, Eq. (12)",
        "The least |X dW|_2^2 is L* = 1/2 tr(W^T M (M^T (2 X^T X)^-1 M)^-1 M^T W), a number.",
        Verdict.CONDITIONAL,
        "It holds for G = X^T X positive definite and |.|_2 the Frobenius norm, as Appendix B reads it: L* = tr(W_P^T S W_P) "
        "with the Schur complement S = G_PP - G_PK G_KK^-1 G_KP. It lies in [0, |X_P W_P|_F^2] and grows with P. With the "
        "spectral norm the least is lambda_max(W_P^T S W_P), at the same dW.",
        (
            Property(
                "Eq. (12) is the least loss",
                DEFINITE,
                check_remark,
                lambda case: remark(case, 2 * case.gram),
                {
                    "no 1/2": lambda case: 2 * remark(case, 2 * case.gram),
                    "X^T X for 2 X^T X": lambda case: remark(case, case.gram),
                    "no compensation": lambda case: case.loss(case.change()),
                },
            ),
            Property(
                "it is a Schur complement",
                DEFINITE,
                check_remark,
                lambda case: trace_loss(case, schur(case)),
                {
                    "the other sign": lambda case: trace_loss(case, 2 * case.gram[np.ix_(case.gone, case.gone)] - schur(case)),
                    "the largest eigenvalue": spectral,
                },
            ),
            Property(
                "the least loss in the spectral norm",
                DEFINITE,
                check_spectral,
                spectral,
                {"the trace": lambda case: remark(case, 2 * case.gram)},
            ),
        ),
    ),
    Claim(
        "N15b",
        f"{PAPER}, Appendix B, Eqs. (19)-(22)",
        "dW* = -(2 X X^T)^-1 M (M^T (2 X^T X)^-1 M)^-1 M^T W and L* = 1/2 tr(W^T M (M^T (2 X X^T)^-1 M)^-1 M^T W).",
        Verdict.REFUTED,
        "X X^T is (N, N), and has to be X^T X throughout, which gives Eqs. (11) and (12). After (13) dM^T W has to be M^T dW.",
        counterexamples=(Counterexample("a square X for which the shapes fit", check_wrong_side),),
    ),
)
