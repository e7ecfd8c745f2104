"""Numerical Pruning, Sections 3.2 to 3.4: what the order of the scores z says about which rows to prune (claims N9, N10, N17).

The notation is that of `relaxed_mask`: A = (W W^T) o (X^T X), u = 1 - z, q = D - r, a = A^-1 1, s = 1^T a. The loss of pruning
the rows P without compensation is 1/2 1_P^T A 1_P = 1/2 |X_P W_P|_F^2.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import combinations, product
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from gramian.proofs.kit.claims import Claim, Counterexample, Property, Verdict
from gramian.proofs.kit.rational import Matrix, exact, identity, matmul, solve, transpose
from gramian.proofs.numerical_pruning.compensation import Pruned, pruned_layers, schur, trace_loss
from gramian.proofs.numerical_pruning.mask_box import box_point
from gramian.proofs.numerical_pruning.relaxed_mask import (
    Relaxed,
    exact_gradient,
    exact_hadamard,
    exact_limit,
    exact_newton,
    limit_point,
    newton_point,
    newton_step,
    optimum,
    relaxed,
)

__all__ = ["CLAIMS"]

PAPER = "Numerical Pruning"

# -- thresholding ------------------------------------------------------------------------------------------------------


def masks(width: int) -> list[np.ndarray]:
    """Return all 0/1 masks."""
    return [np.array(mask) for mask in product((0.0, 1.0), repeat=width)]


def check_chain(case: Relaxed, bound: Any) -> None:
    """Unconstrained optimum <= box optimum <= best 0/1 mask, where the first is an equality if Newton's point is inside."""
    value, box = bound(case), case.objective(box_point(case))
    assert value <= box + 1e-9 * case.scale
    assert box <= min(case.objective(mask) for mask in masks(case.width)) + 1e-9 * case.scale
    newton = newton_step(case)
    if 0 <= newton.min() and newton.max() <= 1:
        assert_allclose(box, value, rtol=0, atol=1e-9 * case.scale)


def check_diagonal_order(case: Relaxed, order: Any) -> None:
    """No k rows can be pruned at a smaller loss than the first k of the order."""
    loss = replace(case, penalty=0.0).objective
    pruned = np.ones(case.width)
    for count, row in enumerate(order(case), start=1):
        pruned[row] = 0
        rivals = (mask for mask in masks(case.width) if np.sum(mask) == case.width - count)
        assert loss(pruned) <= min(map(loss, rivals)) + 1e-12 * case.scale


def check_second_difference(case: Relaxed, formula: Any) -> None:
    """loss(P + i + j) - loss(P + i) - loss(P + j) + loss(P), for every P without i and j."""
    loss, interaction = replace(case, penalty=0.0).objective, formula(case)
    for i, j in combinations(range(case.width), 2):
        both = (np.eye(case.width)[i], np.eye(case.width)[j])
        for mask in masks(case.width):
            if mask[i] and mask[j]:
                rise = loss(mask - sum(both)) - loss(mask - both[0]) - loss(mask - both[1]) + loss(mask)
                assert_allclose(rise, interaction[i, j], rtol=0, atol=1e-9 * case.scale)


def exact_losses(matrix: Matrix) -> list[Fraction]:
    """Return the loss of pruning each row alone."""
    return [matrix[row][row] / 2 for row in range(len(matrix))]


def check_threshold() -> None:
    """With W = 1_3, X = [[2, 0, -2], [1, 0, -2], [-2, -1, 2]] and r = 2 the score on 1^T z = r is (11, 19, 12) / 21. It lies
    in the box, so it is the box optimum too. It prunes row 1, at a loss of 9/2, where row 2 would cost 1/2."""
    matrix = exact_hadamard(exact([[2, 0, -2], [1, 0, -2], [-2, -1, 2]]), exact([[1], [1], [1]]))
    assert exact_limit(matrix, 2) == exact(["11/21", "19/21", "12/21"])
    assert exact_losses(matrix) == exact(["9/2", "1/2", "6"])


def check_threshold_unbounded() -> None:
    """With W = 1_3, X = [[t, -t, 0], [1, 1, 0], [0, 0, 3]] and r = 2 halves of channels 1 and 2 cancel. So the score (11, 11,
    18) / 20, again inside the box, prunes one of them whole, at a loss of (t^2 + 1) / 2 where row 3 costs 9/2."""
    for t in (10, 1000):
        matrix = exact_hadamard(exact([[t, -t, 0], [1, 1, 0], [0, 0, 3]]), exact([[1], [1], [1]]))
        assert exact_limit(matrix, 2) == exact(["11/20", "11/20", "18/20"])
        assert exact_losses(matrix) == [Fraction(t**2 + 1, 2), Fraction(t**2 + 1, 2), Fraction(9, 2)]


def check_threshold_outside() -> None:
    """With W = 1_3, X = [[-1, -2, -1], [0, -1, -1], [1, -2, -1]] and r = 2 the score (2/3, 5/3, -1/3) prunes row 3, at a loss
    of 3/2. The box optimum on 1^T z = r, (2/5, 1, 3/5), prunes row 1, at a loss of 1, which is the least."""
    matrix = exact_hadamard(exact([[-1, -2, -1], [0, -1, -1], [1, -2, -1]]), exact([[1], [1], [1]]))
    assert exact_limit(matrix, 2) == exact(["2/3", "5/3", "-1/3"])
    box = exact(["2/5", "1", "3/5"])
    slope = exact_gradient(matrix, box, 2, 0)
    assert sum(box) == 2 and slope[0] == slope[2] > slope[1]  # one multiplier for the free entries, the other held at 1
    assert exact_losses(matrix) == exact(["1", "9/2", "3/2"])


# -- importance --------------------------------------------------------------------------------------------------------


def check_same_order(case: Relaxed, score: Any) -> None:
    """1 - z is a positive multiple of A^-1 1, whatever lambda and r are, and z(c A, c lambda) = z(A, lambda)."""
    direction = np.linalg.solve(case.hadamard, np.ones(case.width))
    change = 1 - score(case)
    factor = np.sum(change) / np.sum(direction)
    assert factor > 0
    assert_allclose(change, factor * direction, rtol=0, atol=1e-9 * np.max(np.abs(change)))
    larger = replace(case, weight=8 * case.weight, penalty=64 * case.penalty)
    assert_allclose(score(larger), 1 - change, rtol=0, atol=1e-8)


def check_limit_mean(case: Relaxed, score: Any) -> None:
    """The mean of every layer is r / D, and a layer that is c times as large has the same scores."""
    mask = score(case)
    assert_allclose(np.mean(mask), case.kept / case.width, rtol=1e-9)
    assert_allclose(score(replace(case, weight=8 * case.weight)), mask, rtol=0, atol=1e-9 * np.max(np.abs(mask)))


def absolute_point(case: Relaxed) -> np.ndarray:
    """1 - q a, whose direction is not normalised."""
    return 1 - case.excess * np.linalg.solve(case.hadamard, np.ones(case.width))


def ridge_point(case: Relaxed) -> np.ndarray:
    """Return the score with lambda I for lambda 1 1^T."""
    return 1 - case.excess * case.penalty * np.linalg.solve(
        case.hadamard + case.penalty * np.eye(case.width), np.ones(case.width)
    )


def check_layers() -> None:
    """For the layers A_1 = I_2 and A_2 = diag(50, 10^6), with r = 1 and lambda = 100 for both, the lowest score of all is that
    of row 1 of layer 2, whose loss is 25, while either row of layer 1 costs 1/2. On 1^T z = r the scale of a layer does not
    show at all: A and 1000 A have the same scores."""
    first, second = exact([[1, 0], [0, 1]]), exact([[50, 0], [0, 10**6]])
    assert min(exact_newton(second, 1, 100)) == exact_newton(second, 1, 100)[0] < min(exact_newton(first, 1, 100))
    assert exact_losses(second)[0] == 25 > max(exact_losses(first)) == Fraction(1, 2)
    assert exact_limit(second, 1) == exact_limit([[1000 * value for value in row] for row in second], 1)


# -- the mask, then the compensation -----------------------------------------------------------------------------------


def single_costs(case: Pruned) -> np.ndarray:
    """|W_j|^2 / (G^-1)_jj: the loss of pruning row j alone and compensating (the saliency of Optimal Brain Surgeon)."""
    return np.asarray(np.sum(case.weight**2, axis=1) / np.diag(np.linalg.inv(case.gram)))


def check_single_costs(case: Pruned, formula: Any) -> None:
    alone = [replace(case, pruned=np.arange(len(case.pruned)) == row) for row in range(len(case.pruned))]
    assert_allclose(formula(case), [one.loss(one.best()) for one in alone], rtol=0, atol=1e-9 * case.scale)


def correlated(seed: int) -> Pruned:
    """Return four channels, of which the second repeats the first but for a little."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(6, 4))
    inputs[:, 1] = inputs[:, 0] + 0.3 * inputs[:, 1]
    return Pruned(inputs, rng.normal(size=(4, 2)), np.zeros(4, dtype=bool), 1.0)


def best_masks(case: Pruned, compensated: bool) -> list[tuple[int, ...]]:
    """Return, for k = 1..D-1, the k rows whose removal costs least, by enumeration of all masks."""

    def cost(gone: tuple[int, ...]) -> float:
        one = replace(case, pruned=np.isin(np.arange(len(case.pruned)), gone))
        return trace_loss(one, schur(one)) if compensated else one.loss(one.change())

    return [min(combinations(range(len(case.pruned)), k), key=cost) for k in range(1, len(case.pruned))]


def check_best_masks(case: Pruned, formula: Any) -> None:
    """No mask of as many rows is better after compensation."""
    for gone in formula(case):
        masks = [np.isin(np.arange(len(case.pruned)), rival) for rival in combinations(range(len(case.pruned)), len(gone))]
        losses = [one.loss(one.best()) for one in (replace(case, pruned=mask) for mask in masks)]
        chosen = replace(case, pruned=np.isin(np.arange(len(case.pruned)), gone))
        assert chosen.loss(chosen.best()) <= min(losses) + 1e-9 * case.scale


def check_two_stages() -> None:
    """With X = [[3, 3, 0], [0, 1, 0], [0, 0, 2]], W = (1, 1, 1)^T and one row to prune the rows cost 9, 10 and 4 without
    compensation, and both the best mask and the numerical score prune row 3; with compensation they cost 9/10, 1 and 4."""
    inputs = exact([[3, 3, 0], [0, 1, 0], [0, 0, 2]])
    gram = matmul(transpose(inputs), inputs)
    assert [gram[row][row] for row in range(3)] == [9, 10, 4]
    inverse = solve(gram, identity(3))
    assert [1 / inverse[row][row] for row in range(3)] == [Fraction(9, 10), 1, 4]
    score = solve(gram, exact([1, 1, 1]))  # A = G here, and z = 1 - kappa A^-1 1 with kappa > 0
    assert max(score) == score[2] > max(score[:2])


CLAIMS = (
    Claim(
        "N9",
        f"{PAPER}, Sections 3.2 and 3.3",
        "A threshold turns the real-valued optimum z into the optimal binary mask: the lowest scores are pruned.",
        Verdict.REFUTED,
        "The relaxation only bounds: unconstrained optimum <= box optimum <= best 0/1 mask, so the mask is optimal where the "
        "box optimum is integral. The order is exact for every k when A is diagonal (lowest z = least |X_j|^2 |W_j|^2). For "
        "general A the loss of both Newton's point and the box optimum, rounded, can be any number of times the least. The "
        "loss of a set P has second differences A_ij: it is supermodular where A >= 0 entrywise, and in general neither that "
        "nor submodular.",
        (
            Property(
                "the chain of bounds",
                relaxed(),
                check_chain,
                optimum,
                {
                    "no 1/2": lambda case: 2 * optimum(case),
                    "the limit of large lambda": lambda case: case.excess**2 / (2 * np.sum(np.linalg.inv(case.hadamard))),
                },
            ),
            Property(
                "a diagonal A gives the exact order",
                relaxed(diagonal=True),
                check_diagonal_order,
                lambda case: np.argsort(newton_point(case)),
                {
                    "highest first": lambda case: np.argsort(-newton_point(case)),
                    "weights alone": lambda case: np.argsort(np.sum(case.weight**2, axis=1)),
                    "inputs alone": lambda case: np.argsort(np.sum(case.inputs**2, axis=0)),
                },
            ),
            Property(
                "second differences",
                relaxed(definite=False),
                check_second_difference,
                lambda case: case.hadamard,
                {
                    "additive": lambda case: np.zeros((case.width, case.width)),
                    "halved": lambda case: case.hadamard / 2,
                    "the Gram of X alone": lambda case: case.inputs.T @ case.inputs,
                },
            ),
        ),
        (
            Counterexample("nine times the least loss, from inside the box", check_threshold),
            Counterexample("any number of times the least loss", check_threshold_unbounded),
            Counterexample("the box matters", check_threshold_outside),
        ),
    ),
    Claim(
        "N10",
        f"{PAPER}, Section 3.3",
        "Sorting the scores z of all layers together reflects the relative importance of each layer.",
        Verdict.REFUTED,
        "1 - z = kappa(lambda, r) A^-1 1 with kappa > 0, so within a layer lambda and r do not touch the order. For large "
        "lambda the mean score of every layer is 1 - rho and z(cA) = z(A), so how much a layer matters is invisible; at "
        "finite lambda it shows only through z(cA, c lambda) = z(A, lambda). Losses, such as 1/2 A_jj, can be compared across "
        "layers.",
        (
            Property(
                "the order depends on A alone",
                relaxed(),
                check_same_order,
                newton_point,
                {
                    "lambda I for lambda 1 1^T": ridge_point,
                    "the other sign": lambda case: 2 - newton_point(case),
                    "lambda does not scale": lambda case: newton_point(replace(case, penalty=1.0)),
                    "not normalised": absolute_point,
                },
            ),
            Property(
                "the mean of a layer is r / D",
                relaxed(),
                check_limit_mean,
                limit_point,
                {"finite lambda": newton_point, "not normalised": absolute_point},
            ),
        ),
        (Counterexample("two layers", check_layers),),
    ),
    Claim(
        "N17",
        f"{PAPER}, Sections 3.2-3.4 (implied)",
        "The mask of least pruning error, followed by compensation, leaves the least error that k pruned rows allow.",
        Verdict.REFUTED,
        "The mask has to minimise tr(W_P^T S_P W_P), S_P the Schur complement, and not |X_P W_P|_F^2. For one row that is the "
        "least |W_j|^2 / (G^-1)_jj instead of |W_j|^2 G_jj. Compensation lowers the loss of every mask, but not of all alike.",
        (
            Property(
                "the cost of one row",
                pruned_layers(definite=True),
                check_single_costs,
                single_costs,
                {
                    "before compensation": lambda case: np.sum(case.weight**2, axis=1) * np.diag(case.gram),
                    "(G^-1)_jj as a factor": lambda case: np.sum(case.weight**2, axis=1) * np.diag(np.linalg.inv(case.gram)),
                },
            ),
            Property(
                "the best mask is chosen after compensation",
                st.integers(0, 999).map(correlated),
                check_best_masks,
                lambda case: best_masks(case, compensated=True),
                {"chosen before compensation": lambda case: best_masks(case, compensated=False)},
                slow=2,
            ),
        ),
        (Counterexample("one row of three", check_two_stages),),
    ),
)
