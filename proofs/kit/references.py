"""Independent answers: enumeration, brute force, one model of cvxpy, and SparseGPT written out with explicit inverses.

This is plain numpy, from the definitions, and uses nothing of the solvers. With cvxpy compare objectives, never supports: at a
knot of the path an interior point method returns small numbers where the exact answer is zero.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, product

import numpy as np

from gramian.proofs.kit.convex import cvxpy, minimum

__all__ = [
    "brute_force_groups",
    "central_gradient",
    "cvxpy_lasso",
    "exact_lasso",
    "exact_zeros",
    "lasso_objective",
    "obs_sweep",
    "proximal_descent",
    "support_least_squares",
]


def lasso_objective(inputs: np.ndarray, outputs: np.ndarray, weight: float, point: np.ndarray) -> float:
    """1/2 |X V^T - Y|^2 + lambda |V|_1 for inputs X (N, p), outputs Y (N, q), V (q, p)."""
    return float(0.5 * np.sum((inputs @ point.T - outputs) ** 2) + np.sum(weight * np.abs(point)))


def cvxpy_lasso(inputs: np.ndarray, outputs: np.ndarray, weight: float | np.ndarray) -> float:
    """min_V 1/2 |X V^T - Y|^2 + sum lambda_ij |V_ij|, by an interior point method."""
    cp = cvxpy()
    point = cp.Variable((outputs.shape[1], inputs.shape[1]))
    weight = np.broadcast_to(np.asarray(weight, dtype=float), point.shape)
    loss = 0.5 * cp.sum_squares(inputs @ point.T - outputs) + cp.sum(cp.multiply(weight, cp.abs(point)))
    return minimum(loss)


def exact_lasso(inputs: np.ndarray, outputs: np.ndarray, weight: float | np.ndarray) -> tuple[np.ndarray, float]:
    """Return minimiser (q, p) and minimum of the LASSO, by enumerating supports and signs (3^p candidates per row).

    On support A with signs s the stationary point is v_A = G_AA^+ (X_A^T y - lambda_A s). Some optimum has independent
    columns, so it is among the candidates, and every candidate's objective is an upper bound: the least is the minimum.
    weight: lambda, one number or an array that broadcasts to (q, p).
    """
    width = inputs.shape[1]
    gram, cross = inputs.T @ inputs, inputs.T @ outputs
    best = np.zeros((outputs.shape[1], width))
    weight = np.broadcast_to(np.asarray(weight, dtype=float), best.shape)
    least = 0.5 * np.sum(outputs**2, axis=0)
    for size in range(1, width + 1):
        signs = np.array(list(product((-1.0, 1.0), repeat=size)))
        for support in map(list, combinations(range(width), size)):
            inverse = np.linalg.pinv(gram[np.ix_(support, support)], hermitian=True)
            for row in range(outputs.shape[1]):
                prices = weight[row, support]
                values = (cross[support, row] - prices * signs) @ inverse  # (2^size, size)
                losses = 0.5 * np.sum((values @ inputs[:, support].T - outputs[:, row]) ** 2, axis=1)
                totals = losses + np.abs(values) @ prices
                k = int(np.argmin(totals))
                if totals[k] < least[row] - 1e-14 * abs(least[row]):
                    least[row], best[row] = totals[k], 0.0
                    best[row, support] = values[k]
    return best, float(np.sum(least))


def proximal_descent(
    inputs: np.ndarray, outputs: np.ndarray, prox: Callable[[np.ndarray, float], np.ndarray], start: np.ndarray, steps: int
) -> np.ndarray:
    """Return the point after so many steps V <- prox(V - grad f(V) / L, 1 / L), with momentum that restarts uphill."""
    gram, cross = inputs.T @ inputs, outputs.T @ inputs
    step = 1 / (float(np.linalg.norm(inputs, 2)) ** 2 or 1.0)
    point, ahead, count = start, start, 0
    for _ in range(steps):
        following = prox(ahead - step * (ahead @ gram - cross), step)
        count = 0 if np.sum((ahead - following) * (following - point)) > 0 else count + 1
        ahead = following + count / (count + 3) * (following - point)
        point = following
    return point


def exact_zeros(inputs: np.ndarray, outputs: np.ndarray, weight: float) -> np.ndarray:
    """Return the zeros per row of the exact LASSO solution, which mean something away from knots of the path."""
    point, _ = exact_lasso(inputs, outputs, weight)
    return np.asarray(np.sum(np.abs(point) <= 1e-12 * max(1e-300, np.max(np.abs(point))), axis=1))


def support_least_squares(inputs: np.ndarray, outputs: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, float]:
    """Return minimiser (q, p) and minimum of 1/2 |X V^T - Y|^2 over V that are zero off the mask, row by row by `lstsq`."""
    point = np.zeros(mask.shape)
    for row, kept in enumerate(mask):
        if kept.any():
            point[row, kept] = np.linalg.lstsq(inputs[:, kept], outputs[:, row], rcond=1e-9)[0]
    return point, 0.5 * float(np.sum((inputs @ point.T - outputs) ** 2))


def central_gradient(loss: Callable[[np.ndarray], float], point: np.ndarray, step: float) -> np.ndarray:
    """(f(V + h e_ij) - f(V - h e_ij)) / 2h for every entry, which is exact up to rounding for a quadratic."""
    gradient = np.zeros_like(point)
    for index in np.ndindex(*point.shape):
        ahead, behind = point.copy(), point.copy()
        ahead[index] += step
        behind[index] -= step
        gradient[index] = (loss(ahead) - loss(behind)) / (2 * step)
    return gradient


def brute_force_groups(score: np.ndarray, kept: int, group: int) -> np.ndarray:
    """Return the largest total score of every group of `group` entries of which `kept` are kept: (q, p / group)."""
    groups = score.reshape(score.shape[0], -1, group)
    return np.asarray(np.max([groups[:, :, list(chosen)].sum(axis=2) for chosen in combinations(range(group), kept)], axis=0))


def obs_sweep(
    gram: np.ndarray,
    weight: np.ndarray,
    *,
    damping: float,
    sparsity: float | None = None,
    per_row: bool = False,
    pattern: tuple[int, int] | None = None,
    block: int = 128,
) -> np.ndarray:
    """Return SparseGPT's weights as its paper has them: one column after another, with an explicit inverse of what remains for
    each.

    With H the damped Gram of the columns j.. that are still free, removing w_j costs w_j^2 / [H^-1]_jj, and the best answer of
    the others is w -= w_j / [H^-1]_jj * [H^-1]_j. Masks are chosen per block of columns (the smallest costs of all rows
    together, or per row), or per group of m columns for n:m, when the sweep arrives there.
    """
    rows, width = weight.shape
    hessian = gram + damping * np.mean(np.diag(gram)) * np.eye(width)
    inverses, inverse = [], np.linalg.inv(hessian)
    for _ in range(width):  # leaving the first column out is one step of Gaussian elimination on the inverse
        inverses.append(inverse[0].copy())
        inverse = (inverse - np.outer(inverse[:, 0], inverse[0]) / inverse[0, 0])[1:, 1:]
    pivots = np.array([row[0] for row in inverses])
    weights, prune = weight.copy(), np.zeros((rows, width), dtype=bool)
    span = block if pattern is None else pattern[1]
    for j in range(width):
        if j % span == 0:
            end = min(j + span, width)
            cost = weights[:, j:end] ** 2 / pivots[j:end]
            if pattern is None:
                assert sparsity is not None
                total = int(np.floor(sparsity * width * (1 if per_row else rows) + 0.5))
                count = total * end // width - total * j // width  # so that the blocks add up to `total`
            else:
                count = pattern[1] - pattern[0]
            if per_row or pattern is not None:
                for row in range(rows):
                    prune[row, j + np.argsort(cost[row])[:count]] = True
            else:
                order = np.argsort(cost, axis=None)[:count]
                chosen = np.unravel_index(order, cost.shape)
                prune[chosen[0], j + chosen[1]] = True
        error = np.where(prune[:, j], weights[:, j], 0.0) / pivots[j]
        weights[:, j:] -= error[:, None] * inverses[j]
        weights[prune[:, j], j] = 0.0
    return weights
