"""Sets that hold every weight within a range of its own: all that is not negative, and boxes."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

from gramian.solvers.backend._xp import Array, as_floating, cholesky, device, namespace, solve_triangular
from gramian.solvers.backend.printed import extent
from gramian.solvers.core.prices import checked_price, of_price, price_like
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.terms.squares import conjugate_of_squares, domain_limit, over
from gramian.solvers.terms.totals import Simplex

__all__ = ["Box", "NonNegative"]


@dataclass(frozen=True, eq=False)
class NonNegative:
    """h(V) = sum_ij lambda_ij V_ij + mu_ij / 2 V_ij^2 if V_ij >= 0 everywhere, else infinity

    It is a set if lambda and mu are zero, as they are if not given; else the L1 norm or the elastic net of weights that are not
    negative.

    Parameters
    ----------
    weight : float or array, default 0.0
        lambda >= 0, a number or an array that broadcasts to (q, p); (q, 1) gives every row its own.
    ridge : float or array, default 0.0
        mu >= 0, likewise.

    Raises
    ------
    ValueError
        Unless lambda and mu are finite and at least zero everywhere.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import NonNegative, Quadratic, lasso
    >>> problem = Quadratic(np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([[3.0, -1.0]]))
    >>> lasso(problem, NonNegative(), tol=1e-12).weights.round(6).tolist()
    [[2.5, 0.0]]
    >>> lasso(problem, NonNegative(1.0), tol=1e-12).weights.round(6).tolist()
    [[2.0, 0.0]]
    """

    channel_steps = True

    weight: Array | float = 0.0
    ridge: Array | float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", checked_price(self.weight, "a price"))
        object.__setattr__(self, "ridge", checked_price(self.ridge, "a ridge"))

    def __repr__(self) -> str:
        given = [of_price(self.weight), of_price(self.ridge)]
        return f"NonNegative({', '.join(given if given[1] != '0.0' else given[:1] if given[0] != '0.0' else [])})"

    def value(self, weights: Array) -> Array:
        """Return h per row, (q,), of the positive parts: `violation` says how far the others are off."""
        xp = namespace(weights)
        weights = xp.where(weights < 0, xp.zeros_like(weights), weights)
        return xp.sum(price_like(self.weight, weights) * weights + 0.5 * price_like(self.ridge, weights) * weights**2, axis=1)

    def prox(self, weights: Array, step: Array | float) -> Array:
        """argmin_V 1/2 |V - U|^2 + step h(V) = max(U - step lambda, 0) / (1 + step mu), in the metric of any step."""
        return over(weights, step * price_like(self.weight, weights)) / (1 + step * price_like(self.ridge, weights))

    def conjugate(self, slope: Array) -> Array:
        """Return h*(u) = sum_j max(u_j - lambda_j, 0)^2 / (2 mu_j) per row, (q,), where 0 / 0 is 0."""
        return conjugate_of_squares(over(slope, price_like(self.weight, slope)), price_like(self.ridge, slope))

    def limit(self, slope: Array) -> Array:
        """Return the largest s for which h*(s u) is finite, (q,): min_j lambda_j / u_j over positive u_j without a ridge."""
        return domain_limit(over(slope, 0.0), price_like(self.weight, slope), price_like(self.ridge, slope))

    def dual(self, problem: Quadratic, weights: Array) -> Array:
        """Return U = V + t Z with G Z > 0, and t per row as small as brings no -g above lambda, rounding included.

        There is such a Z unless some non-negative combination of channels vanishes on all tokens; it is found once per
        problem. Without it U is V. Channels with a ridge need none.
        """
        xp = namespace(weights)
        direction, rise = ascent(problem)
        missing = 2 * problem.rounding(weights).gradient - problem.gradient(weights) - price_like(self.weight, weights)
        needed = (rise > 0) & (missing > 0) & (price_like(self.ridge, weights) + xp.zeros_like(weights) == 0)
        norms = xp.sqrt(problem.diagonal)  # the sum U is rounded, too, which moves its gradient by up to this
        missing = missing + 2 * xp.finfo(weights.dtype).eps * xp.sum(xp.abs(weights) * norms, axis=1, keepdims=True) * norms
        missing = xp.where(needed, missing / xp.where(rise > 0, rise, xp.ones_like(rise)), xp.zeros_like(missing))
        lift = 33 / 32 * xp.max(missing, axis=1, keepdims=True)
        return weights + lift * direction  # a 64th of G Z at most is rounding

    def violation(self, weights: Array) -> float:
        """Return the size of the most negative weight."""
        return largest_excess(-weights)

    def rescaled(self, scale: Array) -> NonNegative:
        """Return the same function in coordinates `v' = scale * v`."""
        return NonNegative(self.weight / scale, self.ridge / scale**2)


@dataclass(frozen=True, eq=False)
class Box:
    """h(V) = 0 if lower_ij <= V_ij <= upper_ij everywhere, else infinity

    Parameters
    ----------
    lower, upper : float or array
        The bounds, numbers or arrays that broadcast to (q, p). They are finite; `NonNegative` has no upper bound.

    Raises
    ------
    ValueError
        For bounds that are not finite, and for a lower one above its upper one.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import FISTA, Box, Quadratic, solve
    >>> problem = Quadratic(np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([[3.0, -1.0]]))
    >>> solve(problem, Box(0.0, 2.0), FISTA(), tol=1e-12).weights.round(6).tolist()
    [[2.0, 0.0]]
    """

    lower: Array | float
    upper: Array | float
    channel_steps = True

    def __post_init__(self) -> None:
        for name in ("lower", "upper"):
            value = getattr(self, name)
            if not getattr(value, "ndim", 0):
                value = float(value)
                object.__setattr__(self, name, value)
            finite = abs(value) < float("inf") if isinstance(value, float) else finite_everywhere(value)
            if not finite:
                shown = value if isinstance(value, float) else extent(value)
                raise ValueError(f"the {name} bound of a box must be finite but is {shown}; NonNegative() has no upper one")
        crossed = self.lower > self.upper
        if crossed if isinstance(crossed, bool) else bool(namespace(crossed).any(crossed)):
            raise ValueError(f"the lower bound of a box is above its upper one: {self.lower} > {self.upper}")

    def __repr__(self) -> str:
        return f"Box({', '.join(str(b) if isinstance(b, float) else extent(b) for b in (self.lower, self.upper))})"

    def ends(self, like: Array) -> tuple[Array | float, Array | float]:
        """Return the bounds in the dtype of `like`."""
        lower, upper = (b if isinstance(b, float) else as_floating(b, like=like) for b in (self.lower, self.upper))
        return lower, upper

    def prox(self, weights: Array, step: Array | float) -> Array:
        """argmin_V 1/2 |V - U|^2 + h(V): every weight is cut to its range, in the metric of any step."""
        xp = namespace(weights)
        lower, upper = (bound + xp.zeros_like(weights) for bound in self.ends(weights))
        return xp.where(weights < lower, lower, xp.where(weights > upper, upper, weights))

    def conjugate(self, slope: Array) -> Array:
        """Return h*(u) = sum_j max(lower_j u_j, upper_j u_j) per row, (q,)."""
        xp = namespace(slope)
        lower, upper = self.ends(slope)
        return xp.sum(xp.where(slope > 0, upper * slope, lower * slope), axis=1)

    def violation(self, weights: Array) -> float:
        """Return the largest distance of a weight from its range."""
        lower, upper = self.ends(weights)
        return max(largest_excess(lower - weights), largest_excess(weights - upper))

    def rescaled(self, scale: Array) -> Box:
        """Return the same set in coordinates `v' = scale * v`."""
        return Box(self.lower * scale, self.upper * scale)


def finite_everywhere(array: Array) -> bool:
    """Return whether there is neither NaN nor Inf."""
    xp = namespace(array)
    return bool(xp.all(xp.isfinite(array)))


def largest_excess(array: Array) -> float:
    """Return the largest entry, or zero if none is positive."""
    return max(0.0, float(namespace(array).max(array)))


DIRECTIONS: WeakKeyDictionary[Quadratic, tuple[Array, Array]] = WeakKeyDictionary()
SHIFTS = (0.1, 1e-3, 1e-5, 1e-7, 1e-9)
HULL_STEPS = 500


def ascent(problem: Quadratic) -> tuple[Array, Array]:
    """Return Z (p,) with G Z > 0 wherever G_jj > 0, and G Z; both are zero where none was found.

    By Gordan's theorem there is one unless G v = 0 for some v >= 0, v != 0. In unit-diagonal coordinates Z = (G + m)^-1 1 is
    tried first, from large m, which keeps Z small, to little ones, with which G Z is 1 if G is regular; then, by FISTA, the
    point of the convex hull of the channels that is nearest to zero, whose products with all of them are at least its square.
    """
    if problem not in DIRECTIONS:
        scale = problem.unit_scale
        found, rise = rising(problem.gram / scale / scale[:, None])
        DIRECTIONS[problem] = found / scale, rise * scale
    return DIRECTIONS[problem]


def rising(gram: Array) -> tuple[Array, Array]:
    """Return Z and G Z for `ascent`, for a Gram matrix in unit-diagonal coordinates."""
    xp = namespace(gram)
    alive = xp.linalg.diagonal(gram) > 0
    ones, identity = xp.astype(alive, gram.dtype), xp.eye(gram.shape[0], dtype=gram.dtype, device=device(gram))
    for shift in SHIFTS:
        factor, exists = cholesky(gram + shift * identity)
        if exists:
            half = solve_triangular(factor, ones[:, None], upper=False)
            found = solve_triangular(xp.matrix_transpose(factor), half, upper=True)[:, 0]
            if rises(found, gram @ found, alive, 1 / 16):
                return found, gram @ found
    hull, curvature = Simplex(1.0), max(1.0, float(xp.max(xp.sum(xp.abs(gram), axis=1))))
    point = ahead = hull.prox(ones[None, :], 1.0) * ones
    for k in range(HULL_STEPS):
        following = hull.prox(ahead - (ahead @ gram) / curvature, 1.0)
        point, ahead = following, following + k / (k + 3) * (following - point)
    found = xp.where(alive, point[0, :], xp.zeros_like(ones))
    if rises(found, gram @ found, alive, 0.0):
        return found, gram @ found
    return xp.zeros_like(ones), xp.zeros_like(ones)


def rises(found: Array, rise: Array, alive: Array, evenly: float) -> bool:
    """Return whether G Z is positive beyond its rounding, which |Z|_1 times the width bounds in unit-diagonal coordinates, and
    at least so much of its largest entry everywhere."""
    xp = namespace(found)
    least = 64 * found.shape[0] * xp.finfo(found.dtype).eps * xp.sum(xp.abs(found)) + evenly * xp.max(rise)
    return bool(xp.all(xp.where(alive, rise > least, xp.ones_like(alive))) & xp.all(xp.isfinite(found)))
