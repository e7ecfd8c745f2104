"""The penalised Newton score of channels and heads, in closed form (Numerical Pruning, Algorithm 1 and Theorem 2)."""

from __future__ import annotations

from collections.abc import Callable

from gramian.solvers.backend._xp import Array, as_floating, cholesky, device, namespace, solve_triangular
from gramian.solvers.backend.computing import computation
from gramian.solvers.backend.given import given
from gramian.solvers.backend.options import whole
from gramian.solvers.core.certificate import Certificate, norm
from gramian.solvers.core.solution import Status
from gramian.solvers.units.mask import Budget, MaskProblem, RelaxedMask, ratio

__all__ = ["head_scores", "newton_score"]

NEGLIGIBLE = 1e-8  # of a vector: a component in a computed null space that is smaller is rounding


@computation
def newton_score(problem: MaskProblem, budget: float, *, penalty: float = 1.0) -> RelaxedMask:
    """argmin_z loss(z) + penalty / 2 (<c, z> - budget)^2 over all real z; penalty = inf: subject to <c, z> = budget

        u = A^-1 (b + price c),   price = (<c, 1> - budget - <c, A^-1 b>) / (1 / penalty + <c, A^-1 c>),   z = 1 - u,

    comes from one Cholesky factor: the objective is quadratic, so Newton's method (Numerical Pruning, Algorithm 1, Theorem 2)
    arrives in its first step and the other T do nothing. In the paper's case, b = 0, c = 1, with s = <1, A^-1 1>, this is
    z = 1 - penalty (D - r) / (1 + penalty s) A^-1 1. If A is singular to rounding, which its Cholesky factor shows, it is
    the minimiser of least |1 - z|, from an eigendecomposition.

    Parameters
    ----------
    problem : MaskProblem
        The loss.
    budget : float
        What the kept units may cost.
    penalty : float, default 1.0
        The penalty. The paper prints no value.

    Returns
    -------
    RelaxedMask
        DIRECT. The bound is the objective less half the squared Newton decrement, -inf if the problem has no minimiser. Its
        detail: `rank`, the rank found of A; `outside`, how far z strays from [0, 1].

    Raises
    ------
    ValueError
        For a budget or a penalty out of range.

    Notes
    -----
    z is not kept in [0, 1], against Theorem 2; `relaxed_mask` solves the problem with the box. A unit whose removal costs
    nothing, such as a dead channel, takes the whole removal upon itself, and all others get z = 1. <c, z> misses the budget by
    price / penalty. And when b = 0 the order of the units in z depends neither on penalty nor on budget; the two matter where
    scores of different layers are compared, and the mean of the equality limit is budget / m whatever the layer.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import MaskProblem, Quadratic, newton_score
    >>> rng = np.random.default_rng(0)
    >>> layer = Quadratic.from_data(rng.normal(size=(64, 8)), rng.normal(size=(4, 8)))
    >>> problem = MaskProblem.from_problem(layer)
    >>> found = newton_score(problem, 6, penalty=float("inf"))
    >>> round(float(found.keep.sum()), 6), int(found.detail["rank"])
    (6.0, 8)
    """
    limit = Budget(budget, problem.total, penalty)
    limit.check_against(problem.size)
    xp = namespace(problem.matrix)
    inverse, null, rank = pseudo_inverse(problem.matrix)
    cost, linear = problem.cost, problem.linear
    removed = inverse(linear)
    missing = limit.target - float(xp.sum(cost * removed))
    idle = null(cost)  # costs that can be removed at no loss
    if norm(idle) > NEGLIGIBLE * norm(cost):
        price = 0.0
        removed = removed + (missing / norm(idle) ** 2) * idle
    else:
        toward = inverse(cost)
        price = missing / (1 / limit.penalty + float(xp.sum(cost * toward)))
        removed = removed + price * toward
    pull = problem.matrix @ removed
    residual = pull - linear - price * cost
    decrement = 0.5 * float(xp.sum(residual * inverse(residual)))
    forces = norm(problem.matrix) * norm(removed) + norm(linear) + abs(price) * norm(cost)
    rounding = 10 * problem.units * float(xp.finfo(xp.float64).eps) * forces
    keep = 1 - removed
    loss = problem.value(keep)
    excess = limit.target - float(xp.sum(cost * removed))
    objective = limit.objective(loss, excess)
    bound = objective - decrement - limit.gap(excess, price)
    if not problem.curvature > -float("inf") or norm(null(residual)) > rounding:
        bound = float("-inf")
    error, miss = ratio(loss, problem.energy, problem.size), limit.violation(excess)
    certificate = Certificate(objective, bound, error, violation=miss, sound=problem.possible(loss))
    outside = max(0.0, float(xp.max(keep)) - 1, -float(xp.min(keep)))
    return RelaxedMask(keep, limit, price, certificate, Status.DIRECT, detail={"rank": float(rank), "outside": outside})


def head_scores(score: Array, heads: int) -> Array:
    """z_h = mean of z_i over the channels of head h

    Parameters
    ----------
    score : array (p,)
        Scores of channels, with heads one after another.
    heads : int
        The number of heads.

    Returns
    -------
    array (heads,)
        Scores of heads.

    Raises
    ------
    ValueError
        When the channels do not divide into the heads.

    References
    ----------
    Numerical Pruning, Section 3.3; its printed sum runs over one channel too many.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import head_scores
    >>> head_scores(np.array([1.0, 3.0, 0.0, 0.5]), 2).tolist()
    [2.0, 0.25]
    """
    score, heads = as_floating(given("score", score)), whole("heads", heads)
    if score.ndim != 1 or score.shape[0] % heads:
        raise ValueError(f"scores of shape {tuple(score.shape)} do not divide into {heads} heads of equal size")
    return namespace(score).mean(namespace(score).reshape(score, (heads, -1)), axis=1)


def pseudo_inverse(matrix: Array) -> tuple[Callable[[Array], Array], Callable[[Array], Array], int]:
    """Return x -> A^+ x, x -> its component in the null space of A, and the rank, for a symmetric positive semidefinite A.

    Units of zero diagonal are null by themselves; an eigendecomposition is for what else is singular.
    """
    xp = namespace(matrix)
    size = matrix.shape[0]
    rounding = size * float(xp.finfo(matrix.dtype).eps)
    diagonal = xp.linalg.diagonal(matrix)
    idle = xp.astype(diagonal == 0, matrix.dtype)
    scale = xp.sqrt(diagonal + idle)
    identity = xp.eye(size, dtype=matrix.dtype, device=device(matrix))
    factor, exists = cholesky(matrix / scale / scale[:, None] + identity * idle)
    if exists and bool(xp.all(xp.linalg.diagonal(factor) ** 2 > rounding)):  # a pivot of rounding size means singular

        def solve(right: Array) -> Array:
            """Return A^+ x by the Cholesky factor."""
            half = solve_triangular(factor, ((1 - idle) * right / scale)[:, None], upper=False)
            return solve_triangular(factor.T, half, upper=True)[:, 0] / scale

        return solve, lambda right: idle * right, size - int(xp.sum(idle))
    values, vectors = xp.linalg.eigh(matrix)
    live = values > rounding * float(xp.max(xp.abs(values)))
    inverse = xp.where(live, 1 / xp.where(live, values, xp.ones_like(values)), xp.zeros_like(values))
    dead = xp.astype(~live, matrix.dtype)
    rank = size - int(xp.sum(dead))
    return lambda right: vectors @ (inverse * (vectors.T @ right)), lambda right: vectors @ (dead * (vectors.T @ right)), rank
