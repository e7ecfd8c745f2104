"""What can be proven about a point, judged in float64 from the point alone: no solver is asked."""

from __future__ import annotations

from dataclasses import dataclass

from gramian.solvers.backend._xp import Array, namespace
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.terms import L1, Affine, Support, Term

__all__ = ["Certificate", "certify"]

ROUNDING = 1e-12


@dataclass(frozen=True)
class Certificate:
    """objective: f(V) + h(V). bound: a proven lower bound of the optimum, -inf if none is known.
    relative_error: |X* V^T - X W^T|^2 / |X W^T|^2. residual: |grad f(V)| along the feasible set / |grad f(0)|, None where
    a gap says more. violation: largest entry outside the feasible set, 0 when feasible."""

    objective: float
    bound: float
    relative_error: float
    residual: float | None = None
    violation: float = 0.0

    @property
    def gap(self) -> float:
        """objective - bound >= objective - optimum."""
        return self.objective - self.bound

    @property
    def relative_gap(self) -> float:
        """gap / objective; 0 when both vanish, infinite where no bound is known."""
        if not self.gap < float("inf"):
            return float("inf")
        return self.gap / self.objective if self.objective > 0 else (0.0 if self.gap <= 0 else float("inf"))

    @property
    def measure(self) -> float:
        """The number a solver stops on: the relative gap, or the KKT residual where that is the certificate."""
        return self.relative_gap if self.residual is None else self.residual


def certify(problem: Quadratic, term: Term, weights: Array) -> Certificate:
    """Certificate of `weights` for `min_V f(V) + h(V)`; needs neither X nor Y.

    L1: the duality gap. With g = grad f(V) and any s such that h*(-s g) is finite, weak duality gives per row
        gap = (1 - s)^2 f(V) + h(V) + h*(-s g) + s <V, g>,
    and for a norm the best choice is s = clip(1 - <g, v> / (2 f), -1 / h°(g), 1 / h°(g)), where h* vanishes. It rests on f
    being a sum of squares: where f(V), or the gap, is below zero by more than rounding, G is indefinite or has a slope that
    is not its own, and no bound is known. So for any term with `polar`.
    Support, Affine, any term with `tangent`: the Karush-Kuhn-Tucker residual, of the gradient along the set, and how far V
    is off the set.
    """
    problem = problem.double
    xp = namespace(problem.anchor, weights)
    weights = xp.astype(weights, xp.float64)
    losses, gradient = problem.value_and_gradient(weights)
    loss = float(xp.sum(losses))
    energy = problem.energy
    relative_error = loss / energy if energy > 0 else (0.0 if loss <= 0 else float("inf"))
    if isinstance(term, Support | Affine) or not hasattr(term, "polar"):
        if isinstance(term, L1) or not hasattr(term, "tangent"):
            raise TypeError(f"{type(term).__name__} has neither polar (a norm) nor tangent (a set): nothing can be certified")
        start, free = norm(problem.at_zero[1]), norm(term.tangent(gradient))
        residual = free / start if start > 0 else (0.0 if free == 0 else float("inf"))
        return Certificate(loss, float("-inf"), relative_error, residual, term.violation(weights))
    penalty = term.value(weights)
    gaps = row_gaps(term, weights, losses, gradient, penalty)
    slack = ROUNDING * (loss_size(problem, weights) + penalty + xp.sum(xp.abs(gradient * weights), axis=1))
    objective, gap = loss + float(xp.sum(penalty)), float(xp.sum(xp.where(gaps > 0, gaps, xp.zeros_like(gaps))))
    sound = bool(xp.all((losses >= -slack) & (gaps >= -slack))) and gap < float("inf") and objective < float("inf")
    return Certificate(objective, objective - gap if sound else float("-inf"), relative_error)


def loss_size(problem: Quadratic, weights: Array) -> Array:
    """Size per row, (q,), of the numbers that a loss is the sum of: what it is rounded by."""
    xp = namespace(weights)
    change = xp.abs(weights - problem.anchor)
    size = xp.sum(change * xp.sqrt(problem.diagonal), axis=1) ** 2  # |d_i G_ij d_j| <= |d_i| |d_j| sqrt(G_ii G_jj)
    if problem.slope is None or problem.floor is None:
        return size
    return size + xp.abs(problem.floor) + xp.sum(xp.abs(problem.slope) * change, axis=1)


def row_gaps(term: L1, weights: Array, losses: Array, gradient: Array, penalty: Array) -> Array:
    """Duality gap per row, (q,); rows separate, so each gets its own best dual point."""
    xp = namespace(weights)
    inner = xp.sum(gradient * weights, axis=1)
    polar = term.polar(gradient)
    limit = 1 / xp.where(polar > 0, polar, xp.ones_like(polar))
    limit = xp.where(polar > 0, limit, xp.full_like(polar, float("inf")))
    positive = losses > 0
    best = 1 - inner / (2 * xp.where(positive, losses, xp.ones_like(losses)))
    best = xp.where(positive, best, xp.ones_like(best))
    scale = xp.where(best > limit, limit, xp.where(best < -limit, -limit, best))
    return (1 - scale) ** 2 * losses + penalty + scale * inner


def norm(array: Array) -> float:
    """Frobenius norm as a Python number."""
    xp = namespace(array)
    return float(xp.sqrt(xp.sum(array * array)))
