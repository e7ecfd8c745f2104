"""Second moments of activations of Gaussian numbers: closed forms, and the quadrature that they are compared with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import erf

from gramian.solvers.units.gaussian import gaussian_means, panels

__all__ = [
    "gated_relu_moment",
    "gaussian_mean",
    "gelu",
    "gelu_second_moment",
    "pair_mean",
    "relu",
    "relu_cross_moment",
    "silu",
]


def relu(value: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(value, 0.0))


def gelu(value: np.ndarray) -> np.ndarray:
    """x Phi(x), where Phi is the standard normal distribution function."""
    return np.asarray(0.5 * value * (1 + erf(value / np.sqrt(2))))


def silu(value: np.ndarray) -> np.ndarray:
    """x / (1 + exp(-x)), written so that nothing overflows."""
    return np.asarray(0.5 * value * (1 + np.tanh(0.5 * value)))


def gaussian_mean(function: Callable[[np.ndarray], np.ndarray], variance: float) -> float:
    """E f(x) for x ~ N(0, variance), where f is smooth away from zero."""
    return float(gaussian_means(function, np.zeros(1), np.array([variance]))[0, 0])


def pair_mean(function: Callable[[np.ndarray, np.ndarray], np.ndarray], degree: int, correlation: float) -> float:
    """E f(a, b) for standard Gaussians of that correlation, where f is homogeneous of even degree with kinks where a = 0 or b
    = 0.

    With a = r cos(t) and b = r cos(t - arccos(correlation)), t is uniform and r^2 is exponential of mean two, so that E
    r^degree = 2^(degree/2) (degree/2)!.
    """
    angle = float(np.arccos(correlation))
    kinks = np.mod(np.array([0.5, 1.5, 0.5 + angle / np.pi, 1.5 + angle / np.pi]) * np.pi, 2 * np.pi)
    nodes, weights = panels(np.concatenate([[0.0], np.sort(kinks), [2 * np.pi]]))
    radial = float(np.prod([2.0 * (k + 1) for k in range(degree // 2)]))
    return radial * float(np.sum(weights * function(np.cos(nodes), np.cos(nodes - angle)))) / (2 * np.pi)


def gelu_second_moment(variance: float) -> float:
    """E gelu(x)^2 = v/4 + v/(2 pi) [asin(v/(1+v)) + 2v / ((1+v) sqrt(1+2v))], x ~ N(0, v).

    Stein's identity on x . x Phi^2 leaves E Phi^2 = 1/4 + asin(v/(1+v)) / (2 pi) and E x Phi phi = v/(1+v) E phi^2.
    """
    v = variance
    return float(v / 4 + v / (2 * np.pi) * (np.arcsin(v / (1 + v)) + 2 * v / ((1 + v) * np.sqrt(1 + 2 * v))))


def relu_cross_moment(correlation: float) -> float:
    """E relu(a) relu(b) = [sqrt(1 - c^2) + c (pi - arccos c)] / (2 pi) for unit variances; it is 1/2 at c = 1 and 0 at c =
    -1."""
    c = correlation
    return float((np.sqrt(1 - c * c) + c * (np.pi - np.arccos(c))) / (2 * np.pi))


def gated_relu_moment(correlation: float) -> float:
    """E a^2 relu(b)^2 = (1 + 2 c^2) / 2 for unit variances: half of E a^2 b^2, because (a, b) and (-a, -b) are alike."""
    return 0.5 * (1 + 2 * correlation**2)
