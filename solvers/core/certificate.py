"""What can be proven about a point, evaluated in float64 from the point alone, whatever solver it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gramian.solvers.backend._xp import Array, as_floating, namespace
from gramian.solvers.backend.computing import computation
from gramian.solvers.backend.printed import aligned, digits
from gramian.solvers.core.bounds import conjugate_bounds, norm_bounds, row_gaps
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.rounding import gamma
from gramian.solvers.core.terms import Term, TermLike, term_of

__all__ = ["Certificate", "certify", "measured"]

WAYS = ("polar", "conjugate", "tangent")  # to certify a point, by what a term has, the first of which counts


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
    slack : float, default 0.0
        What the bound was lowered by because numbers are rounded; without it the gap would be less by as much.
    sound : bool, default True
        Whether the loss, and that at zero, are finite, and not negative by more than rounding: no data has a loss below zero.

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
    slack: float = 0.0
    sound: bool = True

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

    def met_but_for_rounding(self, tol: float) -> bool:
        """Return whether the gap would be within half of `tol` but for the slack: there is nothing left to gain then."""
        return self.residual is None and self.gap - self.slack <= 0.5 * tol * self.objective

    @property
    def measure(self) -> float:
        """Return the number that a solver stops on: the relative gap, or the KKT residual where that is the certificate."""
        return self.relative_gap if self.residual is None else self.residual

    def rows(self) -> list[tuple[str, str]]:
        """Return names and figures, with units, one by one."""
        proven = [("lower bound", "none is known" if self.bound == float("-inf") else f"{self.bound:.6g}, likewise")]
        if self.residual is None:
            proven.append(("gap", f"{digits(self.relative_gap)} of the objective"))
        else:
            proven.append(("KKT residual", f"{digits(self.residual)} of the gradient at zero"))
        return [
            ("objective", f"{self.objective:.6g}, in squared outputs summed over tokens, halved"),
            *proven,
            ("error", f"{digits(self.relative_error)} of the summed squares of the dense weights' outputs"),
            ("violation", f"{digits(self.violation)}, the largest entry off the feasible set"),
        ]

    def summary(self) -> str:
        """Return what is proven, a line for each, with units."""
        return aligned(self.rows())


def measured(certificate: Certificate) -> str:
    """Return the measure with its name, as in `gap 4e-9`: the gap is relative to the objective."""
    return f"{'gap' if certificate.residual is None else 'KKT residual'} {digits(certificate.measure)}"


@computation
def certify(problem: Quadratic, term: TermLike, weights: Array) -> Certificate:
    """gap >= f(V) + h(V) - min (f + h), or the Karush-Kuhn-Tucker residual of V, with neither X nor Y

    L1, or any term with `polar`, has a duality gap. With g = grad f(V) and any s such that h*(-s g) is finite, weak duality
    gives per row

        gap = (1 - s)^2 f(V) + h(V) + h*(-s g) + s <V, g>,

    and for a norm the best choice is s = clip(1 - <g, v> / (2 f), -1 / h°(g), 1 / h°(g)), where h* vanishes. It rests on f
    being a sum of squares: of an indefinite G, and of a slope or floor that no data has, no bound is known. What float64 may
    have rounded is taken off the bound (`slack`), which is thus at most the optimum in exact arithmetic. (If G is singular to
    rounding f itself may have no minimum; the bound is then one of all V in whose rows f is not negative.)

    A term that is no norm has its convex conjugate, `conjugate`. Since f is convex, any point U has

        f(V) + h(V) >= f(U) - <g_U, U> - h*(-g_U),   g_U = grad f(U),   for all V,

    and U is made of the point so that h*(-g_U) is finite: by `dual`, by putting the weights that the term says nothing of
    (`free`, such as channels of an L1 term with lambda = 0) at their minimum, and by moving towards the minimum of f. That is
    also the way of norms with such weights, or that couple rows. Support, Affine, or any term with
    `tangent`, has the residual: the gradient along the set, relative to that at zero, and how far V is off the set.

    Parameters
    ----------
    problem : Quadratic
        f.
    term : Term
        h, with `polar`, `conjugate` or `tangent`. A number is the lambda of an L1 term.
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
    >>> certify(problem, L1(1.0), np.array([[2.0, 0.0]])).gap < 1e-12
    True
    >>> certify(problem, L1(1.0), np.array([[3.0, 0.5]])).gap > 0
    True
    """
    term, weights = term_of(term, problem.anchor), problem.point(weights)
    problem = problem.double
    xp = namespace(problem.anchor, weights)
    violation = float(term.violation(as_floating(weights))) if hasattr(term, "violation") else 0.0  # to its own rounding
    weights = xp.astype(weights, xp.float64)
    losses, gradient = problem.value_and_gradient(weights)
    rounding = problem.rounding(weights)
    sound = problem.possible(losses, rounding)
    relative_error = problem.error_of(losses) if sound else float("inf")
    h: Any = term  # what it has decides
    ways = [name for name in WAYS if hasattr(h, name)]
    if not ways:
        raise TypeError(
            f"{type(term).__name__} has neither polar (a norm) nor conjugate nor tangent (a set): nothing can be certified"
        )
    loss = float(xp.sum(losses))
    if ways[0] == "tangent":
        start, free = norm(problem.at_zero[1]), norm(h.tangent(gradient))
        residual = free / start if start > 0 else (0.0 if free == 0 else float("inf"))
        return Certificate(loss, float("-inf"), relative_error, residual, violation, sound=sound)
    penalty = h.value(weights) if hasattr(h, "value") else xp.zeros_like(losses)
    objective = loss + float(xp.sum(penalty))
    if not (sound and problem.has_minimum):
        return Certificate(objective, float("-inf"), relative_error, violation=violation, sound=sound)
    found, bounds = row_bounds(problem, term, weights, (losses, gradient))
    plain = float(xp.sum(found))
    bound = float(xp.sum(bounds) - gamma(weights.shape[0] + 2) * xp.sum(xp.abs(bounds)))
    if not (abs(bound) < float("inf") and objective < float("inf")):  # NaN is not
        return Certificate(objective, float("-inf"), relative_error, violation=violation, sound=sound)
    bound = min(bound, objective)  # a sum of squares that seems to be negative is zero
    return Certificate(objective, bound, relative_error, violation=violation, slack=max(plain - bound, 0.0))


def row_bounds(problem: Quadratic, term: Term, weights: Array, known: tuple[Array, Array] | None = None) -> tuple[Array, Array]:
    """Return bounds of min f + h per row, (q,), of a problem in float64 that has a minimum, and those less what is rounding.

    known: its `value_and_gradient` at the weights.
    """
    xp = namespace(weights)
    losses, gradient = problem.value_and_gradient(weights) if known is None else known
    rounding, penalty = problem.rounding(weights), term.value(weights) if hasattr(term, "value") else xp.zeros_like(losses)
    if hasattr(term, "polar") and not getattr(term, "couples_rows", False) and not has_free(term, weights):
        gaps = row_gaps(term, weights, losses, gradient, penalty)
        found = losses + penalty - xp.where(gaps > 0, gaps, xp.zeros_like(gaps))
        return found, norm_bounds(problem, term, weights, losses, gradient, penalty, rounding)
    found, slack = conjugate_bounds(problem, term, weights)
    return found, found - slack - rounding.loss - gamma(weights.shape[1] + 16) * xp.abs(penalty)


def has_free(term: Term, weights: Array) -> bool:
    """Return whether the term says nothing of some weights."""
    return hasattr(term, "free") and term.free(weights) is not None


def norm(array: Array) -> float:
    """Return the Frobenius norm as a Python number."""
    xp = namespace(array)
    return float(xp.sqrt(xp.sum(array * array)))
