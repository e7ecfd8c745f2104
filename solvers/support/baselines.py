"""Magnitude and Wanda: keep the weights of largest score as they are. (SparseGPT is `gramian.solvers.sparsegpt`.)"""

from __future__ import annotations

from gramian.solvers.backend._xp import Array, namespace
from gramian.solvers.core.certificate import certify
from gramian.solvers.core.patterns import Pattern
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Solution, Status
from gramian.solvers.core.terms import Support

__all__ = ["magnitude", "wanda"]


def magnitude(problem: Quadratic, pattern: Pattern) -> Solution:
    """W on the pattern's largest |W_ij|; the layer's inputs are ignored."""
    return keep_as_they_are(problem, pattern, namespace(problem.anchor).abs(problem.anchor))


def wanda(problem: Quadratic, pattern: Pattern) -> Solution:
    """W on the pattern's largest |W_ij| sqrt(G_jj) (Sun et al. 2023): exact for diagonal G, blind to correlations.

    Published for per-row patterns; any pattern is accepted.
    """
    xp = namespace(problem.anchor)
    return keep_as_they_are(problem, pattern, xp.abs(problem.anchor) * xp.sqrt(problem.diagonal))


def keep_as_they_are(problem: Quadratic, pattern: Pattern, score: Array) -> Solution:
    pattern.check(problem.shape)
    support = Support(pattern.select(score))
    weights = support.prox(problem.anchor, 1.0)
    return Solution(weights, Status.DIRECT, certify(problem, support, weights))
