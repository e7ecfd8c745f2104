"""ADMM for the LASSO: cheap steps for many rows at once that find which weights are zero and the signs of the others."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from gramian.solvers.backend._xp import Array, clip, device, namespace, to_numpy
from gramian.solvers.backend.threads import by_rows
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.l1.costs import Costs
from gramian.solvers.l1.fused import reflected, relaxed

__all__ = ["Splitting", "balanced", "inverses", "split"]

RELAXATION = 1.9  # converges below 2; 1.9 needs a quarter fewer steps than 1.5, a third fewer than 1
LARGEST, SMALLEST = 0, -14  # log2 of the penalty, relative to the Gram's unit diagonal
CROWDED = -2  # the largest over V >= 0, where the multipliers of a first point are many times those of an optimum

Inverses = Callable[[float], Array]  # rho -> a rho (G + rho I)^-1 + (1 - a) I


@dataclass(frozen=True, eq=False)
class Splitting:
    """Hold the state of rows, in float32: H = Z + U, from which Z = prox_{h/rho}(H) and U = H - Z.

    U is the dual weights over rho.
    """

    anchor: Array
    slope: Array | None
    costs: Costs  # lambda (n, p), and whether weights are positive
    ahead: Array  # H
    penalty: float  # rho
    inverse: Array  # M = a rho (G + rho I)^-1 + (1 - a) I
    pull: Array  # what a step adds whatever H is

    @property
    def dual(self) -> Array:
        """Return U, the part of H that the soft threshold takes away."""
        return clip(self.ahead, self.costs.lower / self.penalty, self.costs.limit / self.penalty)

    @property
    def sparse(self) -> Array:
        """Return Z, which is exactly sparse."""
        return self.ahead - self.dual

    def rows(self, chosen: Array) -> Splitting:
        """Return the state of some rows alone."""
        xp = namespace(self.ahead)
        anchor, ahead, pull = (xp.take(array, chosen, axis=0) for array in (self.anchor, self.ahead, self.pull))
        slope = None if self.slope is None else xp.take(self.slope, chosen, axis=0)
        return replace(self, anchor=anchor, slope=slope, costs=self.costs.rows(chosen), ahead=ahead, pull=pull)

    def penalised(self, penalty: float, inverse: Inverses) -> Splitting:
        """Return the state with the same Z and the same multipliers rho U at another rho."""
        dual, matrix = self.dual, inverse(penalty)
        ahead = self.ahead - dual + dual * (self.penalty / penalty)
        pull = pulling(self.anchor, self.slope, penalty, matrix)
        return replace(self, ahead=ahead, penalty=penalty, inverse=matrix, pull=pull)

    def advanced(self, steps: int) -> Splitting:
        """Return the state after `steps` steps of

            V = argmin f(V) + rho/2 |V - Z + U|^2 = W + (rho (Z - U - W) - slope) (G + rho I)^-1,
            H = a V + (1 - a) Z + U,   Z = prox_{h/rho}(H),   U = H - Z,      a = RELAXATION,

        each of which is H <- (Z - U) M + (2 - a) U + pull. That is one product of the size of `V G`, as in a proximal gradient
        method, whose steps however are shorter than 1 / |G|: in unit-diagonal coordinates |G| is near 100 on layers, and
        most eigenvalues are below 1. Here large eigenvalues cost nothing. (Boyd et al. 2011, Sections 3.4.3 and 6.4; Eckstein
        and Bertsekas 1992 for the relaxation.)
        """

        least, most = self.costs.lower / self.penalty, self.costs.limit / self.penalty

        def walk(rows: slice) -> Array:
            """Return H of some rows."""
            lower, limit, ahead, pull = (array[rows, :] for array in (least, most, self.ahead, self.pull))
            for _ in range(steps):
                dual, difference = reflected(ahead, lower, limit)
                ahead = relaxed(difference @ self.inverse, dual, pull, 2 - RELAXATION)
            return ahead

        return replace(self, ahead=by_rows(walk, self.ahead, steps * math.prod(self.ahead.shape) * self.ahead.shape[1]))


def split(problem: Quadratic, costs: Costs, weights: Array, gradient: Array, penalty: float, inverse: Inverses) -> Splitting:
    """Return the state at `weights`: Z = V and rho U = -grad f(V), cut to what is dual feasible.

    The problem is in unit-diagonal coordinates.
    """
    xp = namespace(weights)
    ahead = weights + clip(-gradient, costs.lower, costs.limit) / penalty
    anchor, slope, limit, ahead = (
        None if array is None else xp.astype(array, xp.float32) for array in (problem.anchor, problem.slope, costs.limit, ahead)
    )
    matrix, costs = inverse(penalty), replace(costs, limit=limit)
    return Splitting(anchor, slope, costs, ahead, penalty, matrix, pulling(anchor, slope, penalty, matrix))


def pulling(anchor: Array, slope: Array | None, penalty: float, matrix: Array) -> Array:
    """Return W + (1 - a) slope / rho - (W + slope / rho) M."""
    if slope is None:
        return anchor - anchor @ matrix
    slope = slope / penalty
    return anchor + (1 - RELAXATION) * slope - (anchor + slope) @ matrix


def balanced(costs: Costs, weights: Array, multipliers: Array, *, halvings: int = 0) -> float:
    """Return a penalty for rows like these, h(V) / |V|^2 of a typical one, halved so many times.

    At the first the threshold lambda / rho is of the size of V. Where weights may not be negative, and may cost nothing, the
    multipliers rho U take the place of lambda: it is |rho U| / |V|, at most 1/4. The penalty is a power of two, so that
    problems that share a Gram share inverses. On layers at 50 and 70 % sparsity the first is within a factor of two of the best
    (0.05 to 0.4), and at a tiny lambda, where the best is tiny, it is too; so it is over V >= 0 (0.25 or 0.5).
    """
    xp = namespace(weights)
    weights = xp.astype(weights, xp.float64)  # whose squares neither overflow nor vanish
    price = xp.astype(multipliers if costs.positive else costs.limit, xp.float64)
    sizes = [to_numpy(xp.sum(array, axis=1)) for array in (price * price, xp.abs(price * weights), weights * weights)]
    against = np.sqrt(sizes[0] * sizes[2]) if costs.positive else sizes[1]
    present = (against > 0) & (sizes[2] > 0)
    typical = float(np.median(against[present] / sizes[2][present])) if np.any(present) else 1.0
    power: float = 2.0 ** float(
        np.clip(np.round(np.log2(typical)) - halvings, SMALLEST, CROWDED if costs.positive else LARGEST)
    )
    return power


def inverses(gram: Array) -> Inverses:
    """Return a function of rho for the matrix of a step, in float32, each computed once, in float64."""
    xp = namespace(gram)
    known: dict[float, Array] = {}

    def inverse(penalty: float) -> Array:
        """Return M at this rho."""
        if penalty not in known:
            identity = xp.eye(gram.shape[0], dtype=gram.dtype, device=device(gram))
            found = RELAXATION * penalty * xp.linalg.inv(gram + penalty * identity) + (1 - RELAXATION) * identity
            known[penalty] = xp.astype(found, xp.float32)
        return known[penalty]

    return inverse
