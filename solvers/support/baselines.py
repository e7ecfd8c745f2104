"""Magnitude and Wanda: keep the weights of largest score as they are. (SparseGPT is `gramian.solvers.sparsegpt`.)"""

from __future__ import annotations

from gramian.solvers.backend._xp import Array, namespace
from gramian.solvers.backend.computing import computation
from gramian.solvers.core.certificate import certify
from gramian.solvers.core.patterns import PatternLike, pattern_of
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Solution, Status
from gramian.solvers.core.terms import Support

__all__ = ["magnitude", "wanda"]


@computation
def magnitude(problem: Quadratic, pattern: PatternLike) -> Solution:
    """W on the pattern's largest |W_ij|

    The inputs of the layer are ignored.

    Parameters
    ----------
    problem : Quadratic
        f.
    pattern : Pattern, str or float
        Which masks are allowed; "2:4" and a sparsity will do.

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


@computation
def wanda(problem: Quadratic, pattern: PatternLike) -> Solution:
    """W on the pattern's largest |W_ij| sqrt(G_jj)

    The score is exact for diagonal G and blind to correlations. It is published for per-row patterns; any
    pattern is accepted.

    Parameters
    ----------
    problem : Quadratic
        f.
    pattern : Pattern, str or float
        Which masks are allowed; "2:4" and a sparsity will do.

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


def keep_as_they_are(problem: Quadratic, pattern: PatternLike, score: Array) -> Solution:
    """Return W on the largest scores that the pattern admits."""
    support = Support(pattern_of(pattern, problem.shape).select(score))
    weights = support.prox(problem.anchor, 1.0)
    return Solution(weights, Status.DIRECT, certify(problem, support, weights))
