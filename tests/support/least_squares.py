"""What the tests of least squares on supports, over supports and with a penalty share: answers by numpy's least squares, from
X and W alone, and what must hold of every answer of ours."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from gramian.proofs.kit.references import lasso_objective
from gramian.proofs.kit.strategies import Layer
from gramian.solvers import FISTA, L1, NM, Pattern, Quadratic, Solution, Status, TopK, exchange_weights, l0_admm, refit

USUAL = (TopK(0.5), TopK(0.5, per_row=True), NM(2, 4), NM(1, 4))
PATTERNS = (*USUAL, NM(1, 2))


def random_mask(seed: int, shape: tuple[int, int], density: float = 0.6) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < density


def unit_scale(layer: Layer) -> np.ndarray:
    norms = np.linalg.norm(layer.inputs, axis=0)
    return np.where(norms > 0, norms, 1.0)


def least_norm(design: np.ndarray, target: np.ndarray, size: float) -> tuple[np.ndarray, int]:
    """The x of least norm that minimises |D x - t| for D a part of something of that size, and the rank of D."""
    left, sizes, right = np.linalg.svd(design, full_matrices=False)
    rank = int(np.sum(sizes > 1e-7 * size))
    return right[:rank].T @ ((left[:, :rank].T @ target).T / sizes[:rank]).T, rank


def least_change(layer: Layer, mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Per row, of all least-squares weights on the support those nearest to the dense ones in v_j sqrt(G_jj), from X and
    W; and how many rows had others."""
    best, scale, deficient = np.where(mask, layer.weight, 0.0), unit_scale(layer), 0
    inputs = layer.inputs / scale
    for row, kept in enumerate(mask):
        missing = layer.outputs[:, row] - layer.inputs @ best[row]
        found, rank = least_norm(inputs[:, kept], missing, np.linalg.norm(inputs))
        best[row, kept] += found / scale[kept]
        deficient += rank < np.sum(kept)
    return best, int(deficient)


def close(point: np.ndarray, expected: np.ndarray, rtol: float = 1e-8) -> None:
    np.testing.assert_allclose(point, expected, rtol=rtol, atol=rtol * np.max(np.abs(expected), initial=1e-300))


def answer(xp: Any, layer: Layer, mask: np.ndarray, dtype: str = "float64") -> tuple[np.ndarray, Solution]:
    solution = refit(layer.problem(xp, dtype), xp.asarray(mask))
    point = xp.numpy(solution.weights)
    assert np.all(point[~mask] == 0) and solution.certificate.violation == 0
    return point, solution


def search(xp: Any, layer: Layer, pattern: Pattern, dtype: str = "float64", **options: Any) -> tuple[np.ndarray, Solution]:
    """The weights and solution of `l0_admm`, with what must hold of every answer checked."""
    solution = l0_admm(layer.problem(xp, dtype), pattern, **options)
    point = xp.numpy(solution.weights)
    assert point.dtype == dtype and point.shape == layer.weight.shape and np.all(np.isfinite(point))
    assert pattern.admits(xp.asarray(point != 0)) and solution.certificate.violation == 0
    assert solution.status is Status.SEARCHED and solution.certificate.bound == -np.inf
    return point, solution


def exact_count(pattern: Pattern, shape: tuple[int, int]) -> int:
    """Zeros of an answer without natural ones."""
    if isinstance(pattern, NM):
        return shape[0] * shape[1] * (pattern.group - pattern.kept) // pattern.group
    return shape[0] * pattern.zeros(shape[1]) if pattern.per_row else pattern.zeros(shape[0] * shape[1])


def random_start(seed: int, layer: Layer, pattern: Pattern) -> np.ndarray:
    """The dense weights on a random mask of the pattern."""
    score = np.random.default_rng(seed).random(layer.weight.shape)
    return np.where(pattern.select(score), layer.weight, 0.0)


def improve(
    xp: Any, layer: Layer, pattern: Pattern, start: np.ndarray, dtype: str = "float64", **options: Any
) -> tuple[np.ndarray, Solution]:
    """Weights and the solution, with what must hold of every answer checked."""
    problem, given = layer.problem(xp, dtype), xp.asarray(start, dtype)
    solution = exchange_weights(problem, pattern, given, **options)
    point = xp.numpy(solution.weights)
    assert np.all(np.isfinite(point)) and point.dtype == dtype and point.shape == layer.weight.shape
    assert pattern.admits(xp.asarray(point != 0)) and solution.certificate.violation == 0
    most = problem.double.loss(xp.asarray(start.astype(dtype).astype(float)))
    most = min(most, refit(problem, given != 0, start=given).certificate.objective)
    assert solution.certificate.objective <= most + 1e-12 * problem.double.energy
    return point, solution


def row_loss(layer: Layer, row: int, kept: np.ndarray) -> float:
    found = np.linalg.lstsq(layer.inputs[:, kept], layer.outputs[:, row], rcond=1e-12)[0]
    return 0.5 * float(np.sum((layer.inputs[:, kept] @ found - layer.outputs[:, row]) ** 2))


def refit_loss(layer: Layer, mask: np.ndarray) -> float:
    return sum(row_loss(layer, row, kept) for row, kept in enumerate(mask))


def size(layer: Layer) -> float:
    """What outputs could be without cancellation: rounding is relative to it where W is in the null space of X."""
    return float(np.sum(layer.inputs**2) * np.sum(layer.weight**2))


def exchanges(layer: Layer, mask: np.ndarray, pattern: Pattern) -> list[tuple[float, float, float]]:
    """(gain, loss before, loss at zero) of the rows concerned, for every exchange there is, all by least squares."""
    rows, width = mask.shape
    group = pattern.group if isinstance(pattern, NM) else width
    whole = isinstance(pattern, TopK) and not pattern.per_row
    before = np.array([row_loss(layer, row, kept) for row, kept in enumerate(mask)])
    zero, found = 0.5 * np.sum(layer.outputs**2, axis=0), []
    single = np.empty(mask.shape)  # what changing one weight alone does
    for row, j in product(range(rows), range(width)):
        single[row, j] = row_loss(layer, row, mask[row] ^ (np.arange(width) == j)) - before[row]
    for (a, j), (b, i) in product(np.argwhere(mask), np.argwhere(~mask)):
        if a == b and i // group == j // group:
            trial = mask[a].copy()
            trial[[i, j]] = True, False
            found.append((before[a] - row_loss(layer, a, trial), before[a], zero[a]))
        elif a != b and whole:
            found.append((-single[a, j] - single[b, i], before[a] + before[b], zero[a] + zero[b]))
    return found


def objective(layer: Layer, weight: float, point: np.ndarray) -> float:
    """Of the LASSO."""
    return lasso_objective(layer.inputs, layer.outputs, weight, point)


def prox_points(problem: Quadratic, term: L1, start: Any, steps: int, solver: FISTA) -> list[Any]:
    """The points FISTA would return after 1, 2, ... steps."""
    state, visited = solver.init(problem, term, start), []
    for _ in range(steps):
        state = solver.step(problem, term, state)
        visited.append(solver.weights(state))
    return visited
