"""Convex terms `h` added to the loss: what a term is, and the three that solvers of their own exist for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from array_api_compat import is_array_api_obj

from gramian.solvers.backend._xp import Array, as_floating, copied, namespace
from gramian.solvers.backend.given import given, given_together
from gramian.solvers.backend.options import is_number, shown
from gramian.solvers.backend.printed import extent, fraction_of_zeros
from gramian.solvers.core.prices import broadcasts, check_price, checked_price, of_price, price_like, where_zero

__all__ = ["Affine", "L1", "L1Like", "Support", "Term", "TermLike", "l1_of", "term_of"]


class Term(Protocol):
    """h, a convex function of the weights, in argmin_V f(V) + h(V)

    Any object with the two methods is a term, and `solve` can run on it. What can be proven of an answer rests on further
    methods, of which a term has those that it can compute; arrays are (q, p) and float64, and results (q,), one per row.

    Methods
    -------
    prox(weights, step)
        Return argmin_V 1/2 |V - U|^2 + step h(V), in the dtype of U. `FISTA(scaled=True)` gives a step per channel (p,), which
        stands for the metric 1 / step, to terms that say `channel_steps = True`.
    rescaled(scale)
        Return the same function in coordinates v' = scale * v, for a positive scale (p,).

    Notes
    -----
    ``value(weights)``
        h per row; a term without it is the indicator of a set. If h couples rows, any numbers that add up to h.
    ``polar(gradient)``
        of a norm: h°(g) = max <g, v> over h(v) <= 1, per row, infinite where that has no bound. It must not fall where entries
        of the gradient grow in size.
    ``conjugate(slope)``
        of anything else: h*(u) = max_v <u, v> - h(v) per row, infinite outside its domain.
    ``limit(slope)``
        the largest s at which h*(s u) is finite, per row; needed if h* is infinite anywhere.
    ``dual(problem, weights)``
        a point near the weights whose gradient g is one at which h*(-g) is finite; the default is the weights themselves.
    ``free(weights)``
        the mask of the weights that h says nothing of, or None if there are none. A certificate makes their gradient vanish.
    ``tangent(gradient)``
        of an affine set: the part of a gradient along it. The certificate is then the Karush-Kuhn-Tucker residual.
    ``violation(weights)``
        of a set: by how much the weights are off it, zero where that is no more than rounding.
    ``channel_steps``, an attribute
        True where `prox` takes a step per channel. One that ties channels to each other does not, and its `rescaled` refuses.
    ``couples_rows``, an attribute
        True where h is no sum over rows. FISTA then restarts all rows together, and the certificate is one of all rows.

    `gramian.proofs.laws.check_term` holds a term to all that it promises.

    Examples
    --------
    The Euclidean norm of every row:

    >>> from dataclasses import dataclass
    >>> import numpy as np
    >>> from gramian.solvers import FISTA, Quadratic, solve
    >>> @dataclass(frozen=True)
    ... class RowNorms:
    ...     weight: float
    ...     def value(self, weights):
    ...         return self.weight * np.linalg.norm(weights, axis=1)
    ...     def prox(self, weights, step):
    ...         size = np.linalg.norm(weights, axis=1, keepdims=True)
    ...         return weights * np.maximum(0, 1 - step * self.weight / np.maximum(size, 1e-300))
    ...     def polar(self, gradient):
    ...         return np.linalg.norm(gradient, axis=1) / self.weight
    ...     def rescaled(self, scale):
    ...         raise ValueError("in other coordinates this is no norm of rows")
    >>> problem = Quadratic(np.eye(2), np.array([[3.0, 4.0]]))
    >>> solve(problem, RowNorms(1.0), FISTA(), tol=1e-12).weights.round(6).tolist()
    [[2.4, 3.2]]
    """

    def prox(self, weights: Array, step: Array | float) -> Array:
        """Return argmin_V 1/2 |V - U|^2 + step h(V)."""
        ...

    def rescaled(self, scale: Array) -> Term:
        """Return the same function in coordinates `v' = scale * v`."""
        ...


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
    channel_steps = True  # the proximal map takes a step per channel

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", checked_price(self.weight, "an L1 weight"))

    def __repr__(self) -> str:
        return f"L1({of_price(self.weight)})"

    def check(self, shape: tuple[int, int]) -> None:
        """Raise ValueError when lambda does not fit weights of this shape, (q, p)."""
        check_price(self.weight, shape, "an L1 weight")

    def weight_like(self, array: Array) -> Array | float:
        """Return lambda in the dtype of `array`, so that a float64 weight serves a float32 problem."""
        return price_like(self.weight, array)

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

    def free(self, weights: Array) -> Array | None:
        """Return where lambda is zero, (q, p), or None if it is that nowhere."""
        return where_zero(self.weight_like(weights), weights)

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
    channel_steps = True  # the proximal map takes a step per channel, and has no need of it

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
    channel_steps = True  # the proximal map takes a step per channel

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


L1Like = L1 | float  # lambda, too
TermLike = Term | float


def l1_of(term: L1Like, weight: Array) -> L1:
    """Return the L1 term that fits a weight (q, p), of which a number is the lambda. TypeError is raised for other terms."""
    if not isinstance(term, L1) and not is_number(term):
        raise TypeError(f"the LASSO takes an L1 term, or its lambda as a number, but got {shown(term)}: `solve` takes any term")
    found = term_of(term, weight)
    assert isinstance(found, L1)
    return found


def term_of(term: TermLike, weight: Array) -> Term:
    """Return the term that fits a weight (q, p): any object, or a number, the lambda of an L1 term.

    A term may have `check(shape)`, which raises ValueError for weights that it does not fit. What one of gramian's holds
    must be of the weight's library and on its device.
    """
    if is_number(term):
        return L1(float(term))  # type: ignore[arg-type]  # a number has a float
    if isinstance(term, type | bool | str):
        raise TypeError(f"a term is an object such as L1(0.5), or the lambda of one, but got {shown(term)}")
    for name, value in vars(term).items() if type(term).__module__.startswith("gramian.solvers.") else ():
        if is_array_api_obj(value) and not namespace(value).isdtype(value.dtype, "integral"):  # labels may be anywhere
            given(f"the {name} of {type(term).__name__}", value, weight)
    if hasattr(term, "check"):
        term.check(tuple(weight.shape))
    return term  # type: ignore[return-value]  # is_number has seen to the float
