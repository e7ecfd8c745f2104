"""Penalised least squares on one set of rows: the problem that all penalties share, its answers, what is proven of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gramian.solvers.core.certificate import Certificate, certify, row_bounds
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Solution, Status
from gramian.solvers.core.target_rows import TargetData
from gramian.solvers.core.targets import TargetMoments, anchored, moments_of
from gramian.solvers.core.terms import L1
from gramian.solvers.core.watch import Watch
from gramian.solvers.direct.restricted import refit
from gramian.solvers.l1.active import Workspace
from gramian.solvers.terms.ranges import NonNegative
from gramian.solvers.terms.squares import ElasticNet

__all__ = ["Penalty", "SharedGram", "alpha_grid"]

Floats = np.ndarray
SMALLEST = 1e-15  # of alpha, where nothing is left to fit


@dataclass(frozen=True)
class Penalty:
    """h(v) = alpha (l1_ratio |v|_1 + 1/2 (1 - l1_ratio) |v|^2), with v >= 0 if `positive`, beside a mean over rows."""

    alpha: float
    l1_ratio: float = 1.0
    positive: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < float("inf"):
            raise ValueError(f"alpha must be finite and at least zero but is {self.alpha}")
        if not 0 <= self.l1_ratio <= 1:
            raise ValueError(f"l1_ratio must be between 0 and 1 but is {self.l1_ratio}")

    def term(self, n: float) -> L1 | ElasticNet | NonNegative:
        """Return n h, which stands beside a sum over rows."""
        weight, ridge = n * self.alpha * self.l1_ratio, n * self.alpha * (1 - self.l1_ratio)
        if self.positive:
            return NonNegative(weight, ridge)
        return ElasticNet(weight, ridge) if ridge else L1(weight)


@dataclass(frozen=True, eq=False)
class SharedGram:
    """1/2 sum_i c_i |V x_i + b - y_i|^2 on some rows, with an intercept b or without.

    data: the rows. moments: theirs. problem: the loss. n: the sum of weights; 1/n of the loss is scikit-learn's.
    """

    data: TargetData
    moments: TargetMoments
    intercept: bool
    problem: Quadratic

    @classmethod
    def of(cls, data: TargetData, intercept: bool, moments: TargetMoments | None = None) -> SharedGram:
        """Prepare rows, whose moments may be known already."""
        moments = moments_of(data) if moments is None else moments
        return cls(data, moments, intercept, Quadratic(*anchored(data, moments, intercept)))

    @property
    def n(self) -> float:
        """Return the sum of weights."""
        return self.moments.weight

    def solved(self, penalty: Penalty, start: Floats | None, tol: float, max_steps: int) -> Solution:
        """argmin_V f(V) + n h(V) for every target, from `start` or from zero."""
        return next(self.path([penalty], start, tol, max_steps))

    def path(self, penalties: Sequence[Penalty], start: Floats | None, tol: float, max_steps: int) -> Iterator[Solution]:
        """Solve for one penalty after another, each from the answer before."""
        weights = np.zeros(self.problem.shape) if start is None else start
        space = Workspace.of(self.problem)
        for penalty in penalties:
            term = penalty.term(self.n)
            if penalty.alpha * penalty.l1_ratio == 0 and not penalty.positive:  # one linear system
                ridged = self.problem.ridged(self.n * penalty.alpha)
                weights = refit(ridged, np.ones(ridged.shape, dtype=bool)).weights
                solution = Solution(weights, Status.DIRECT, certify(self.problem, term, weights), 1)
            else:
                solution = space.lasso(term, Watch(), start=weights, tol=tol, max_steps=max_steps)
            weights = solution.weights
            yield solution

    def certified(self, weights: Floats, penalty: Penalty) -> tuple[Certificate, Floats]:
        """Return what is proven of weights as they are stored, from their residuals, and the gap of every target (q,)."""
        exact, term = self.at(weights), penalty.term(self.n)
        whole = certify(exact, term, weights)
        if whole.bound == -np.inf:
            return whole, np.full(len(weights), np.inf)
        gaps = exact.row_losses(weights) + term.value(weights) - row_bounds(exact, term, weights)[1]
        return whole, np.maximum(gaps, 0)

    def at(self, weights: Floats) -> Quadratic:
        """Return the loss anchored at these weights, where it is a sum of squares of residuals, to all digits."""
        return Quadratic(*anchored(self.data, self.moments, self.intercept, weights), trusted=True)


def alpha_grid(shared: SharedGram, count: int, l1_ratio: float, eps: float, positive: bool) -> Floats:
    """Return `count` alphas from the least at which all weights are zero down to `eps` times that, evenly in logarithms."""
    if l1_ratio == 0:
        raise ValueError("no alpha makes all weights zero with l1_ratio=0: give the alphas")
    pull = -shared.problem.at_zero[1]
    most = float(np.max(pull if positive else np.abs(pull), initial=0.0)) / (shared.n * l1_ratio)
    if most <= SMALLEST:
        return np.full(count, SMALLEST)
    return np.geomspace(most, most * eps, num=count)
