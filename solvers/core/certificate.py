"""What can be proven about a point, evaluated in float64 from the point alone, whatever solver it comes from."""

from __future__ import annotations

from dataclasses import dataclass

from gramian.solvers.backend._xp import Array, namespace
from gramian.solvers.backend.printed import digits
from gramian.solvers.core.duality import duality_gaps, loss_size
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.terms import Term

__all__ = ["Certificate", "certify", "measured"]

ROUNDING = 1e-12


@dataclass(frozen=True)
class Certificate:
    """objective = f(V) + h(V) >= optimum >= bound

    Parameters
    ----------
    objective : float
        f(V) + h(V), in squared outputs.
    bound : float
        A proven lower bound of the optimum, -inf if none is known.
    relative_error : float
        |X* V^T - X W^T|^2 / |X W^T|^2.
    residual : float, optional
        |grad f(V)| along the feasible set / |grad f(0)|, and None where a gap says more.
    violation : float, default 0.0
        The largest entry outside the feasible set, 0 when V is feasible.

    Attributes
    ----------
    gap : float
        objective - bound >= objective - optimum.
    relative_gap : float
        gap / objective.
    measure : float
        The number that a solver stops on: the relative gap, or the residual where that is the certificate.

    Examples
    --------
    >>> from gramian.solvers import Certificate
    >>> certificate = Certificate(objective=2.0, bound=1.5, relative_error=0.01)
    >>> certificate
    Certificate(objective 2, relative error 0.01, gap 0.25)
    >>> certificate.gap, certificate.relative_gap
    (0.5, 0.25)
    """

    objective: float
    bound: float
    relative_error: float
    residual: float | None = None
    violation: float = 0.0

    def __repr__(self) -> str:
        off = f", violation {digits(self.violation)}" if self.violation else ""
        error = digits(self.relative_error)
        return f"Certificate(objective {digits(self.objective)}, relative error {error}, {measured(self)}{off})"

    @property
    def gap(self) -> float:
        """Return objective - bound >= objective - optimum."""
        return self.objective - self.bound

    @property
    def relative_gap(self) -> float:
        """Return gap / objective; it is 0 when both vanish, and infinite where no bound is known."""
        if not self.gap < float("inf"):
            return float("inf")
        return self.gap / self.objective if self.objective > 0 else (0.0 if self.gap <= 0 else float("inf"))

    @property
    def measure(self) -> float:
        """Return the number that a solver stops on: the relative gap, or the KKT residual where that is the certificate."""
        return self.relative_gap if self.residual is None else self.residual


def measured(certificate: Certificate) -> str:
    """Return the measure with its name, as in `gap 4e-9`: the gap is relative to the objective."""
    return f"{'gap' if certificate.residual is None else 'KKT residual'} {digits(certificate.measure)}"


def certify(problem: Quadratic, term: Term, weights: Array) -> Certificate:
    """gap >= f(V) + h(V) - min (f + h), or the Karush-Kuhn-Tucker residual of V, with neither X nor Y

    L1, or any term with `polar`, has a duality gap. With g = grad f(V) and any s such that h*(-s g) is finite, weak duality
    gives per row

        gap = (1 - s)^2 f(V) + h(V) + h*(-s g) + s <V, g>,

    and for a norm the best choice is s = clip(1 - <g, v> / (2 f), -1 / h°(g), 1 / h°(g)), where h* vanishes. It rests on f
    being a sum of squares: where f(V), or the gap, is below zero by more than rounding, G is indefinite or has a slope that
    is not its own, and no bound is known. A term that is no norm has its convex conjugate, `conjugate`. Since f is convex, any
    point U has

        f(V) + h(V) >= f(U) - <g_U, U> - h*(-g_U),   g_U = grad f(U),   for all V,

    and U is the point itself, or what `dual` makes of it, so that h*(-g_U) is finite. Support, Affine, or any term with
    `tangent`, has the residual: the gradient along the set, relative to that at zero, and how far V is off the set.

    Parameters
    ----------
    problem : Quadratic
        f.
    term : L1, Support, Affine, or any object with `value` and `polar` or `conjugate`, or with `tangent` and `violation`
        h.
    weights : array (q, p)
        V, from any solver; it is evaluated in float64.

    Returns
    -------
    Certificate
        What is proven of V.

    Raises
    ------
    TypeError
        For a term that has neither `polar` nor `conjugate` nor `tangent`.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import L1, Quadratic, certify
    >>> problem = Quadratic(np.eye(2), np.array([[3.0, 0.5]]))  # min 1/2 |v - w|^2 + |v|_1
    >>> certify(problem, L1(1.0), np.array([[2.0, 0.0]])).gap
    0.0
    >>> certify(problem, L1(1.0), np.array([[3.0, 0.5]])).gap > 0
    True
    """
    problem = problem.double
    xp = namespace(problem.anchor, weights)
    weights = xp.astype(weights, xp.float64)
    losses, gradient = problem.value_and_gradient(weights)
    loss = float(xp.sum(losses))
    energy = problem.energy
    relative_error = loss / energy if energy > 0 else (0.0 if loss <= 0 else float("inf"))
    ways = [name for name in ("polar", "conjugate", "tangent") if hasattr(term, name)]
    if not ways:
        raise TypeError(
            f"{type(term).__name__} has neither polar (a norm) nor conjugate nor tangent (a set): nothing can be certified"
        )
    violation = float(term.violation(weights)) if hasattr(term, "violation") else 0.0
    if ways[0] == "tangent":
        start, free = norm(problem.at_zero[1]), norm(term.tangent(gradient))
        residual = free / start if start > 0 else (0.0 if free == 0 else float("inf"))
        return Certificate(loss, float("-inf"), relative_error, residual, violation)
    penalty = term.value(weights) if hasattr(term, "value") else xp.zeros_like(losses)
    gaps, sizes = duality_gaps(problem, term, weights, losses, penalty)
    margin, slack = ROUNDING * sizes, ROUNDING * loss_size(problem, weights)
    objective, gap = loss + float(xp.sum(penalty)), float(xp.sum(xp.where(gaps > 0, gaps, xp.zeros_like(gaps))))
    sound = bool(xp.all(losses >= -slack) & xp.all(gaps >= -margin)) and gap < float("inf") and objective < float("inf")
    return Certificate(objective, objective - gap if sound else float("-inf"), relative_error, violation=violation)


def norm(array: Array) -> float:
    """Return the Frobenius norm as a Python number."""
    xp = namespace(array)
    return float(xp.sqrt(xp.sum(array * array)))
