"""What the weights of a LASSO cost: a price for their size, and whether they may be negative."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gramian.solvers.backend._xp import Array, full, namespace
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.terms.ranges import ascent

__all__ = ["Costs", "Lift"]


@dataclass(frozen=True, eq=False)
class Lift:
    """Hold a direction Z along which every gradient rises: E = Z G > 0.

    slope: E (p,), zero in a dead channel. curvature: <Z, E>.
    """

    slope: Array
    curvature: float

    @classmethod
    def of(cls, problem: Quadratic) -> Lift | None:
        """Return the lift of a problem, or None where a sum of channels with positive coefficients vanishes (Gordan 1873)."""
        direction, slope = ascent(problem)
        curvature = float(namespace(slope).sum(direction * slope))
        return cls(slope, curvature) if curvature > 0 else None


@dataclass(frozen=True, eq=False)
class Costs:
    """h(V) = sum_ij lambda_ij |V_ij|, and infinity if a weight is negative where `positive` says that none may be

    With lambda = 0 and `positive` that is the set of weights that are not negative. The subdifferential of h at zero is
    [-lambda, lambda], or [-inf, lambda].

    limit: lambda (q, p), at least zero. lift: of the problem, to make multipliers feasible that a price of zero leaves no room.
    """

    limit: Array
    positive: bool = False
    lift: Lift | None = None

    @property
    def lower(self) -> Array:
        """Return the least multiplier of a weight that is zero; the largest is `limit`."""
        return full(tuple(self.limit.shape), float("-inf"), self.limit) if self.positive else -self.limit

    def rows(self, chosen: Array) -> Costs:
        """Return the costs of some rows; `chosen` holds their indices."""
        return replace(self, limit=namespace(self.limit).take(self.limit, chosen, axis=0))

    def nearest(self, weights: Array) -> Array:
        """Return the nearest weights whose cost is finite."""
        xp = namespace(weights)
        return xp.where(weights > 0, weights, xp.zeros_like(weights)) if self.positive else weights

    def value(self, weights: Array) -> Array:
        """Return h per row, (q,)."""
        xp = namespace(weights)
        cost = xp.sum(self.limit * xp.abs(weights), axis=1)
        return xp.where(xp.any(weights < 0, axis=1), xp.full_like(cost, float("inf")), cost) if self.positive else cost

    def excess(self, gradient: Array) -> Array:
        """Return how far -g_ij lies beyond the subdifferential at zero: where this is positive, a weight of zero moves."""
        return (-gradient if self.positive else namespace(gradient).abs(gradient)) - self.limit

    def gaps(self, weights: Array, losses: Array, gradient: Array, cost: Array) -> Array:
        """Return a duality gap per row, (q,): the smaller one of two dual points. cost: h per row.

        With residuals r = X V^T - Y the dual value of r' is -1/2 |r'|^2 - <r', Y>, and r' is feasible if X^T r' >= -lambda, and
        <= lambda unless weights are positive. The points are s r, as in `certify`, and, for positive weights, r + t X Z^T with
        the least t for which g + t E >= -lambda, whose gap is h(v) + <g, v> + t <E, v> + t^2 / 2 <Z, E>.
        """
        xp = namespace(weights)
        inner = xp.sum(gradient * weights, axis=1)
        positive = losses > 0
        best = xp.where(positive, 1 - inner / (2 * xp.where(positive, losses, xp.ones_like(losses))), xp.ones_like(losses))
        pull, zero = -gradient if self.positive else xp.abs(gradient), xp.zeros_like(gradient)
        ratio = pull / xp.where(self.limit > 0, self.limit, xp.ones_like(pull))
        unbounded = xp.where(pull > 0, xp.full_like(pull, float("inf")), zero)
        polar = xp.max(xp.where(self.limit > 0, ratio, unbounded), axis=1)
        most = xp.where(polar > 0, 1 / xp.where(polar > 0, polar, xp.ones_like(polar)), xp.full_like(polar, float("inf")))
        scale = xp.where(best > most, most, xp.where(best > 0, best, xp.zeros_like(best)))
        gap = (1 - scale) ** 2 * losses + cost + scale * inner
        if self.lift is None:
            return gap
        rise = self.lift.slope
        height = xp.max(self.excess(gradient) / xp.where(rise > 0, rise, xp.ones_like(rise)), axis=1)
        height = xp.where(height > 0, height, xp.zeros_like(height))
        lifted = cost + inner + height * xp.sum(rise * weights, axis=1) + 0.5 * height**2 * self.lift.curvature
        return xp.where(lifted < gap, lifted, gap)
