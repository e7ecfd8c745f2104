"""FISTAPruner as its paper prints it, Eq. (4) and Algorithm 1, and FISTA with other momenta, beside which true statements
stand.

This is plain numpy from the formulas and uses nothing of the package. Arrays hold floats, or Fractions (dtype object) for
exact runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np

__all__ = ["Momentum", "Visit", "algorithm_one", "fractional", "hard_threshold", "iterate", "printed", "soft_threshold"]

Momentum = Callable[[Any, Any, Any, Any, Any], Any]
"""(prox point x_k+1, prox point x_k, extrapolated point y_k, t_k, t_k+1) -> y_k+1"""


def fractional(values: Any) -> np.ndarray:
    """Return nested lists of numbers as an array of Fractions."""
    table = np.array(values, dtype=object)
    return np.asarray(np.vectorize(Fraction, otypes=[object])(table))


def soft_threshold(values: np.ndarray, threshold: Any) -> np.ndarray:
    """Eq. (5): x - rho where x > rho, x + rho where x < -rho, and 0 elsewhere."""
    return np.where(values > threshold, values - threshold, np.where(values < -threshold, values + threshold, 0 * values))


def printed(prox: Any, previous: Any, ahead: Any, momentum: Any, following: Any) -> Any:
    """Eq. (4d): W_k+1 = W_k+2/3 + (t_k - 1) / t_k+1 (W_k+2/3 - W_k), where W_k is the extrapolated point."""
    return prox + (momentum - 1) / following * (prox - ahead)


def iterate(
    gram: np.ndarray,
    cross: np.ndarray,
    weight: Any,
    lipschitz: Any,
    start: np.ndarray,
    steps: int,
    momentum: Momentum = printed,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (W_k+2/3, W_k+1) for k = 0, 1, ... of Eq. (4), with gradient W G - Q, soft threshold lambda / L and t_0 = 1.

    gram: (p, p). cross: (q, p). start: (q, p). With Fractions every t_k is rounded to 24 binary digits, and nothing else is.
    """
    ahead, previous, current, visited = start, start, 1.0, []
    for _ in range(steps):
        prox = soft_threshold(ahead - (ahead @ gram - cross) / lipschitz, weight / lipschitz)
        following = 0.5 * (1 + math.sqrt(1 + 4 * current**2))
        pair = [Fraction(round(t * 2**24), 2**24) if start.dtype == object else t for t in (current, following)]
        ahead, previous, current = momentum(prox, previous, ahead, *pair), prox, following
        visited.append((prox, ahead))
    return visited


def hard_threshold(weights: np.ndarray, kept: int, group: int | None = None) -> np.ndarray:
    """Eq. (7): keep the `kept` largest magnitudes of the whole matrix, or of every `group` consecutive entries of a row."""
    flat = weights.reshape(1, -1) if group is None else weights.reshape(-1, group)
    order = np.argsort(-np.abs(flat), axis=1, kind="stable")
    mask = np.zeros(flat.shape, dtype=bool)
    np.put_along_axis(mask, order[:, :kept], True, axis=1)
    return np.where(mask, flat, 0 * flat).reshape(weights.shape)


@dataclass(frozen=True)
class Visit:
    """One pass of Algorithm 1: its lambda, its rounded weights, and their error |W X* - W_dense X|_F."""

    weight: float
    candidate: np.ndarray
    error: float


def algorithm_one(
    star: np.ndarray,
    target: np.ndarray,
    start: np.ndarray,
    threshold: Callable[[np.ndarray], np.ndarray],
    *,
    weight: float = 1e-5,
    upper: float = 1e6,
    steps: int = 20,
    patience: int = 3,
    share: float = 0.3,
    tolerance: float = 1e-3,
) -> tuple[np.ndarray, list[Visit]]:
    """Return W_best and every pass of Algorithm 1, with the settings of Section 4.1.

    star: X* (N, p). target: X W^T (N, q). start: W_0 (q, p). threshold: H. FISTA ends after `steps`, or by Eq. (6). The rule
    for lambda, of which Section 3.4 gives the direction, is bisection of [0, upper]: lambda goes up if E_round / E_total >
    `share`, and down otherwise. E_stop counts as infinite until there is one.
    """

    def error_of(weights: np.ndarray) -> float:
        return float(np.linalg.norm(star @ weights.T - target))

    gram, cross = star.T @ star, target.T @ star
    lipschitz = float(np.linalg.eigvalsh(gram)[-1]) or 1.0
    best, least, low, high, failures, visits = start, error_of(start), 0.0, upper, 0, []
    while failures < patience:
        points = [best, *(ahead for _, ahead in iterate(gram, cross, weight, lipschitz, best, steps))]
        still = (after for before, after in pairwise(points) if np.linalg.norm(after - before) < 1e-6)
        point = next(still, points[-1])
        candidate = threshold(point)
        error = error_of(candidate)
        visits.append(Visit(weight, candidate, error))
        ratio = (error - error_of(point)) / error if error > 0 else 0.0
        low, high = (weight, high) if ratio > share else (low, weight)
        weight = (low + high) / 2
        if error < least:
            gain = (least - error) / least
            best, least = candidate, error
            if gain < tolerance:
                break
        else:
            failures += 1
    return best, visits
