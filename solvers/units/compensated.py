"""Which channels or heads to remove when the weights that remain are refitted: mask and weights chosen together."""

from __future__ import annotations

import numpy as np

from gramian.solvers.backend._xp import Array, cholesky, copied, device, namespace, solve_triangular, to_numpy
from gramian.solvers.backend.computing import computation
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.support.obs import inverse_factor
from gramian.solvers.units.mask import unit_costs
from gramian.solvers.units.removal import BLOCK, RemovalPath, channels_of, diagonal_blocks, path_along, unit_problem

__all__ = ["greedy_removal"]

ACCURATE = 1e-7  # error of the inverse, on a random vector, from which it is computed anew


@computation
def greedy_removal(problem: Quadratic, groups: int | None = None, cost: Array | float | None = None) -> RemovalPath:
    """argmin over units P of (L(R + P) - L(R)) / cost_P, again and again, with L(R) = min_V f(V) subject to V_R = 0

    This is backward elimination of input channels, from the least-squares weights V and A = G^-1, both restricted to the
    channels that remain,

        L(R + P) - L(R) = 1/2 tr(V_P (A_PP)^-1 V_P^T),   V <- V - V_P A_PP^-1 A_P:,   A <- A - A_:P A_PP^-1 A_P:.

    One support serves all rows. It takes O(p^3 + q p^2), the updates in blocks; among equals the first unit is removed.

    The losses returned do not come from these updates: one Cholesky factorisation along the order found yields them all
    (`removal_path`). A is computed anew where it has lost digits. Dead units are removed first. If G is singular, a unit made
    up for by others costs nothing, and the choice is that of the problem with a ridge, 1e-8 or what makes G positive definite,
    on the change of v_j sqrt(G_jj): such units are removed first, those that change the weights least before others, unless
    units hardly dearer than the ridge are in between. Where what remains is regular there is no ridge. It runs in float64.

    Parameters
    ----------
    problem : Quadratic
        f.
    groups : int, optional
        As many equal runs of consecutive channels (heads) are one unit each. None makes every channel a unit.
    cost : array (m,) or float, optional
        What keeping a unit costs. None is 1, so that a budget counts units.

    Returns
    -------
    RemovalPath
        The order with its losses. Its detail: `ridge`, the largest; `factorisations`.

    Raises
    ------
    ValueError
        For groups or costs that do not fit.

    References
    ----------
    Numerical Pruning, Remark 4 and Eq. (12), for P of one unit, and Remark 5 with gamma for `problem.damped(gamma / 2)`, whose
    losses contain the ridge; the paper fixes the mask first, by the losses of masked weights before compensation.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import Quadratic, greedy_removal
    >>> greedy_removal(Quadratic(np.eye(3), np.array([[4.0, 1.0, 2.0]]))).order.tolist()
    [1, 2, 0]
    """
    work, size, alive = unit_problem(problem, groups)
    costs = unit_costs(alive.size, cost, work.gram)
    xp = namespace(work.gram)
    order, left = list(np.flatnonzero(~alive)), np.flatnonzero(alive)
    probe = np.random.default_rng(0).normal(size=work.shape[1])
    most_ridge, factorisations, stale = 0.0, 0, True
    while left.size:
        if stale:
            inverse, columns, ridge = factorised(work, channels_of(left, size))
            most_ridge, factorisations = max(ridge, most_ridge), factorisations + 1
        most = min(left.size, max(1, BLOCK // size))
        share = xp.take(costs, xp.asarray(left, device=device(costs)))
        gone, inverse, columns = eliminated(inverse, columns, share, size, most)
        order, left = order + list(left[gone]), np.delete(left, gone)
        stale = ridge > 0 or len(gone) < most or inverse_error(work.gram, inverse, channels_of(left, size), probe) > ACCURATE
    detail = {"ridge": most_ridge, "factorisations": float(factorisations)}
    return path_along(work, size, np.array(order), costs, detail)


def eliminated(inverse: Array, columns: Array, cost: Array, size: int, most: int) -> tuple[list[int], Array, Array]:
    """Return places of `most` units removed greedily (fewer where a pivot is rounding), and A and V^T of the others.

    A is updated once at the end, by L^T L; until then the rows of A and V that a step needs are corrected one by one by the
    rows of L (way) and of U (pull): A - L^T L, V^T - L^T U. Blocks of the diagonals of A and V^T V are always current.
    """
    xp = namespace(inverse)
    width, rows = columns.shape
    ways, pulls = (xp.zeros((most * size, n), dtype=inverse.dtype, device=device(inverse)) for n in (width, rows))
    identity = xp.eye(size, dtype=inverse.dtype, device=device(inverse))
    blocks, lots = diagonal_blocks(inverse, size), xp.reshape(columns, (-1, size, rows))
    products = lots @ xp.matrix_transpose(lots)
    barred = xp.zeros_like(cost)
    gone: list[int] = []
    for step in range(most):
        unit = int(xp.argmin(block_losses(blocks, products) / cost + barred))
        here, done = slice(unit * size, (unit + 1) * size), step * size
        part = inverse[here, :] - ways[:done, here].T @ ways[:done, :]
        factor, positive = cholesky(part[:, here])
        if not positive:
            break
        way = solve_triangular(factor, part, upper=False)
        pull = solve_triangular(factor, columns[here, :] - ways[:done, here].T @ pulls[:done, :], upper=False)
        cross = pull @ columns.T - (pull @ pulls[:done, :].T) @ ways[:done, :]
        ways[done : done + size, :], pulls[done : done + size, :] = way, pull
        along, against = (xp.permute_dims(xp.reshape(array, (size, -1, size)), (1, 2, 0)) for array in (way, cross))
        flipped = xp.matrix_transpose(along)
        half = times(against - 0.5 * times(along, pull @ pull.T), flipped)
        blocks = blocks - times(along, flipped)
        products = products - half - xp.matrix_transpose(half)
        blocks[unit, :, :] = identity
        barred[unit] = float("inf")
        gone.append(unit)
    left = xp.asarray(channels_of(np.delete(np.arange(width // size), gone), size), device=device(inverse))
    ways, pulls = xp.take(ways[: len(gone) * size, :], left, axis=1), pulls[: len(gone) * size, :]
    inverse = xp.take(xp.take(inverse, left, axis=0), left, axis=1) - ways.T @ ways
    return gone, inverse, xp.take(columns, left, axis=0) - ways.T @ pulls


def block_losses(blocks: Array, products: Array) -> Array:
    """Return 1/2 tr(A_PP^-1 V_P^T V_P) per unit, from blocks (..., s, s) of both; what rounding made negative is zero."""
    xp = namespace(blocks, products)
    if blocks.shape[-1] == 1:
        traces = (products / blocks)[..., 0, 0]
    else:
        traces = xp.linalg.trace(xp.linalg.solve(blocks, products))
    return 0.5 * xp.where(traces > 0, traces, xp.zeros_like(traces))


def times(left: Array, right: Array) -> Array:
    """Return products of blocks (..., s, s); stacks of numbers are multiplied as such, which is far quicker."""
    return left * right if left.shape[-1] == right.shape[-1] == 1 else left @ right


def factorised(problem: Quadratic, channels: np.ndarray) -> tuple[Array, Array, float]:
    """Return A = (G_KK + ridge I)^-1, the least-squares weights V_K^T (k, q) on these channels K, and the ridge on the change.

    The ridge is 0 unless G_KK is singular to rounding.
    """
    xp = namespace(problem.gram)
    index = xp.asarray(channels, device=device(problem.gram))
    part = xp.take(xp.take(problem.gram, index, axis=0), index, axis=1)
    anchor = xp.take(problem.anchor, index, axis=1)
    factor, ridge = inverse_factor(Quadratic(part, anchor, trusted=True), 0.0)
    kept = np.zeros(problem.shape[1])
    kept[channels] = 1
    gradient = problem.gradient(problem.anchor * xp.asarray(kept, device=device(part)))
    inverse = factor.T @ factor
    return inverse, copied((anchor - xp.take(gradient, index, axis=1) @ inverse).T), ridge


def inverse_error(gram: Array, inverse: Array, channels: np.ndarray, probe: np.ndarray) -> float:
    """Return |A G_KK x - x| / |x| for a random x, the largest entries."""
    if channels.size == 0:
        return 0.0
    xp = namespace(gram)
    kept = np.zeros_like(probe)
    kept[channels] = probe[channels]
    index = xp.asarray(channels, device=device(gram))
    image = inverse @ xp.take(gram @ xp.asarray(kept, device=device(gram)), index)
    return float(np.max(np.abs(to_numpy(image) - probe[channels])) / np.max(np.abs(probe[channels])))
