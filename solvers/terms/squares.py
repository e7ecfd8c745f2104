"""Terms with squares of the weights: a ridge, and the elastic net."""

from __future__ import annotations

from dataclasses import dataclass

from gramian.solvers.backend._xp import Array, namespace
from gramian.solvers.core.prices import checked_price, of_price, price_like, where_zero

__all__ = ["ElasticNet", "Ridge"]


@dataclass(frozen=True, eq=False)
class Ridge:
    """h(V) = 1/2 sum_ij lambda_ij V_ij^2

    It shrinks the weights themselves; `Quadratic.damped` is a ridge on their change.

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
    >>> from gramian.solvers import FISTA, Quadratic, Ridge, solve
    >>> problem = Quadratic(np.eye(2), np.array([[3.0, 0.5]]))  # min 1/2 |v - w|^2 + 1/2 |v|^2
    >>> solve(problem, Ridge(1.0), FISTA(), tol=1e-12).weights.round(6).tolist()
    [[1.5, 0.25]]
    """

    weight: Array | float
    channel_steps = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", checked_price(self.weight, "a ridge"))

    def __repr__(self) -> str:
        return f"Ridge({of_price(self.weight)})"

    def value(self, weights: Array) -> Array:
        """Return h per row, (q,)."""
        return 0.5 * namespace(weights).sum(price_like(self.weight, weights) * weights * weights, axis=1)

    def prox(self, weights: Array, step: Array | float) -> Array:
        """argmin_V 1/2 |V - U|^2 + step h(V) = U / (1 + step lambda); a step per channel (p,) is the metric 1 / step."""
        return weights / (1 + step * price_like(self.weight, weights))

    def conjugate(self, slope: Array) -> Array:
        """Return h*(u) = 1/2 sum_j u_j^2 / lambda_j per row, (q,), where 0 / 0 is 0."""
        return conjugate_of_squares(namespace(slope).abs(slope), price_like(self.weight, slope))

    def limit(self, slope: Array) -> Array:
        """Return 0 for rows with a slope where lambda is zero, else infinity, (q,)."""
        return domain_limit(namespace(slope).abs(slope), 0.0, price_like(self.weight, slope))

    def free(self, weights: Array) -> Array | None:
        """Return where lambda is zero, (q, p), or None if it is that nowhere."""
        return where_zero(self.weight, weights)

    def rescaled(self, scale: Array) -> Ridge:
        """Return the same term in coordinates `v' = scale * v`."""
        return Ridge(self.weight / scale**2)


@dataclass(frozen=True, eq=False)
class ElasticNet:
    """h(V) = sum_ij lambda_ij |V_ij| + mu_ij / 2 V_ij^2

    Parameters
    ----------
    weight : float or array
        lambda >= 0, a number or an array that broadcasts to (q, p); (q, 1) gives every row its own.
    ridge : float or array
        mu >= 0, likewise. Where it is small the gap, which is a square over mu, closes late.

    Raises
    ------
    ValueError
        Unless lambda and mu are finite and at least zero everywhere.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import ElasticNet, FISTA, Quadratic, solve
    >>> problem = Quadratic(np.eye(2), np.array([[3.0, 0.5]]))  # min 1/2 |v - w|^2 + |v|_1 + 1/2 |v|^2
    >>> solve(problem, ElasticNet(1.0, 1.0), FISTA(), tol=1e-12).weights.round(6).tolist()
    [[1.0, 0.0]]
    """

    weight: Array | float
    ridge: Array | float
    channel_steps = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", checked_price(self.weight, "an L1 weight"))
        object.__setattr__(self, "ridge", checked_price(self.ridge, "a ridge"))

    def __repr__(self) -> str:
        return f"ElasticNet({of_price(self.weight)}, {of_price(self.ridge)})"

    def value(self, weights: Array) -> Array:
        """Return h per row, (q,)."""
        xp = namespace(weights)
        weight, ridge = price_like(self.weight, weights), price_like(self.ridge, weights)
        return xp.sum(weight * xp.abs(weights) + 0.5 * ridge * weights * weights, axis=1)

    def prox(self, weights: Array, step: Array | float) -> Array:
        """argmin_V 1/2 |V - U|^2 + step h(V), the soft threshold at step * lambda divided by 1 + step * mu.

        A step per channel (p,) is the same in the metric 1 / step.
        """
        xp = namespace(weights)
        size = over(xp.abs(weights), step * price_like(self.weight, weights))
        return xp.sign(weights) * size / (1 + step * price_like(self.ridge, weights))

    def conjugate(self, slope: Array) -> Array:
        """Return h*(u) = sum_j max(|u_j| - lambda_j, 0)^2 / (2 mu_j) per row, (q,), where 0 / 0 is 0."""
        excess = over(namespace(slope).abs(slope), price_like(self.weight, slope))
        return conjugate_of_squares(excess, price_like(self.ridge, slope))

    def limit(self, slope: Array) -> Array:
        """Return the largest s for which h*(s u) is finite, (q,): min_j lambda_j / |u_j| over channels without a ridge."""
        weight, ridge = price_like(self.weight, slope), price_like(self.ridge, slope)
        return domain_limit(namespace(slope).abs(slope), weight, ridge)

    def free(self, weights: Array) -> Array | None:
        """Return where lambda and mu are both zero, (q, p), or None if they are that nowhere."""
        return where_zero(price_like(self.weight, weights) + price_like(self.ridge, weights), weights)

    def rescaled(self, scale: Array) -> ElasticNet:
        """Return the same term in coordinates `v' = scale * v`."""
        return ElasticNet(self.weight / scale, self.ridge / scale**2)


def over(size: Array, threshold: Array | float) -> Array:
    """Return max(size - threshold, 0), which keeps NaN."""
    xp = namespace(size)
    excess = size - threshold
    return xp.where(excess < 0, xp.zeros_like(excess), excess)


def conjugate_of_squares(excess: Array, ridge: Array | float) -> Array:
    """Return sum_j excess_j^2 / (2 ridge_j) per row, (q,), where 0 / 0 is 0."""
    xp = namespace(excess)
    ridge = ridge + xp.zeros_like(excess)
    curved = ridge > 0
    flat = xp.where(excess > 0, xp.full_like(excess, float("inf")), xp.zeros_like(excess))
    return xp.sum(xp.where(curved, 0.5 * excess * excess / xp.where(curved, ridge, xp.ones_like(ridge)), flat), axis=1)


def domain_limit(size: Array, weight: Array | float, ridge: Array | float) -> Array:
    """Return min_j weight_j / size_j over channels whose ridge is zero, per row, (q,), lowered by its rounding."""
    xp = namespace(size)
    bound = (ridge + xp.zeros_like(size) == 0) & (size > 0)
    quotient = (weight + xp.zeros_like(size)) / xp.where(bound, size, xp.ones_like(size))
    return xp.min(xp.where(bound, quotient * (1 - 8 * xp.finfo(size.dtype).eps), xp.full_like(size, float("inf"))), axis=1)
