"""Convex terms `h` added to the loss: each has a value, a proximal map and what a certificate needs of it."""

from __future__ import annotations

from dataclasses import dataclass

from gramian.solvers.backend._xp import Array, as_floating, copied, namespace
from gramian.solvers.backend.given import given, given_together
from gramian.solvers.backend.options import is_number, shown
from gramian.solvers.backend.printed import extent, fraction_of_zeros, span

__all__ = ["Affine", "L1", "L1Like", "Support", "Term", "TermLike", "l1_of", "term_of"]


@dataclass(frozen=True, eq=False)
class L1:
    """h(V) = sum_ij lambda_ij |V_ij|

    Parameters
    ----------
    weight : float or array
        lambda >= 0, a number or an array that broadcasts to (q, p); (q, 1) gives every row its own. It is copied.

    Raises
    ------
    ValueError
        Unless lambda is finite and at least zero everywhere.
    TypeError
        For what is no number and no array of numbers.

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

    def __post_init__(self) -> None:
        if is_number(self.weight):  # a float, whatever library the weights are of
            object.__setattr__(self, "weight", float(self.weight))
            valid = 0 <= self.weight < float("inf")
        elif isinstance(self.weight, bool):
            raise TypeError(f"an L1 weight is a number or an array of numbers but is {self.weight}")
        else:
            object.__setattr__(self, "weight", copied(as_floating(given("weight", self.weight))))
            xp = namespace(self.weight)
            valid = bool(xp.all((self.weight >= 0) & xp.isfinite(self.weight)))
        if not valid:  # also catches NaN
            found = f"is {self.weight}" if is_number(self.weight) else f"is from {span(self.weight)}"
            raise ValueError(f"an L1 weight must be finite and at least zero everywhere but {found}")

    def __repr__(self) -> str:
        return f"L1({self.weight if isinstance(self.weight, float) else extent(self.weight)})"

    def check(self, shape: tuple[int, int]) -> None:
        """Raise ValueError when lambda does not fit weights of this shape, (q, p)."""
        if not isinstance(self.weight, float) and not broadcasts(self.weight, shape):
            wanted = f"a number, ({shape[1]},), {(shape[0], 1)} or {shape}"
            raise ValueError(
                f"an L1 weight is {tuple(self.weight.shape)} but the problem's weight is {shape}: it must be {wanted}"
            )

    def weight_like(self, array: Array) -> Array | float:
        """Return lambda in the dtype of `array`, so that a float64 weight serves a float32 problem."""
        return self.weight if isinstance(self.weight, float) else as_floating(self.weight, like=array)

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
        True where weights may be nonzero. It is copied.

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

    def __post_init__(self) -> None:
        mask = given("mask", self.mask)
        if not namespace(mask).isdtype(mask.dtype, "bool"):
            raise ValueError(f"a support is a boolean mask but this one is {mask.dtype}")
        object.__setattr__(self, "mask", copied(mask))

    def __repr__(self) -> str:
        return f"Support({extent(self.mask)}, {fraction_of_zeros(self.mask)})"

    def check(self, shape: tuple[int, int]) -> None:
        """Raise ValueError when the mask does not fit weights of this shape, (q, p)."""
        if not broadcasts(self.mask, shape):
            raise ValueError(f"the mask is {tuple(self.mask.shape)} but the problem's weight is {shape}")

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
        D. Both are copied.

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

    def __post_init__(self) -> None:
        for name, array in given_together({"matrix": self.matrix, "values": self.values}).items():
            object.__setattr__(self, name, copied(as_floating(array)))
        if self.matrix.ndim != 2 or self.values.ndim != 2 or self.matrix.shape[0] != self.values.shape[1]:
            raise ValueError(
                f"V A^T = D needs A (m, p) and D (q, m) but A is {tuple(self.matrix.shape)} and D {tuple(self.values.shape)}"
            )
        xp = namespace(self.matrix, self.values)
        if not (bool(xp.all(xp.isfinite(self.matrix))) and bool(xp.all(xp.isfinite(self.values)))):
            raise ValueError("the constraints V A^T = D hold NaN or Inf")

    def __repr__(self) -> str:
        return f"Affine(A {extent(self.matrix)}, D {extent(self.values)})"

    def check(self, shape: tuple[int, int]) -> None:
        """Raise ValueError when A and D do not fit weights of this shape, (q, p)."""
        if (self.values.shape[0], self.matrix.shape[1]) != tuple(shape):
            sides = f"A is {tuple(self.matrix.shape)} and D is {tuple(self.values.shape)}"
            raise ValueError(f"{sides} but the weight is {shape}: V A^T = D needs (m, {shape[1]}) and ({shape[0]}, m)")

    def normalised(self, like: Array) -> tuple[Array, Array]:
        """Return the same constraints with rows of A of unit length, so that their units do not decide which are redundant."""
        xp = namespace(like)
        matrix, values = as_floating(self.matrix, like=like), as_floating(self.values, like=like)
        length = xp.sqrt(xp.sum(matrix * matrix, axis=1))
        length = xp.where(length > 0, length, xp.ones_like(length))
        return matrix / length[:, None], values / length

    def prox(self, weights: Array, step: Array | float) -> Array:
        """argmin_V 1/2 |V - U|^2 + h(V), the projection U - (U A^T - D) (A A^T)^+ A."""
        matrix, values = self.normalised(weights)
        return weights - (weights @ matrix.T - values) @ namespace(weights).linalg.pinv(matrix).T

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
L1Like = L1 | float  # lambda, too
TermLike = Term | float


def broadcasts(array: Array, shape: tuple[int, int]) -> bool:
    """Return whether an array fits weights (q, p): each of its last axes has their length, or one."""
    own = tuple(array.shape)
    return len(own) <= 2 and all(length in (1, whole) for length, whole in zip(reversed(own), reversed(shape)))


def l1_of(term: L1Like, weight: Array) -> L1:
    """Return the L1 term that fits a weight (q, p), of which a number is the lambda. TypeError is raised for other terms."""
    if not isinstance(term, L1) and not is_number(term):
        raise TypeError(f"the LASSO takes an L1 term, or its lambda as a number, but got {shown(term)}: `solve` takes any term")
    found = term_of(term, weight)
    assert isinstance(found, L1)
    return found


def term_of(term: TermLike, weight: Array) -> Term:
    """Return the term that fits a weight (q, p): any object, or a number, the lambda of an L1 term.

    A term may have `check(shape)`, which raises ValueError for weights that it does not fit.
    """
    if is_number(term):
        return L1(float(term))  # type: ignore[arg-type]  # a number has a float
    if isinstance(term, type):
        raise TypeError(f"a term is an object such as L1(0.5), or the lambda of one, but got {shown(term)}")
    for name, value in vars(term).items() if isinstance(term, L1 | Support | Affine) else ():
        if not isinstance(value, float):
            given(f"the {name} of {type(term).__name__}", value, weight)
    if hasattr(term, "check"):
        term.check(tuple(weight.shape))
    return term  # type: ignore[return-value]  # is_number has seen to the float
