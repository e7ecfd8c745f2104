"""Least squares over matrices of low rank: the singular value decomposition of weights whose inputs are made white."""

from __future__ import annotations

from dataclasses import dataclass

from gramian.solvers.backend._xp import Array, as_floating, namespace
from gramian.solvers.backend.computing import computation
from gramian.solvers.core.certificate import Certificate
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Status
from gramian.solvers.factored.factors import FactoredSolution, checked_rank

__all__ = ["Whitening", "low_rank", "whitening_of"]


@dataclass(frozen=True, eq=False)
class Whitening:
    """Hold R (p, k) and R^+ with s^-1 G s^-1 = R R^T and R^T R^+ = I, where s_j = sqrt(G_jj) and k is the rank of G.

    scale: s (p,), in whose coordinates v'_j = s_j v_j everything is. root: R = E diag(lambda)^1/2 of the eigenvectors E whose
    eigenvalues are above p eps times the largest, `top`. inverse: E diag(lambda)^-1/2, which is R^+ transposed.
    """

    scale: Array
    root: Array
    inverse: Array
    top: float

    def image(self, problem: Quadratic) -> Array:
        """Return M = V* s R (q, k), of V* a minimiser of f, by which f(V) = f(V*) + 1/2 |V s R - M|_F^2 for every V.

        With the slope g of f at W it is W s R - (g / s) R^+T, since V* = W - g G^+: g lies in the range of G.
        """
        image = (problem.anchor * self.scale) @ self.root
        return image if problem.slope is None else image - (problem.slope / self.scale) @ self.inverse

    def least(self, problem: Quadratic) -> float:
        """Return f(V*) = floor - 1/2 |(g / s) R^+T|_F^2, what no weights at all are below."""
        xp = namespace(problem.anchor)
        if problem.slope is None or problem.floor is None:
            return 0.0
        pulled = (problem.slope / self.scale) @ self.inverse
        return float(xp.sum(problem.floor - 0.5 * xp.sum(pulled * pulled, axis=1)))

    def factors(self, problem: Quadratic, rank: int) -> tuple[Array, Array, float]:
        """Return B (q, r) and A (r, p) of the best matrix of rank r, and half of the squares of the singular values after r.

        r is less than `rank` where G is of lower rank."""
        xp = namespace(problem.anchor)
        if self.root.shape[1] == 0:  # nothing flows in
            zero = 0 * problem.anchor
            return xp.zeros_like(zero[:, :1]), zero[:1, :], 0.0
        left, values, right = xp.linalg.svd(self.image(problem), full_matrices=False)
        rank = min(rank, values.shape[0])  # outputs have no more
        tail = values[rank:]
        return left[:, :rank] * values[:rank], (right[:rank, :] @ self.inverse.T) / self.scale, 0.5 * float(xp.sum(tail * tail))


def whitening_of(problem: Quadratic) -> Whitening:
    """Return the whitening of a problem in float64, which is computed once for all problems that share what is noted of G."""

    def make() -> Whitening:
        xp, scale = namespace(problem.gram), problem.unit_scale
        values, vectors = xp.linalg.eigh(problem.gram / scale / scale[:, None])
        top, width = float(values[-1]), problem.shape[1]
        first = width - int(xp.sum(xp.astype(values > width * float(xp.finfo(values.dtype).eps) * top, xp.int64)))
        roots, vectors = xp.sqrt(values[first:]), vectors[:, first:]
        return Whitening(scale, vectors * roots, vectors / roots, max(top, 0.0))

    found: Whitening = problem.noted("whitening", make)
    return found


@computation
def low_rank(problem: Quadratic, rank: int) -> FactoredSolution:
    """argmin_V f(V) subject to rank V <= r, exactly

    With V* = W - slope G^+, a minimiser of f, and any root G = R R^T,

        f(V) = f(V*) + 1/2 |(V - V*) R|_F^2,

    so that by the theorem of Eckart and Young the optimum is V = [V* R]_r R^+, where [.]_r keeps the r largest singular values:
    f(V) = f(V*) + 1/2 (sigma_(r+1)^2 + sigma_(r+2)^2 + ...), and no matrix of rank r is below that. It is solved in float64, in
    coordinates v_j sqrt(G_jj). Where G is singular R^+ is the pseudo-inverse: among the minimisers, which differ by what no
    input shows, V is the one of least norm in those coordinates, zero for a dead channel. Directions of less than p eps of the
    largest eigenvalue count as unseen.

    Parameters
    ----------
    problem : Quadratic
        f.
    rank : int
        r, at least 1; what is beyond min(q, p) adds nothing.

    Returns
    -------
    FactoredSolution
        DIRECT, with V = B A. The certificate has the optimum itself as its bound, lowered by what rounding may have done
        (`slack`); none is known of a slope that no data has.

    Raises
    ------
    ValueError
        For a rank that is no whole number of at least 1.

    References
    ----------
    Eckart and Young 1936. The whitened singular value decomposition of SVD-LLM (Wang et al. 2024) and UniQL.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import Quadratic, low_rank
    >>> rng = np.random.default_rng(0)
    >>> problem = Quadratic.from_data(rng.normal(size=(64, 8)), rng.normal(size=(4, 8)))
    >>> solution = low_rank(problem, 2)
    >>> int(np.linalg.matrix_rank(solution.weights)), solution.certificate.relative_gap < 1e-9
    (2, True)
    """
    rank, exact = checked_rank(rank, problem.shape), problem.double
    white = whitening_of(exact)
    left, right, tail = white.factors(exact, rank)
    left, right = (as_floating(each, like=problem.anchor) for each in (left, right))
    weights = left @ right
    certificate = certified(problem, white, weights, white.least(exact) + tail)
    detail = {"rank": float(left.shape[1]), "parameters": float(left.shape[1] * sum(problem.shape))}
    return FactoredSolution(weights, Status.DIRECT, certificate, detail=detail, left=left, right=right)


def certified(problem: Quadratic, white: Whitening, weights: Array, optimum: float) -> Certificate:
    """Return the certificate of weights beside an optimum that was computed, lowered by what rounding may have done to it.

    That is what it may have done to f at V and at zero, and (p + q) eps |G|_2 |W|^2, in coordinates of unit diagonal, of the
    decompositions.
    """
    exact = problem.double
    xp = namespace(exact.anchor)
    weights = as_floating(weights, like=exact.anchor)
    losses, rounding = exact.row_losses(weights), exact.rounding(weights)
    sound, objective = exact.possible(losses, rounding), float(xp.sum(losses))
    scaled = exact.anchor * white.scale
    slack = float(xp.sum(rounding.loss + exact.rounding_at_zero.loss))
    slack += sum(problem.shape) * float(xp.finfo(scaled.dtype).eps) * white.top * float(xp.sum(scaled * scaled))
    error = exact.error_of(losses) if sound else float("inf")
    if not (sound and exact.has_minimum):
        return Certificate(objective, float("-inf"), error, sound=sound)
    return Certificate(objective, min(optimum, objective) - slack, error, slack=slack)
