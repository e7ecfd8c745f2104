"""Exact weights under affine equalities: least squares with V A^T prescribed."""

from __future__ import annotations

from gramian.solvers.backend._xp import Array, as_floating, copied, namespace, solve_positive
from gramian.solvers.backend.computing import computation
from gramian.solvers.backend.given import given
from gramian.solvers.core.certificate import certify
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Solution, Status
from gramian.solvers.core.terms import Affine
from gramian.solvers.direct.factorised import TRUSTED, least_norm, rounding, solve_regular

__all__ = ["affine_least_squares"]

ROUNDING = 16  # times what LAPACK leaves of a singular value that is zero: routines of a GPU leave more


@computation
def affine_least_squares(problem: Quadratic, matrix: Array, values: Array) -> Solution:
    """argmin_V f(V) subject to V A^T = D

    The problem is solved in float64. With G positive definite this is by its Schur complement,

        V = V_0 + (D - V_0 A^T) S^-1 A G^-1,  S = A G^-1 A^T,  V_0 = W - slope G^-1 the unconstrained minimiser;

    else it is in a basis of the null space of A, where of all minimisers the one is taken that changes the feasible weights
    nearest to W least, both in coordinates v_j sqrt(G_jj), dead channels as the largest; the status says so.

    Parameters
    ----------
    problem : Quadratic
        f.
    matrix : array (m, p)
        A, whose rows may be redundant.
    values : array (q, m)
        D.

    Returns
    -------
    Solution
        DIRECT or SINGULAR. The certificate is the KKT residual: the gradient within the null space of A, relative to the
        gradient at zero.

    Raises
    ------
    ValueError
        For shapes that do not fit, and for constraints that contradict each other.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import Quadratic, affine_least_squares
    >>> rng = np.random.default_rng(0)
    >>> problem = Quadratic.from_data(rng.normal(size=(64, 8)), rng.normal(size=(4, 8)))
    >>> solution = affine_least_squares(problem, np.ones((1, 8)), np.zeros((4, 1)))  # rows that sum to zero
    >>> solution.status.name, bool(np.allclose(solution.weights.sum(axis=1), 0))
    ('DIRECT', True)
    """
    term = Affine(given("matrix", matrix, problem.anchor), given("values", values, problem.anchor))
    term.check(problem.shape)
    matrix, values = term.matrix, term.values
    if matrix.shape[0] < 1:
        raise ValueError(f"there are no constraints: A is {tuple(matrix.shape)}")
    exact = problem.double
    xp = namespace(exact.anchor, matrix, values)
    alive = exact.diagonal > 0
    typical = float(xp.max(xp.where(alive, exact.unit_scale, xp.zeros_like(exact.unit_scale)))) or 1.0
    work, scale = exact.rescaled(xp.where(alive, exact.unit_scale, xp.full_like(exact.unit_scale, typical)))
    precision = max(float(xp.finfo(as_floating(array).dtype).eps) for array in (matrix, values))
    along = as_floating(matrix, like=exact.anchor) / scale  # A in unit-diagonal coordinates
    units = xp.sqrt(xp.sum(along * along, axis=1))
    units = xp.where(units > 0, units, xp.ones_like(units))  # a constraint may be written in any: its rank must not depend
    along, wanted = along / units[:, None], as_floating(values, like=exact.anchor) / units
    present = work.anchor @ along.T
    missing = wanted - present
    left, sizes, right = xp.linalg.svd(along, full_matrices=True)
    rank = int(xp.sum(xp.astype(sizes > ROUNDING * max(along.shape) * precision * xp.max(sizes), xp.int64)))
    basis, null = right[:rank, :], right[rank:, :]
    nearest = ((missing @ left[:, :rank]) / sizes[:rank]) @ basis
    short = xp.max(xp.abs(nearest @ along.T - missing), axis=1)
    if bool(xp.any(short > precision**0.5 * xp.max(xp.abs(wanted) + xp.abs(present), axis=1))):
        worst = float(xp.max(xp.abs((nearest @ along.T - missing) * units)))
        raise ValueError(f"the constraints V A^T = D contradict each other: the nearest V misses D by {worst:.3g}")
    gradient = work.gradient(work.anchor + nearest)
    change, singular = along_null_space(work.gram, gradient, basis, null)
    weights = xp.astype((work.anchor + nearest + change) / scale, problem.anchor.dtype)
    status = Status.SINGULAR if singular else Status.DIRECT
    return Solution(weights, status, certify(problem, term, weights))


def along_null_space(gram: Array, gradient: Array, basis: Array, null: Array) -> tuple[Array, bool]:
    """Return rows d with B d = 0 that minimise <gradient, d> + 1/2 d G d, and whether there are many.

    Of many it is those of least norm. basis: B (r, p), orthonormal. null: N (p - r, p), orthonormal and orthogonal to B.
    """
    xp = namespace(gram, gradient, basis)
    rows, trusted = gradient.shape[0], TRUSTED * float(xp.max(xp.abs(gradient)))
    solved, regular = solve_regular(copied(gram)[None, :, :], xp.concat([gradient, basis]).T[None, :, :])
    if bool(regular[0]) and basis.shape[0]:
        towards, across = solved[0, :, :rows].T, solved[0, :, rows:]  # gradient G^-1 (q, p), G^-1 B^T (p, r)
        pull, positive = solve_positive((basis @ across)[None, :, :], (towards @ basis.T).T[None, :, :])
        change = pull[0, :, :].T @ across.T - towards
        if bool(positive[0]) and bool(xp.all(xp.abs((gradient + change @ gram) @ null.T) <= trusted)):
            return change, False
    # nothing but rounding may be left of G in the null space of A, so its size there is no measure
    found, singular = least_norm(null @ gram @ null.T, -(gradient @ null.T).T, rounding(gram))
    return found.T @ null, singular
