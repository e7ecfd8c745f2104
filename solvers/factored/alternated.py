"""Sparse weights and a matrix of low rank beside them, each solved for with the other held, so that the loss never rises."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from gramian.solvers.backend._xp import Array, as_floating, namespace
from gramian.solvers.backend.computing import computation
from gramian.solvers.backend.options import whole
from gramian.solvers.core.certificate import Certificate, norm
from gramian.solvers.core.patterns import Pattern, PatternLike, pattern_of
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Solution, Status
from gramian.solvers.core.watch import Callback, Watch, watched
from gramian.solvers.direct.restricted import refit
from gramian.solvers.factored.factors import FactoredSolution, checked_rank
from gramian.solvers.factored.whitened import Whitening, whitening_of
from gramian.solvers.support.l0 import l0_admm

__all__ = ["sparse_low_rank", "stationarity"]

Choose = Callable[[Quadratic, Pattern], Solution]


@computation
def sparse_low_rank(
    problem: Quadratic,
    pattern: PatternLike,
    rank: int,
    *,
    choose: Choose = l0_admm,
    rounds: int = 4,
    polish: int = 4,
    throw: bool = False,
    time_limit: float | None = None,
    callback: Callback | None = None,
    progress: bool = False,
) -> FactoredSolution:
    """min over S and L of f(S + L) subject to S satisfying the pattern and rank L <= r, approximately, by alternation

    The problem is not convex, and nothing says how near the answer is to its optimum. S is chosen without L; then every round

        L <- argmin f(S + L) over rank L <= r, exactly, the theorem of Eckart and Young in the norm of G (`low_rank`),
        S <- what the method of choice finds for f(. + L), which is f around W - L, if that is better than S;
             else argmin f(S + L) over the support of S (`refit`).

    After the rounds the support is held, and L and S are refitted in turn. No step raises f: what would, by rounding or by a
    choice that is worse, is not taken. So the answer is never worse than the method of choice by itself, at r (p + q) more
    parameters.

    Parameters
    ----------
    problem : Quadratic
        f.
    pattern : Pattern, str or float
        Which supports S may have; "2:4" and a sparsity will do.
    rank : int
        r, at least 1; what is beyond min(q, p) adds nothing.
    choose : callable, default l0_admm
        choose(problem, pattern) -> Solution, the method that chooses S: `sparsegpt`, `wanda`, any other.
    rounds : int, default 4
        How often L and S are chosen.
    polish : int, default 4
        How often they are refitted afterwards on the last support.
    throw, time_limit, callback, progress : optional
        As of `solve`. Every round is a check.

    Returns
    -------
    FactoredSolution
        SEARCHED, TIME_LIMIT or STOPPED, with S, B and A. The certificate is the residual of the first-order conditions: the
        part of grad f along the support of S, and along the matrices of the rank of L, over |grad f(0)|. The history holds f
        after every step of the rounds.

    Raises
    ------
    ValueError
        For numbers out of range, and for a pattern that does not fit.

    References
    ----------
    OATS (Zhang and Papyan 2025) alternates with S from Wanda's scores; HASSLE-free (Makni et al. 2025) and 3BASiL (2025) with
    f itself, and with L by gradient descent or within ADMM.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import Quadratic, TopK, l0_admm, sparse_low_rank
    >>> rng = np.random.default_rng(0)
    >>> problem = Quadratic.from_data(rng.normal(size=(64, 8)), rng.normal(size=(6, 8)))
    >>> solution = sparse_low_rank(problem, TopK(0.5), 1)
    >>> solution.certificate.objective < l0_admm(problem, TopK(0.5)).certificate.objective, solution.parameters
    (True, 38)
    """
    rounds, polish, rank = whole("rounds", rounds), whole("polish", polish, 0), checked_rank(rank, problem.shape)
    pattern = pattern_of(pattern, problem.shape)
    total = rounds + polish
    with watched("sparse_low_rank", total, "round", time_limit=time_limit, callback=callback, progress=progress) as watch:
        solution = alternated(problem, pattern, rank, choose, rounds, polish, watch)
    return solution.required() if throw else solution  # type: ignore[return-value]  # itself


@dataclass(frozen=True, eq=False)
class Parts:
    """Hold S (q, p), B (q, r) and A (r, p) in float64, and f(S + B A)."""

    sparse: Array
    left: Array
    right: Array
    loss: float

    @property
    def product(self) -> Array:
        """Return L = B A."""
        return self.left @ self.right


def alternated(
    problem: Quadratic, pattern: Pattern, rank: int, choose: Choose, rounds: int, polish: int, watch: Watch
) -> FactoredSolution:
    """Do what `sparse_low_rank` does, whose options are checked already, beside a watch."""
    exact = problem.double
    white = whitening_of(exact)
    start = as_floating(choose(exact.beside(0 * exact.anchor), pattern).weights, like=exact.anchor)
    parts = Parts(start, 0 * exact.anchor[:, :1], 0 * exact.anchor[:1, :], exact.loss(start))
    history, ended = [(0, parts.loss)], None
    steps = 0
    for steps in range(1, rounds + polish + 1):
        parts = with_low_rank(exact, white, parts, rank)
        parts = with_support(exact, parts, pattern, choose) if steps <= rounds else refitted(exact, parts)
        history.append((steps, parts.loss))

        def reached(found: Parts = parts) -> tuple[Array, Certificate]:
            """Return what there is now."""
            solution = answer(problem, found, Status.SEARCHED, 0, ())
            return solution.weights, solution.certificate

        ended = watch.verdict(steps, reached, over=steps == rounds + polish)
        if ended:
            break
    return answer(problem, parts, ended or Status.SEARCHED, steps, tuple(history))


def with_low_rank(problem: Quadratic, white: Whitening, parts: Parts, rank: int) -> Parts:
    """Return the parts with the best L beside S, unless rounding makes it worse."""
    left, right, _ = white.factors(problem.beside(parts.sparse), rank)
    loss = problem.loss(parts.sparse + left @ right)
    return Parts(parts.sparse, left, right, loss) if loss <= parts.loss else parts


def with_support(problem: Quadratic, parts: Parts, pattern: Pattern, choose: Choose) -> Parts:
    """Return the parts with S chosen anew beside L where that is better, else refitted."""
    product = parts.product
    sparse = as_floating(choose(problem.beside(product), pattern).weights, like=problem.anchor)
    loss = problem.loss(sparse + product)
    return Parts(sparse, parts.left, parts.right, loss) if loss < parts.loss else refitted(problem, parts)


def refitted(problem: Quadratic, parts: Parts) -> Parts:
    """Return the parts with the best S on its support beside L, unless rounding makes it worse."""
    product = parts.product
    sparse = refit(problem.beside(product), parts.sparse != 0, start=parts.sparse).weights
    loss = problem.loss(sparse + product)
    return Parts(sparse, parts.left, parts.right, loss) if loss <= parts.loss else parts


def answer(
    problem: Quadratic, parts: Parts, status: Status, steps: int, history: tuple[tuple[int, float], ...]
) -> FactoredSolution:
    """Return the parts in the dtype of the problem, with the certificate of exactly these."""
    sparse, left, right = (as_floating(each, like=problem.anchor) for each in (parts.sparse, parts.left, parts.right))
    weights = sparse + left @ right
    exact, xp = problem.double, namespace(problem.anchor)
    point = as_floating(weights, like=exact.anchor)
    losses, gradient = exact.value_and_gradient(point)
    sound = exact.possible(losses, exact.rounding(point))
    certificate = Certificate(
        float(xp.sum(losses)), float("-inf"), exact.error_of(losses) if sound else float("inf"),
        over_start(along_both(gradient, parts.sparse, parts.left, parts.right), exact), sound=sound,
    )  # fmt: skip
    found = FactoredSolution(weights, status, certificate, steps, history, left=left, right=right, sparse=sparse)
    found.detail.update(rank=float(found.rank), parameters=float(found.parameters))
    return found


def stationarity(problem: Quadratic, weights: Array, sparse: Array | None, left: Array, right: Array) -> float:
    """Return the residual of the first-order conditions at weights that are S + B A, or B A, in float64: what is left of
    grad f along S's support and along the matrices of the rank of B A, over |grad f(0)|."""
    exact = problem.double
    at, factors = as_floating(weights, like=exact.anchor), [as_floating(each, like=exact.anchor) for each in (left, right)]
    return over_start(along_both(exact.value_and_gradient(at)[1], sparse, *factors), exact)


def over_start(length: float, problem: Quadratic) -> float:
    """Return a length of gradients over that of the gradient at zero."""
    start = norm(problem.at_zero[1])
    return length / start if start > 0 else (0.0 if length == 0 else float("inf"))


def along_both(gradient: Array, sparse: Array | None, left: Array, right: Array) -> float:
    """Return the length of the gradient along the support of S and along the tangent space of the matrices of L's rank.

    The latter is g P + Q g - Q g P, with Q and P the projections to the columns of B and to the rows of A.
    """
    xp = namespace(gradient)
    inside = xp.zeros_like(gradient) if sparse is None else xp.where(sparse != 0, gradient, xp.zeros_like(gradient))
    columns, rows = basis(left), basis(right.T)
    across = (gradient @ rows) @ rows.T
    tangent = across + columns @ (columns.T @ (gradient - across))
    return math.hypot(norm(inside), norm(tangent))


def basis(matrix: Array) -> Array:
    """Return orthonormal columns that span the columns of a matrix (n, r), of its rank in numbers."""
    xp = namespace(matrix)
    left, values, _ = xp.linalg.svd(matrix, full_matrices=False)
    rank = int(xp.sum(xp.astype(values > sum(matrix.shape) * float(xp.finfo(values.dtype).eps) * xp.max(values), xp.int64)))
    return left[:, :rank]
