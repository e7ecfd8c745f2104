"""Every support of a few channels: the least loss of every row on each, in floating point and in rational numbers, and the best
of those that a pattern admits."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from itertools import product
from typing import Any

import numpy as np

from gramian.proofs.kit.rational import dot, exact, matmul, solve
from gramian.solvers import NM, Pattern, Quadratic


@cache
def every_support(width: int) -> np.ndarray:
    """(2^p, p), True where a channel is kept."""
    return np.array(list(product((False, True), repeat=width)))


def support_losses(gram: np.ndarray, target: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """min 1/2 v G v - <t, v> + e over v on every support, for rows t (q, p) and e (q,): (q, 2^p). G is positive definite."""
    supports = every_support(len(gram))
    losses, sizes = np.empty((len(target), len(supports))), supports.sum(axis=1)
    for size in range(len(gram) + 1):
        chosen = np.flatnonzero(sizes == size)
        kept = np.argsort(~supports[chosen], axis=1, kind="stable")[:, :size]
        right = np.moveaxis(target[:, kept], 0, 2)  # (supports, size, q)
        found = np.linalg.solve(gram[kept[:, :, None], kept[:, None, :]], right)
        losses[:, chosen] = energy[:, None] - 0.5 * np.sum(right * found, axis=1).T
    return losses


def losses_of(problem: Quadratic) -> np.ndarray:
    """The same for a problem of numpy."""
    energy, gradient = problem.double.at_zero
    return support_losses(problem.double.gram, -gradient, energy)


def exact_losses(problem: Quadratic) -> list[list[Fraction]]:
    """The same for the very numbers of a problem, in rational arithmetic: by row, then by support."""
    gram, anchor = exact(problem.gram), exact(problem.anchor)
    nothing = [[Fraction(0)] * len(gram)] * len(anchor)
    slopes = nothing if problem.slope is None else exact(problem.slope)
    floors = [Fraction(0)] * len(anchor) if problem.floor is None else exact(problem.floor)
    found = []
    for weight, slope, floor in zip(anchor, slopes, floors):
        pull = matmul(gram, weight)
        target = [a - b for a, b in zip(pull, slope)]
        energy = floor - dot(slope, weight) + dot(weight, pull) / 2
        losses = []
        for line in every_support(len(gram)):
            kept = [j for j, each in enumerate(line) if each]
            right = [target[j] for j in kept]
            best = solve([[gram[i][j] for j in kept] for i in kept], right) if kept else []
            losses.append(energy - dot(right, best) / 2)
        found.append(losses)
    return found


def best_loss(losses: Any, pattern: Pattern, width: int) -> Any:
    """The least loss of all supports that the pattern admits, from that of every row on each of `every_support`, of floats or
    of Fractions."""
    rows, supports = [list(row) for row in losses], every_support(width)
    if isinstance(pattern, NM):
        allowed = np.flatnonzero(np.all(supports.reshape(len(supports), -1, pattern.group).sum(axis=2) <= pattern.kept, axis=1))
        return sum(min(row[k] for k in allowed) for row in rows)
    sizes = supports.sum(axis=1)
    of_size = [[min(row[k] for k in np.flatnonzero(sizes == size)) for size in range(width + 1)] for row in rows]
    if pattern.per_row:
        return sum(row[width - pattern.zeros(width)] for row in of_size)
    least = {0: 0}  # by weights kept in the rows so far
    for row in of_size:
        options = [(before + size, loss + row[size]) for before, loss in least.items() for size in range(width + 1)]
        least = {count: min(loss for other, loss in options if other == count) for count, _ in options}
    return least[len(rows) * width - pattern.zeros(len(rows) * width)]
