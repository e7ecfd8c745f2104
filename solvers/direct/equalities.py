"""Exact weights under affine equalities: least squares with V A^T prescribed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gramian.solvers.backend._xp import (
    Array,
    as_floating,
    copied,
    device,
    namespace,
    solve_positive,
    solve_triangular,
    to_numpy,
)
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
        sides = f"A is {tuple(matrix.shape)} and D is {tuple(values.shape)} but the weight is {problem.shape}"
        raise ValueError(f"{sides}: there are no constraints")
    exact = problem.double
    xp, place = namespace(exact.anchor, matrix, values), device(exact.anchor)
    alive = exact.diagonal > 0
    typical = float(xp.max(xp.where(alive, exact.unit_scale, xp.zeros_like(exact.unit_scale)))) or 1.0
    work, scale = exact.rescaled(xp.where(alive, exact.unit_scale, xp.full_like(exact.unit_scale, typical)))
    precision = max(float(xp.finfo(as_floating(array).dtype).eps) for array in (matrix, values))
    matrix, values = (as_floating(array, like=exact.anchor) for array in (matrix, values))
    independent = Independent.of(to_numpy(matrix), to_numpy(scale), precision)
    independent.check(to_numpy(matrix), to_numpy(exact.anchor), to_numpy(values), precision)
    rank, mix = independent.pivots.size, xp.asarray(independent.mix, device=place)
    along, everything = xp.asarray(independent.rows, device=place), xp.eye(problem.shape[1], dtype=scale.dtype, device=place)
    axes, triangle = xp.linalg.qr(along.T, mode="complete") if rank else (everything, everything)
    basis, null = axes[:, :rank].T, axes[:, rank:].T
    missing = (values - exact.anchor @ matrix.T) @ mix.T
    nearest = solve_triangular(triangle[:rank, :].T, missing.T, upper=False).T @ basis if rank else 0 * work.anchor
    change, singular = along_null_space(work.gram, work.gradient(work.anchor + nearest), basis, null)
    weights = (work.anchor + nearest + change) / scale
    # The channel that meets a constraint at the least loss, its pivot, has just what the others leave to it: of a channel that
    # is nearly dead nothing but the loss is known to rounding.
    chosen = xp.take(everything, xp.asarray(independent.pivots, device=place), axis=0)
    weights = weights * (1 - xp.sum(chosen, axis=0))
    weights = as_floating(weights + ((values - weights @ matrix.T) @ mix.T @ chosen) / scale, like=problem.anchor)
    status = Status.SINGULAR if singular else Status.DIRECT
    return Solution(weights, status, certify(problem, term, weights))


@dataclass(frozen=True, eq=False)
class Independent:
    """M A = R S: the constraints that are independent, each solved for one channel, by elimination, in numpy.

    pivots: (r,), the channel of each. mix: M (r, m). rows: R (r, p), with the identity at the pivots, in coordinates v'_j = s_j
    v_j. others: (m - r, m), combinations of the constraints of which nothing but rounding is left.
    """

    pivots: np.ndarray
    mix: np.ndarray
    rows: np.ndarray
    others: np.ndarray

    @classmethod
    def of(cls, matrix: np.ndarray, scale: np.ndarray, precision: float) -> Independent:
        """Eliminate A (m, p), the channel first that meets a constraint at the least loss.

        What is left of an entry is compared with the numbers that it is the difference of. Neither units of constraints nor
        those of channels change anything then, and a channel that is nearly dead hides no other.
        """
        constraints, width = matrix.shape
        table = np.concatenate([matrix / scale, np.eye(constraints)], axis=1)
        units = np.abs(table[:, :width]).max(axis=1, initial=0.0)
        table /= np.where(units > 0, units, 1.0)[:, None]
        sizes, negligible, pivots = np.abs(table), ROUNDING * max(matrix.shape) * precision, list[int]()
        for done in range(min(matrix.shape)):
            left = np.abs(table[done:, :width])
            left = np.where(left > negligible * sizes[done:, :width], left, 0.0)
            row, column = divmod(int(np.argmax(left)), width)
            if left[row, column] == 0:
                break
            table[[done, done + row]], sizes[[done, done + row]] = table[[done + row, done]], sizes[[done + row, done]]
            sizes[done] /= abs(table[done, column])
            table[done] /= table[done, column]
            factors = np.where(np.arange(constraints) == done, 0.0, table[:, column])
            table -= factors[:, None] * table[done]
            sizes = np.maximum(sizes, np.abs(factors)[:, None] * sizes[done])
            table[:, column] = np.arange(constraints) == done
            pivots.append(column)
        rank = len(pivots)
        return cls(np.array(pivots, dtype=np.int64), table[:rank, width:], table[:rank, :width], table[rank:, width:])

    def check(self, matrix: np.ndarray, anchor: np.ndarray, values: np.ndarray, precision: float) -> None:
        """Raise ValueError where the constraints that depend on others contradict them."""
        present = anchor @ matrix.T
        short = np.abs((values - present) @ self.others.T)
        if np.any(short > precision**0.5 * ((np.abs(values) + np.abs(present)) @ np.abs(self.others).T)):
            nearest = np.linalg.lstsq(matrix, (values - present).T, rcond=None)[0]
            worst = np.max(np.abs(matrix @ nearest - (values - present).T))
            raise ValueError(f"the constraints V A^T = D contradict each other: the nearest V misses D by {worst:.3g}")


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
