"""Numerical Pruning, Remark 5: what compensation with a damped Gram minimises (claim N16).

The notation is that of `compensation`: G = X^T X, P are the pruned rows of W, K the kept ones, dW_P = -W_P, and gamma > 0 is
added to 2 G.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.testing import assert_allclose

from gramian.proofs.kit.claims import Claim, Counterexample, Property, Verdict
from gramian.proofs.kit.rational import dot, exact, matmul, solve
from gramian.proofs.numerical_pruning.compensation import Pruned, perturbation, pruned_layers, refit, remark
from gramian.solvers import Quadratic

__all__ = ["CLAIMS", "damped"]

PAPER = "Numerical Pruning"


def damped(case: Pruned) -> np.ndarray:
    """Return Eq. (11) with 2 G + gamma I for 2 G."""
    return perturbation(case, 2 * case.gram + case.ridge * np.eye(len(case.pruned)))


def damped_remark(case: Pruned) -> float:
    return remark(case, 2 * case.gram + case.ridge * np.eye(len(case.pruned)))


def ridge_on_weights(case: Pruned) -> np.ndarray:
    """argmin |X dW|^2 + gamma / 2 |W + dW|^2."""
    gram, kept = case.gram, case.kept
    inner = gram[np.ix_(kept, kept)] + case.ridge / 2 * np.eye(len(kept))
    return case.change(np.linalg.solve(inner, gram[kept] @ case.weight) - case.weight[kept])


def check_damped(case: Pruned, formula: Any) -> None:
    """The formula is least squares with a ridge on the change, which is what the toolkit's `damped` adds. It is monotone in
    gamma; it tends to plain pruning as gamma grows, and to the refit that changes least as gamma vanishes."""
    change = formula(case)
    size = float(np.max(np.abs(case.weight), initial=1))
    assert_allclose(change, case.best(case.ridge / 2), rtol=0, atol=1e-8 * size)
    slope = Quadratic.from_data(case.inputs, case.weight.T).damped(case.ridge / 2).gradient((case.weight + change).T)
    assert np.max(np.abs(slope[:, case.kept]), initial=0) <= 1e-9 * np.linalg.norm(case.gram) * np.linalg.norm(case.weight)
    stronger = formula(replace(case, ridge=4 * case.ridge))
    assert case.loss(change) <= case.loss(stronger) + 1e-9 * case.scale
    assert np.sum(stronger**2) <= np.sum(change**2) + 1e-9 * np.sum(case.weight**2)
    largest = float(np.sum(case.inputs**2)) or 1.0
    assert_allclose(formula(replace(case, ridge=1e10 * largest)), case.change(), rtol=0, atol=1e-9 * size)
    singular = np.linalg.svd(case.inputs[:, case.kept], compute_uv=False)
    positive = singular[singular > 1e-10 * np.max(singular, initial=0)]
    if positive.size and positive.min() ** 2 > 1e-4 * largest:  # else rounding hides the limit
        near, best = formula(replace(case, ridge=1e-5 * float(positive.min()) ** 2)), case.best()
        assert_allclose(near, best, rtol=0, atol=1e-4 * float(np.max(np.abs(best), initial=1)))


def check_damped_remark(case: Pruned, formula: Any) -> None:
    """The formula is not the loss but the regularised objective. So it is at least the loss, which is at least the undamped
    one."""
    change = case.best(case.ridge / 2)
    slack = 1e-9 * (case.scale + case.ridge * float(np.sum(case.weight**2)))
    value, loss = formula(case), case.loss(change)
    assert_allclose(value, loss + case.ridge / 2 * np.sum(change**2), rtol=0, atol=slack)
    assert value >= loss - slack >= case.loss(case.best()) - 2 * slack


def check_damped_loss() -> None:
    """With G = [[1, 1], [1, 2]], W = (1, 1)^T, row 2 pruned and gamma = 1, dW = (2/3, -1); Eq. (12) gives 11/6, but the loss
    is 10/9."""
    gram = exact([[1, 1], [1, 2]])
    curvature = [[2 * value + int(row == column) for column, value in enumerate(line)] for row, line in enumerate(gram)]
    last = solve(curvature, exact([0, 1]))
    change = [-value / last[1] for value in last]
    assert change == [Fraction(2, 3), -1]
    assert 1 / last[1] / 2 == Fraction(11, 6)
    assert dot(change, matmul(gram, change)) == Fraction(10, 9)


CLAIMS = (
    Claim(
        "N16",
        f"{PAPER}, Remark 5",
        "Where X^T X is singular, Eqs. (11) and (12) are used with (2 X^T X + gamma I)^-1 for (2 X^T X)^-1.",
        Verdict.CONDITIONAL,
        "For gamma > 0 the change minimises |X dW|_F^2 + gamma/2 |dW|_F^2, so dW_K = (G_KK + gamma/2 I)^-1 G_KP W_P, which is "
        "a ridge on the change and not on the weights. As gamma grows the loss rises and the change shrinks; gamma to 0 gives "
        "the least of the optimal changes, and gamma to infinity gives plain pruning. Eq. (12) is then the regularised "
        "objective, which is above the loss.",
        (
            Property(
                "a ridge on the change",
                pruned_layers(),
                check_damped,
                damped,
                {
                    "a ridge on the weights": ridge_on_weights,
                    "gamma for gamma / 2": lambda case: damped(replace(case, ridge=2 * case.ridge)),
                    "no damping": refit,
                    "plain pruning": Pruned.change,
                },
            ),
            Property(
                "the damped Eq. (12) is the regularised objective",
                pruned_layers(),
                check_damped_remark,
                damped_remark,
                {
                    "taken for the loss": lambda case: case.loss(damped(case)),
                    "gamma for gamma / 2": lambda case: damped_remark(replace(case, ridge=2 * case.ridge)),
                },
            ),
        ),
        (Counterexample("the damped Eq. (12) is not the loss", check_damped_loss),),
    ),
)
