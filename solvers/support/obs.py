"""The SparseGPT sweep: column-wise optimal brain surgeon with lazy block updates (Frantar and Alistarh 2023)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gramian.solvers.backend._xp import Array, cholesky, copied, namespace, solve_triangular
from gramian.solvers.backend.computing import computation
from gramian.solvers.backend.options import number, whole
from gramian.solvers.core.certificate import certify
from gramian.solvers.core.patterns import NM, PatternLike, TopK, counted_pattern, keep_largest
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Solution, Status
from gramian.solvers.core.terms import Support
from gramian.solvers.support.sweep import NEARBY, swept

__all__ = ["DAMPING", "ChosenMask", "inverse_factor", "sparsegpt", "sweep_start"]

DAMPING = 0.01  # times the mean of the Gram's diagonal, the published value


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
    factor, columns, used = sweep_start(problem, damping)
    chosen, nearby = ChosenMask.of(problem, pattern, factor), NEARBY
    if isinstance(pattern, NM):
        block = pattern.group * max(1, block // pattern.group)
        nearby = pattern.group * max(1, nearby // pattern.group)
    columns = swept(columns, factor, chosen, block=block, nearby=nearby)
    mask = chosen.mask
    weights = copied(columns.T)
    status = Status.DIRECT if used == damping else Status.DAMPED
    certificate = certify(problem, Support(mask.T), weights)
    return Solution(weights, status, certificate, detail={"damping": used})


@dataclass
class ChosenMask:
    """The projection of `sparsegpt`: which weights are kept is chosen on the way, by what their removal would cost.

    pattern: TopK chooses at the beginning of a block, for all of it, NM at the beginning of each of its groups. rank_by: U_jj
    (p,). mask: (p, q), filled as the sweep goes on.
    """

    pattern: TopK | NM
    rank_by: Array
    mask: Array

    @classmethod
    def of(cls, problem: Quadratic, pattern: TopK | NM, factor: Array) -> ChosenMask:
        """Make that of a problem; dead channels score 0, whatever damping makes of them."""
        xp = namespace(factor)
        pivots = xp.linalg.diagonal(factor)
        rank_by = xp.where(problem.diagonal > 0, pivots, xp.full_like(pivots, float("inf")))
        mask = xp.zeros((problem.shape[1], problem.shape[0]), dtype=xp.bool, device=factor.device)
        return cls(pattern, rank_by, mask)

    def __call__(self, part: Array, first: int, j: int) -> Array:
        """Return column first + j with zeros where it is not kept."""
        kept = self.kept(part, first, j)
        return namespace(part).where(kept, part[j, :], namespace(part).zeros_like(part[j, :]))

    def kept(self, part: Array, first: int, j: int) -> Array:
        """Return where column first + j is kept, (q,)."""
        if isinstance(self.pattern, NM):
            if j % self.pattern.group == 0:
                last = j + self.pattern.group
                self.mask[first + j : first + last, :] = self.selected(part, first, j, last)
        elif j == 0:
            pivots = self.rank_by[first : first + part.shape[0]]
            self.mask[first : first + part.shape[0], :] = select_block(self.pattern, part, pivots, first, self.mask.shape[0])
        return self.mask[first + j, :]

    def expected(self, part: Array, first: int, begin: int, end: int) -> Array:
        """Return the mask of columns of a block, as an n:m pattern would choose it now, (end - begin, q)."""
        if isinstance(self.pattern, NM):
            return self.selected(part, first, begin, end)
        return self.mask[first + begin : first + end, :]

    def selected(self, part: Array, first: int, begin: int, end: int) -> Array:
        """Return the mask that an n:m pattern would choose now for columns of a block, (end - begin, q)."""
        return self.pattern.select(
            namespace(part).abs(part[begin:end, :] / self.rank_by[first + begin : first + end, None]).T
        ).T


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


def sweep_start(problem: Quadratic, damping: float) -> tuple[Array, Array, float]:
    """Return U, the minimiser of the damped loss as columns (p, q), both in the problem's dtype, and the damping it took."""
    xp = namespace(problem.anchor)
    factor, used = inverse_factor(problem, damping)
    target = problem.double.anchor
    if problem.slope is not None:
        target = target - (problem.double.slope @ factor.T) @ factor
    columns = copied(xp.astype(target.T, problem.anchor.dtype))  # a column of V is contiguous
    return xp.astype(factor, problem.anchor.dtype), columns, used


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
