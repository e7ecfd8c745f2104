"""Means of functions of Gaussian numbers, by quadrature that is exact to rounding for functions such as activations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["gaussian_means", "panels"]

REACH = 11.0  # deviations; beyond them lies 4e-28 of the mass
NODES, WEIGHTS = np.polynomial.legendre.leggauss(24)
GRADES = np.concatenate([[0.0], 2.0 ** np.arange(-12, 1)])


def panels(edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights of composite Gauss-Legendre quadrature between consecutive edges, along the last axis."""
    half = 0.5 * np.diff(edges, axis=-1)[..., None]
    middle = 0.5 * (edges[..., 1:] + edges[..., :-1])[..., None]
    shape = (*edges.shape[:-1], -1)
    return (middle + half * NODES).reshape(shape), (half * WEIGHTS).reshape(shape)


def gaussian_means(function: Callable[[np.ndarray], np.ndarray], mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Return E f(x), E f(x) z and E f(x) z^2, (3, n), for x = mean + sqrt(variance) z with z ~ N(0, 1).

    There is one x for every mean and variance. function: elementwise, smooth away from zero, where it may have a kink; it
    receives (n, nodes). Panels shrink geometrically towards zero on either side. With them the mean of a product with a second
    Gaussian is one of the same kind: for (u, x) jointly Gaussian,
    E u^2 f(x) = (m_u^2 + v_u - s^2) E f + 2 m_u s E f z + s^2 E f z^2, s = cov(u, x) / sqrt(variance).
    """
    mean, variance = np.asarray(mean, dtype=np.float64), np.asarray(variance, dtype=np.float64)
    if mean.shape != variance.shape or mean.ndim != 1 or not np.all(variance >= 0):
        raise ValueError(f"mean {mean.shape} and variance {variance.shape} must be vectors of one length, variances at least 0")
    deviation = np.sqrt(variance)
    zero = -np.divide(mean, deviation, out=np.zeros_like(mean), where=deviation > 0)
    zero = np.clip(zero, -REACH, REACH)[:, None]
    below, above = zero + (-REACH - zero) * GRADES[::-1], zero + (REACH - zero) * GRADES
    places, weights = panels(np.concatenate([below, above[:, 1:]], axis=1))
    weights = weights * np.exp(-0.5 * places**2) / np.sqrt(2 * np.pi) * function(mean[:, None] + deviation[:, None] * places)
    return np.stack([np.sum(weights * places**power, axis=1) for power in range(3)])
