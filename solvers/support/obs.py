"""The SparseGPT sweep: column-wise optimal brain surgeon with lazy block updates (Frantar and Alistarh 2023)."""

from __future__ import annotations

import math

from gramian.solvers.backend._xp import Array, cholesky, copied, namespace, solve_triangular
from gramian.solvers.backend.computing import computation
from gramian.solvers.backend.options import number, whole
from gramian.solvers.core.certificate import certify
from gramian.solvers.core.patterns import NM, PatternLike, TopK, counted_pattern, keep_largest
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Solution, Status
from gramian.solvers.core.terms import Support

__all__ = ["DAMPING", "inverse_factor", "sparsegpt"]

DAMPING = 0.01  # times the mean of the Gram's diagonal, the published value
NEARBY = 16  # columns of a block that are updated one by one


@computation
def sparsegpt(problem: Quadratic, pattern: PatternLike, *, damping: float = DAMPING, block: int = 128) -> Solution:
    """min_V f(V) subject to V satisfying the pattern, greedily, by a sweep over columns j = 1..p

    The sweep prunes by the score v_j^2 / U_jj^2, then moves the error of column j into the columns right of it,

        V_{j:} -= (v_j - pruned v_j) / U_jj * U_{j,j:},   (G + D)^-1 = U^T U with U upper triangular.

    With X* != X the sweep starts from the minimiser of the damped loss.

    Parameters
    ----------
    problem : Quadratic
        f.
    pattern : TopK, NM, str or float
        Which masks are allowed; "2:4" and a sparsity will do.
    damping : float, default 0.01
        D = damping * mean(diag G) * I, a ridge on the change of the weights; 0.01 is the published value. If G + D is not
        positive definite in float64 the damping is raised tenfold until it is.
    block : int, default 128
        Columns that choose their mask together and update lazily. Per block the count is exact, and the counts add up to the
        pattern's.

    Returns
    -------
    Solution
        DIRECT, or DAMPED where the damping was raised, with the KKT residual on the support. Its detail: `damping`, what was
        used.

    Raises
    ------
    ValueError
        For numbers out of range, and for a pattern that does not fit.

    References
    ----------
    Frantar and Alistarh 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import NM, Quadratic, sparsegpt, wanda
    >>> rng = np.random.default_rng(0)
    >>> problem = Quadratic.from_data(rng.normal(size=(64, 8)), rng.normal(size=(4, 8)))
    >>> solution = sparsegpt(problem, NM(2, 4))
    >>> solution.certificate.objective < wanda(problem, NM(2, 4)).certificate.objective, solution.detail["damping"]
    (True, 0.01)
    """
    damping, block = number("damping", damping), whole("block", block)
    pattern = counted_pattern(pattern, problem.shape, "sparsegpt")
    xp = namespace(problem.anchor)
    factor, used = inverse_factor(problem, damping)
    target = problem.double.anchor
    if problem.slope is not None:
        target = target - (problem.double.slope @ factor.T) @ factor
    factor = xp.astype(factor, problem.anchor.dtype)
    columns = copied(xp.astype(target.T, problem.anchor.dtype))  # (p, q): a column of V is contiguous
    mask = xp.zeros(columns.shape, dtype=xp.bool, device=columns.device)
    pivots = xp.linalg.diagonal(factor)
    infinity = xp.full_like(pivots, float("inf"))
    rank_by = xp.where(problem.diagonal > 0, pivots, infinity)  # dead channels score 0, whatever damping makes of them
    width, nearby = columns.shape[0], NEARBY
    if isinstance(pattern, NM):
        block = pattern.group * max(1, block // pattern.group)
        nearby = pattern.group * max(1, nearby // pattern.group)
    for first in range(0, width, block):
        last = min(first + block, width)
        part = copied(columns[first:last, :])
        errors = xp.zeros_like(part)
        keep = None if isinstance(pattern, NM) else select_block(pattern, part, rank_by[first:last], first, width)
        for near in range(0, last - first, nearby):  # columns further right wait for the product of several errors
            far = min(near + nearby, last - first)
            for j in range(near, far):
                if isinstance(pattern, NM) and j % pattern.group == 0:
                    chosen = slice(j, j + pattern.group)
                    keep = pattern.select(xp.abs(part[chosen, :] / rank_by[first:last][chosen][:, None]).T).T
                assert keep is not None
                kept = keep[j % pattern.group, :] if isinstance(pattern, NM) else keep[j, :]
                row = xp.where(kept, part[j, :], xp.zeros_like(part[j, :]))
                error = (part[j, :] - row) / pivots[first + j]
                part[j:far, :] -= factor[first + j, first + j : first + far][:, None] * error[None, :]
                part[j, :] = row
                errors[j, :] = error
                mask[first + j, :] = kept
            if first + far < last:
                part[far:, :] -= factor[first + near : first + far, first + far : last].T @ errors[near:far, :]
        columns[first:last, :] = part
        if last < width:
            columns[last:, :] -= factor[first:last, last:].T @ errors
    weights = copied(columns.T)
    status = Status.DIRECT if used == damping else Status.DAMPED
    certificate = certify(problem, Support(mask.T), weights)
    return Solution(weights, status, certificate, detail={"damping": used})


def select_block(pattern: TopK, part: Array, pivots: Array, first: int, width: int) -> Array:
    """Return the mask (b, q) of one block of columns; the zeros of all blocks add up to the pattern's exactly."""
    xp = namespace(part)
    score = xp.abs(part / pivots[:, None]).T  # (q, b)
    rivals = 1 if pattern.per_row else score.shape[0]
    last = first + score.shape[1]
    total = pattern.zeros(width * rivals)
    zeros = total * last // width - total * first // width
    if pattern.per_row:
        return keep_largest(score, score.shape[1] - zeros).T
    flat = xp.reshape(score, (1, -1))
    return xp.reshape(keep_largest(flat, flat.shape[1] - zeros), score.shape).T


def inverse_factor(problem: Quadratic, damping: float) -> tuple[Array, float]:
    """Return the upper triangular U with (G + damping * mean(diag G) * I)^-1 = U^T U, in float64, and the damping it took.

    One Cholesky of the index-reversed matrix gives G + D = R R^T with R upper triangular, and U = R^-1. ValueError is raised
    where no damping in float64 is enough.
    """
    problem = problem.double
    xp = namespace(problem.gram)
    mean = float(xp.mean(problem.diagonal)) or 1.0  # all inputs zero: any positive ridge will do
    used = damping
    while math.isfinite(used * mean):
        reversed_gram = xp.flip(problem.damped(used * mean).gram)
        factor, exists = cholesky(reversed_gram)
        pivots = xp.linalg.diagonal(factor) ** 2
        rounding = problem.shape[1] * float(xp.finfo(xp.float64).eps) * float(xp.max(xp.linalg.diagonal(reversed_gram)))
        if exists and bool(xp.all(pivots > rounding)):  # a singular matrix may pass Cholesky on pivots that are noise
            identity = xp.eye(problem.shape[1], dtype=xp.float64, device=problem.gram.device)
            return solve_triangular(copied(xp.flip(factor)), identity, upper=True), used
        used = max(10 * used, 1e-8)
    raised = "" if used == damping else f", raised to {used:g},"
    sides = f"a damping of {damping:g}{raised} times the mean of the Gram's diagonal, {mean:g},"
    raise ValueError(f"{sides} overflows float64: scale the inputs, or take less of it")
