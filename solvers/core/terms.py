"""Convex terms `h` added to the loss: each has a value, a proximal map and what a certificate needs of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gramian.solvers.backend._xp import Array, as_floating, namespace
from gramian.solvers.backend.printed import extent, fraction_of_zeros

__all__ = ["Affine", "L1", "Support", "Term"]


@dataclass(frozen=True, eq=False)
class L1:
    """h(V) = sum_ij lambda_ij |V_ij|

    Parameters
    ----------
    weight : float or array
        lambda >= 0, a number or an array that broadcasts to (q, p); (q, 1) gives every row its own.

    Raises
    ------
    ValueError
        Unless lambda is finite and at least zero everywhere.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import L1
    >>> term = L1(1.0)
    >>> term.prox(np.array([[-3.0, 0.5]]), 1.0).tolist()
    [[-2.0, 0.0]]
    >>> term.value(np.array([[-3.0, 0.5]])).tolist()
    [3.5]
    """

    weight: Array | float
    channel_steps = True  # the proximal map takes a step per channel

    def __post_init__(self) -> None:
        if isinstance(self.weight, np.generic):  # a number, whatever library the weights are of
            object.__setattr__(self, "weight", float(self.weight))
        if isinstance(self.weight, int | float):
            valid = 0 <= self.weight < float("inf")
        else:
            xp = namespace(self.weight)
            valid = bool(xp.all((self.weight >= 0) & xp.isfinite(self.weight)))
        if not valid:  # also catches NaN
            raise ValueError(f"an L1 weight must be finite and at least zero everywhere but is {self.weight}")

    def __repr__(self) -> str:
        return f"L1({self.weight if isinstance(self.weight, int | float) else extent(self.weight)})"

    def weight_like(self, array: Array) -> Array | float:
        """Return lambda in the dtype of `array`, so that a float64 weight serves a float32 problem."""
        return float(self.weight) if isinstance(self.weight, int | float) else as_floating(self.weight, like=array)

    def value(self, weights: Array) -> Array:
        """Return h per row, (q,)."""
        xp = namespace(weights)
        return xp.sum(self.weight_like(weights) * xp.abs(weights), axis=1)

    def prox(self, weights: Array, step: Array | float) -> Array:
        """argmin_V 1/2 |V - U|^2 + step h(V), the soft threshold at step * lambda, which is zero on the threshold itself.

        A step per channel (p,) is the same in the metric 1 / step.
        """
        xp = namespace(weights)
        size = xp.abs(weights) - step * self.weight_like(weights)
        return xp.sign(weights) * xp.where(size > 0, size, xp.zeros_like(size))

    def polar(self, gradient: Array) -> Array:
        """Return h°(g) = max_j |g_j| / lambda_j per row, (q,), where 0 / 0 is 0.

        `h*(-s g) = 0` exactly when `|s| h°(g) <= 1`.
        """
        xp = namespace(gradient)
        size = xp.abs(gradient)
        weight = self.weight_like(size) + xp.zeros_like(size)
        ratio = size / xp.where(weight > 0, weight, xp.ones_like(size))
        unbounded = xp.where(size > 0, xp.full_like(size, float("inf")), xp.zeros_like(size))
        return xp.max(xp.where(weight > 0, ratio, unbounded), axis=1)

    def rescaled(self, scale: Array) -> L1:
        """Return the same term in coordinates `v' = scale * v`."""
        return L1(self.weight / scale)


@dataclass(frozen=True, eq=False)
class Support:
    """h(V) = 0 if V_ij = 0 wherever mask_ij is False, else infinity

    Parameters
    ----------
    mask : array (q, p) of bool
        True where weights may be nonzero.

    Raises
    ------
    ValueError
        For a mask that is not boolean.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import Support
    >>> support = Support(np.array([[True, False]]))
    >>> support.prox(np.array([[3.0, 2.0]]), 1.0).tolist()
    [[3.0, 0.0]]
    >>> support.violation(np.array([[3.0, 2.0]]))
    2.0
    """

    mask: Array
    channel_steps = True  # the proximal map takes a step per channel, and has no need of it

    def __post_init__(self) -> None:
        if not namespace(self.mask).isdtype(self.mask.dtype, "bool"):
            raise ValueError(f"a support is a boolean mask but this one is {self.mask.dtype}")

    def __repr__(self) -> str:
        return f"Support({extent(self.mask)}, {fraction_of_zeros(self.mask)})"

    def prox(self, weights: Array, step: Array | float) -> Array:
        """argmin_V 1/2 |V - U|^2 + h(V), the projection: weights off the support become zero."""
        xp = namespace(weights)
        return xp.where(self.mask, weights, xp.zeros_like(weights))

    def tangent(self, gradient: Array) -> Array:
        """Return the part of a gradient along the set: what it says about the free weights."""
        return self.prox(gradient, 1.0)

    def violation(self, weights: Array) -> float:
        """Return the largest weight off the support."""
        xp = namespace(weights)
        return float(xp.max(xp.abs(weights - self.prox(weights, 1.0))))

    def rescaled(self, scale: Array) -> Support:
        """Return the same set in coordinates `v' = scale * v`, which is itself."""
        return self


@dataclass(frozen=True, eq=False)
class Affine:
    """h(V) = 0 if V A^T = D, else infinity

    Parameters
    ----------
    matrix : array (m, p)
        A.
    values : array (q, m)
        D.

    Raises
    ------
    ValueError
        For shapes that do not fit, and for NaN or Inf.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import Affine
    >>> term = Affine(np.ones((1, 2)), np.array([[4.0]]))  # weights that sum to 4
    >>> term.prox(np.array([[1.0, 2.0]]), 1.0).round(6).tolist()
    [[1.5, 2.5]]
    """

    matrix: Array
    values: Array
    channel_steps = True  # the proximal map takes a step per channel

    def __post_init__(self) -> None:
        if self.matrix.ndim != 2 or self.values.ndim != 2 or self.matrix.shape[0] != self.values.shape[1]:
            raise ValueError(
                f"V A^T = D needs A (m, p) and D (q, m) but A is {tuple(self.matrix.shape)} and D {tuple(self.values.shape)}"
            )
        xp = namespace(self.matrix, self.values)
        if not (bool(xp.all(xp.isfinite(self.matrix))) and bool(xp.all(xp.isfinite(self.values)))):
            raise ValueError("the constraints V A^T = D hold NaN or Inf")

    def __repr__(self) -> str:
        return f"Affine(A {extent(self.matrix)}, D {extent(self.values)})"

    def normalised(self, like: Array) -> tuple[Array, Array]:
        """Return the same constraints with rows of A of unit length, so that their units do not decide which are redundant."""
        xp = namespace(like)
        matrix, values = as_floating(self.matrix, like=like), as_floating(self.values, like=like)
        length = xp.sqrt(xp.sum(matrix * matrix, axis=1))
        length = xp.where(length > 0, length, xp.ones_like(length))
        return matrix / length[:, None], values / length

    def prox(self, weights: Array, step: Array | float) -> Array:
        """argmin_V 1/2 |V - U|^2 + h(V), the projection U - (U A^T - D) (A A^T)^+ A.

        With a step per channel, S = diag(step), it is the projection in the metric 1 / step: U - (U A^T - D) (A S A^T)^+ A S.
        """
        xp = namespace(weights)
        if isinstance(step, int | float):
            matrix, values = self.normalised(weights)
            return weights - (weights @ matrix.T - values) @ xp.linalg.pinv(matrix).T
        root = xp.sqrt(step / xp.max(step))
        matrix, values = Affine(as_floating(self.matrix, like=weights) * root, self.values).normalised(weights)  # A S^(1/2)
        return weights - ((weights / root) @ matrix.T - values) @ (xp.linalg.pinv(matrix).T * root)

    def tangent(self, gradient: Array) -> Array:
        """Return the part of a gradient along the set: its projection on the null space of A."""
        matrix, _ = self.normalised(gradient)
        return gradient - gradient @ (namespace(gradient).linalg.pinv(matrix) @ matrix)

    def violation(self, weights: Array) -> float:
        """Return the largest entry of |V A^T - D|, of those that are more than rounding of |V| |A|^T + |D|."""
        xp = namespace(weights)
        matrix, values = as_floating(self.matrix, like=weights), as_floating(self.values, like=weights)
        short = xp.abs(weights @ matrix.T - values)
        rounding = 4 * matrix.shape[1] * xp.finfo(weights.dtype).eps * (xp.abs(weights) @ xp.abs(matrix).T + xp.abs(values))
        return float(xp.max(xp.where(short > rounding, short, xp.zeros_like(short)))) if short.shape[1] else 0.0

    def rescaled(self, scale: Array) -> Affine:
        """Return the same set in coordinates `v' = scale * v`."""
        return Affine(self.matrix / scale, self.values)


Term = L1 | Support | Affine
