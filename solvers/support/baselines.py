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
    """W on the pattern's largest |W_ij|

    The inputs of the layer are ignored.

    Parameters
    ----------
    problem : Quadratic
        f.
    pattern : TopK or NM
        Which masks are allowed.

    Returns
    -------
    Solution
        DIRECT, with the KKT residual on the support, which is not zero because nothing is refitted.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import Quadratic, TopK, magnitude
    >>> magnitude(Quadratic(np.eye(4), np.array([[3.0, -4.0, 1.0, 2.0]])), TopK(0.5)).weights.tolist()
    [[3.0, -4.0, 0.0, 0.0]]
    """
    return keep_as_they_are(problem, pattern, namespace(problem.anchor).abs(problem.anchor))


def wanda(problem: Quadratic, pattern: Pattern) -> Solution:
    """W on the pattern's largest |W_ij| sqrt(G_jj)

    The score is exact for diagonal G and blind to correlations. It is published for per-row patterns; any
    pattern is accepted.

    Parameters
    ----------
    problem : Quadratic
        f.
    pattern : TopK or NM
        Which masks are allowed.

    Returns
    -------
    Solution
        DIRECT, with the KKT residual on the support, which is not zero because nothing is refitted.

    References
    ----------
    Sun et al. 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import Quadratic, TopK, wanda
    >>> wanda(Quadratic(np.diag([9.0, 1.0]), np.array([[3.0, -4.0]])), TopK(0.5)).weights.tolist()
    [[3.0, 0.0]]
    """
    xp = namespace(problem.anchor)
    return keep_as_they_are(problem, pattern, xp.abs(problem.anchor) * xp.sqrt(problem.diagonal))


def keep_as_they_are(problem: Quadratic, pattern: Pattern, score: Array) -> Solution:
    """Return W on the largest scores that the pattern admits."""
    pattern.check(problem.shape)
    support = Support(pattern.select(score))
    weights = support.prox(problem.anchor, 1.0)
    return Solution(weights, Status.DIRECT, certify(problem, support, weights))
