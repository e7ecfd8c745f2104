"""Sets of weights whose sum is prescribed for every row: the simplex, and rows of any sign."""

from __future__ import annotations

from dataclasses import dataclass

from gramian.solvers.backend._xp import Array, as_floating, device, full, namespace
from gramian.solvers.backend.printed import extent
from gramian.solvers.core.prices import checked_price, of_price, price_like

__all__ = ["RowSum", "Simplex"]


@dataclass(frozen=True, eq=False)
class Simplex:
    """h(V) = 0 if V_ij >= 0 and sum_j a_j V_ij = r_i, else infinity

    Parameters
    ----------
    total : float or array (q,), default 1.0
        r >= 0, a number or one for each row; (q, 1) is taken too.
    prices : array (p,), optional
        a > 0; None is ones.

    Raises
    ------
    ValueError
        For a total that is negative or not finite, and for prices that are not positive and finite.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import FISTA, Quadratic, Simplex, solve
    >>> problem = Quadratic(np.eye(3), np.array([[0.9, 0.5, -1.0]]))  # the nearest point of the simplex
    >>> solve(problem, Simplex(), FISTA(), tol=1e-12).weights.round(6).tolist()
    [[0.7, 0.3, 0.0]]
    """

    total: Array | float = 1.0
    prices: Array | None = None
    channel_steps = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", checked_price(upright(self.total), "the sum of the weights of a simplex"))
        check_prices(self.prices)

    def __repr__(self) -> str:
        return f"Simplex({of_price(self.total)}{'' if self.prices is None else ', prices ' + extent(self.prices)})"

    def prox(self, weights: Array, step: Array | float) -> Array:
        """argmin_V 1/2 |V - U|^2 + h(V), the projection max(U - t a, 0), with t from the sorted weights.

        A step per channel d (p,) is the same in the metric 1 / d, max(U - t d a, 0).
        """
        xp = namespace(weights)
        prices, total = prices_like(self.prices, weights), price_like(self.total, weights)
        slope = prices * step
        order = xp.argsort(weights / slope, axis=1, descending=True)
        shape = tuple(weights.shape)
        places = xp.reshape(order + shape[1] * xp.arange(shape[0], dtype=order.dtype, device=device(order))[:, None], (-1,))
        sums = xp.cumulative_sum(xp.reshape(xp.take(xp.reshape(prices * weights, (-1,)), places), shape), axis=1)
        squares = xp.cumulative_sum(xp.reshape(xp.take(prices * slope, xp.reshape(order, (-1,))), shape), axis=1)
        level = xp.max((sums - total) / squares, axis=1, keepdims=True)  # it rises while a channel that is added is above it
        found = weights - level * slope
        found = xp.where(found < 0, xp.zeros_like(found), found)
        reached = xp.sum(prices * found, axis=1, keepdims=True)  # but for rounding of the weights, the total
        return found * (total / xp.where(reached > 0, reached, xp.ones_like(reached)))

    def conjugate(self, slope: Array) -> Array:
        """Return h*(u) = r max_j u_j / a_j per row, (q,)."""
        xp = namespace(slope)
        largest = xp.max(slope / prices_like(self.prices, slope), axis=1, keepdims=True)
        return (price_like(self.total, slope) * largest)[:, 0]

    def violation(self, weights: Array) -> float:
        """Return the largest of what rows miss in their sum, beyond rounding, and of the sizes of negative weights."""
        xp = namespace(weights)
        return max(miss(weights, self.prices, self.total), -min(0.0, float(xp.min(weights))))

    def rescaled(self, scale: Array) -> Simplex:
        """Return the same set in coordinates `v' = scale * v`."""
        return Simplex(self.total, (1.0 if self.prices is None else self.prices) / scale)


@dataclass(frozen=True, eq=False)
class RowSum:
    """h(V) = 0 if sum_j a_j V_ij = r_i, else infinity

    It is `Affine` with one constraint, whose projection needs no pseudo-inverse. `affine_least_squares` solves for it directly.

    Parameters
    ----------
    total : float or array (q,)
        r, a number or one for each row; (q, 1) is taken too.
    prices : array (p,), optional
        a > 0; None is ones.

    Raises
    ------
    ValueError
        For a total that is not finite, and for prices that are not positive and finite.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import FISTA, Quadratic, RowSum, solve
    >>> problem = Quadratic(np.diag([1.0, 3.0]), np.array([[3.0, 1.0]]))
    >>> solve(problem, RowSum(2.0), FISTA(), tol=1e-12).weights.round(6).tolist()
    [[1.5, 0.5]]
    """

    total: Array | float
    prices: Array | None = None
    channel_steps = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", upright(self.total))
        checked_price(abs(self.total), "the size of a sum of weights")
        check_prices(self.prices)

    def __repr__(self) -> str:
        return f"RowSum({of_price(self.total)}{'' if self.prices is None else ', prices ' + extent(self.prices)})"

    def prox(self, weights: Array, step: Array | float) -> Array:
        """argmin_V 1/2 |V - U|^2 + h(V), the projection U - t a; a step per channel d (p,) is the metric 1 / d, U - t d a."""
        xp = namespace(weights)
        prices, total = prices_like(self.prices, weights), price_like(self.total, weights)
        slope = prices * step
        for _ in range(2):  # the second time for what the first one's rounding missed
            excess = xp.sum(prices * weights, axis=1, keepdims=True) - total
            weights = weights - slope * (excess / xp.sum(prices * slope))
        return weights

    def tangent(self, gradient: Array) -> Array:
        """Return the part of a gradient along the set: what is left of it beside a."""
        xp = namespace(gradient)
        prices = prices_like(self.prices, gradient)
        return gradient - prices * (xp.sum(gradient * prices, axis=1, keepdims=True) / xp.sum(prices * prices))

    def violation(self, weights: Array) -> float:
        """Return the most that a row misses in its sum, beyond rounding."""
        return miss(weights, self.prices, self.total)

    def rescaled(self, scale: Array) -> RowSum:
        """Return the same set in coordinates `v' = scale * v`."""
        return RowSum(self.total, (1.0 if self.prices is None else self.prices) / scale)


def upright(total: Array | float) -> Array | float:
    """Return a number as a Python number, and one for each row as a column (q, 1). ValueError is raised for another shape."""
    if isinstance(total, int | float) or not total.ndim:
        return float(total)
    if total.ndim > 2 or (total.ndim == 2 and total.shape[1] != 1):
        raise ValueError(f"a sum of weights is one number or one for each row, (q,), but is {extent(total)}")
    return namespace(total).reshape(total, (-1, 1))


def check_prices(prices: Array | None) -> None:
    """Raise ValueError unless prices are one for each channel, positive and finite."""
    if prices is None:
        return
    xp = namespace(prices)
    if prices.ndim != 1 or not bool(xp.all((prices > 0) & xp.isfinite(prices))):
        raise ValueError(f"prices must be (p,), positive and finite but are {extent(prices)}: {prices}")


def prices_like(prices: Array | None, array: Array) -> Array:
    """Return the prices in the dtype of `array`, (p,)."""
    return full((array.shape[1],), 1.0, array) if prices is None else as_floating(prices, like=array)


def miss(weights: Array, prices: Array | None, total: Array | float) -> float:
    """Return the largest |sum_j a_j V_ij - r_i| of those that are more than rounding of sum_j |a_j V_ij| + |r_i|."""
    xp = namespace(weights)
    prices, total = prices_like(prices, weights), price_like(total, weights)
    off = xp.abs(xp.sum(prices * weights, axis=1, keepdims=True) - total)
    size = xp.sum(xp.abs(prices * weights), axis=1, keepdims=True) + abs(total)
    return float(
        xp.max(xp.where(off > 4 * (weights.shape[1] + 4) * xp.finfo(weights.dtype).eps * size, off, xp.zeros_like(off)))
    )
