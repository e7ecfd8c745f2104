"""The relaxed mask problem with its box, of one module or of many under one budget, and what can be proven about a point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from gramian.solvers.backend._xp import Array, cholesky, device, namespace, solve_triangular
from gramian.solvers.backend.computing import computation
from gramian.solvers.backend.given import given
from gramian.solvers.core.certificate import Certificate
from gramian.solvers.core.rounding import Rounding, gamma
from gramian.solvers.units.mask import NEGATIVE, Budget, MaskProblem, ratio

__all__ = ["BoxProgram", "certify_mask"]

SMALL = 1e-4  # of the summed losses of single units: an optimum below this is met to tol times this


@computation
def certify_mask(problem: MaskProblem, mask: Array, budget: float, *, penalty: float = float("inf")) -> Certificate:
    """gap >= loss(z) - min loss, for any mask z and the problem of `relaxed_mask`, from the mask alone

    The bound is the Lagrange dual of the linearisation at z, a lower bound by convexity. With u = 1 - z and g = A u - b,

        gap = min_price sum_j (r_j^+ u_j + r_j^- (1 - u_j)) + what the budget adds,   r = g - price c,

    and the best price is found exactly.

    Parameters
    ----------
    problem : MaskProblem
        The loss.
    mask : array (m,)
        z, boolean or real.
    budget : float
        What the kept units may cost.
    penalty : float, default inf
        The penalty; infinity makes the budget exact.

    Returns
    -------
    Certificate
        Its violation is the larger of the distance to the box, and to the budget / <c, 1>.

    Raises
    ------
    ValueError
        For a mask of another shape, and for a budget or a penalty out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import MaskProblem, Quadratic, certify_mask, relaxed_mask
    >>> rng = np.random.default_rng(0)
    >>> layer = Quadratic.from_data(rng.normal(size=(64, 8)), rng.normal(size=(4, 8)))
    >>> problem = MaskProblem.from_problem(layer)
    >>> optimum = relaxed_mask(problem, 6).certificate.objective
    >>> any_mask = certify_mask(problem, np.arange(8) > 1, 6)
    >>> any_mask.bound <= optimum <= any_mask.objective, any_mask.violation
    (True, 0.0)
    """
    program = BoxProgram((problem,), (1.0,), Budget(budget, problem.total, penalty))
    mask = given("mask", mask, problem.matrix, "the mask problem")
    if tuple(mask.shape) != (problem.units,):
        raise ValueError(f"the mask is {tuple(mask.shape)} but the problem has {problem.units} units")
    xp = namespace(problem.matrix, mask)
    return program.evaluated(1 - xp.astype(mask, xp.float64))[0]


@dataclass(frozen=True, eq=False)
class BoxProgram:
    """min_u sum_m weight_m loss_m(1 - u_m) under one budget, 0 <= u <= 1: the masks of the modules one after another.

    The Hessian is block diagonal; the budget is the only thing that the modules share.
    """

    problems: tuple[MaskProblem, ...]
    weights: tuple[float, ...]
    budget: Budget

    @cached_property
    def cost(self) -> Array:
        """Return the costs of all units."""
        return namespace(self.problems[0].cost).concat([problem.cost for problem in self.problems])

    @cached_property
    def linear(self) -> Array:
        """Return the linear terms of all units."""
        parts = [weight * problem.linear for problem, weight in zip(self.problems, self.weights)]
        return namespace(*parts).concat(parts)

    @cached_property
    def diagonal(self) -> Array:
        """Return the diagonal of the Hessian."""
        parts = [weight * problem.diagonal for problem, weight in zip(self.problems, self.weights)]
        return namespace(*parts).concat(parts)

    @cached_property
    def constant(self) -> float:
        """Return the objective at u = 0."""
        return sum(weight * problem.constant for problem, weight in zip(self.problems, self.weights))

    @cached_property
    def energy(self) -> float:
        """Return the objective at u = 1."""
        return sum(weight * problem.energy for problem, weight in zip(self.problems, self.weights))

    @cached_property
    def size(self) -> float:
        """Return the summed losses of units removed one at a time, signs aside."""
        return sum(weight * problem.size for problem, weight in zip(self.problems, self.weights))

    def split(self, vector: Array) -> list[Array]:
        """Return one slice per module."""
        parts, first = [], 0
        for problem in self.problems:
            parts.append(vector[first : first + problem.units])
            first += problem.units
        return parts

    def product(self, vector: Array) -> Array:
        """Return the Hessian times a vector."""
        parts = self.split(vector)
        return namespace(vector).concat([w * (q.matrix @ part) for q, w, part in zip(self.problems, self.weights, parts)])

    def evaluated(self, removed: Array) -> tuple[Certificate, float]:
        """Return the certificate of u and the price that proves its bound."""
        xp = namespace(removed)
        pull = self.product(removed)
        gradient = pull - self.linear
        loss = self.constant + float(xp.sum(removed * (0.5 * pull - self.linear)))
        excess = self.budget.target - float(xp.sum(self.cost * removed))
        price = best_price(gradient, self.cost, self.budget)
        reduced = gradient - price * self.cost
        slack = float(xp.sum(xp.where(reduced > 0, reduced * removed, reduced * (removed - 1))))
        objective = self.budget.objective(loss, excess)
        outside = max(0.0, -float(xp.min(removed)), float(xp.max(removed)) - 1)
        violation = max(outside, self.budget.violation(excess))
        rounded = self.rounding(removed, reduced, price)
        bound = objective - slack - self.budget.gap(excess, price) - rounded
        error, sound = ratio(loss, self.energy, self.size), min(loss, self.energy) >= -NEGATIVE * self.size
        if not rounded < float("inf"):
            return Certificate(objective, -float("inf"), error, violation=violation, sound=sound), price
        return Certificate(objective, bound, error, violation=violation, slack=rounded, sound=sound), price

    def rounding(self, removed: Array, reduced: Array, price: float) -> float:
        """Return what rounding may have put the bound above the optimum by; infinity where some A is indefinite.

        No entry of a mask moves by more than one. Where A is singular to rounding, its least eigenvalue c < 0 in unit-diagonal
        coordinates leaves c / 2 sum_j A_jj.
        """
        xp, relative = namespace(removed), gamma(removed.shape[0] + 16)
        spent = float(xp.sum(self.cost * xp.abs(removed))) + self.budget.target
        total = relative * (float(xp.sum(xp.abs(reduced))) + abs(price) * spent)
        for problem, weight, part in zip(self.problems, self.weights, self.split(removed)):
            floor = xp.sum(0 * part, keepdims=True) + weight * problem.constant
            linear = weight * problem.linear
            found = Rounding.of(part[None, :], xp.sqrt(weight * problem.diagonal), linear[None, :], floor)
            total += 2 * float(found.loss[0]) + float(xp.sum(found.gradient))
            if problem.curvature <= 0:
                total -= 0.5 * problem.curvature * weight * float(xp.sum(problem.diagonal))
        return total

    def meets(self, certificate: Certificate, tol: float) -> bool:
        """Return whether the gap is within the tolerance, but for rounding."""
        return certificate.gap - certificate.slack <= tol * max(certificate.objective, SMALL * self.size)

    def normal(self, free: Array, diagonal: Array) -> Callable[[Array], Array]:
        """Return x -> (F H F + diag)^-1 x, block by block, F = diag(free).

        A block that rounding made indefinite gets a ridge.
        """
        factors = []
        for problem, weight, kept, added in zip(self.problems, self.weights, self.split(free), self.split(diagonal)):
            xp = namespace(kept)
            identity = xp.eye(problem.units, dtype=xp.float64, device=device(kept))
            scale = 1 / xp.sqrt(weight * kept * problem.diagonal + added)
            matrix = (weight * problem.matrix) * (kept * scale)[:, None] * (kept * scale) + identity * (added * scale**2)
            ridge = 0.0
            factor, exists = cholesky(matrix)
            while not exists and ridge < 1:
                ridge = max(100 * ridge, 1e-15 * problem.units)
                factor, exists = cholesky(matrix + ridge * identity)
            factors.append((factor, scale))

        def solve(right: Array) -> Array:
            """Return (F H F + diag)^-1 x."""
            parts = []
            for (factor, scale), part in zip(factors, self.split(right)):
                half = solve_triangular(factor, (part * scale)[:, None], upper=False)
                parts.append(solve_triangular(factor.T, half, upper=True)[:, 0] * scale)
            return namespace(right).concat(parts)

        return solve


def best_price(gradient: Array, cost: Array, budget: Budget) -> float:
    """argmax_price sum_j min(0, g_j - price c_j) + price target - price^2 / (2 penalty).

    The function is concave, with a kink where a unit's g_j / c_j is, so the maximum is at the first kink beyond which it falls,
    or between that and the kink before.
    """
    xp = namespace(gradient, cost)
    order = xp.argsort(gradient / cost)
    kinks = xp.take(gradient / cost, order)
    spent = xp.cumulative_sum(xp.take(cost, order))
    slope = budget.target - kinks / budget.penalty - spent  # just beyond every kink
    first = int(xp.sum(xp.astype(slope > 0, xp.int64)))
    if budget.exact:
        return float(kinks[min(first, kinks.shape[0] - 1)])
    before = float(spent[first - 1]) if first > 0 else 0.0
    between = budget.penalty * (budget.target - before)
    return min(float(kinks[first]), between) if first < kinks.shape[0] else between
