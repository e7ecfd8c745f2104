"""The LASSO solved exactly, row by row, once the signs of its weights are nearly known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gramian.solvers.backend._xp import Array, clip, device, namespace, put, to_numpy
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.direct.factorised import bundles_of, factorised_change
from gramian.solvers.l1.costs import Costs

__all__ = ["Points", "evaluated", "finished", "settled", "support_sizes"]

FEW = 0.02  # of the channels, but at least four: signs that may still be wrong while a row is solved again at once
EPSILON = 2.0**-52  # of float64
FALSE = 1e-10  # of the objective: a gap that is further below zero is rounding of something large
TERMS = 16  # rounding errors of a product of vectors, in units of epsilon; they grow as the root of its length
RIDGE = 1e-8  # on the change, of a unit diagonal, where a support is singular; repeating the solve takes it back
STRAIGHT, LONGEST = 2.0**20, 2.0**60  # times that change: from here to there a longer one is better, and is taken
ALL, ONE, NONE = 0, 1, 2  # of the channels that want to enter a support, how many may


@dataclass(frozen=True, eq=False)
class Points:
    """Hold weights of rows with what is known of them.

    gradient: (n, p). objective, gap: the objective and the duality gap, (n,), on the host.
    """

    weights: Array
    gradient: Array
    objective: np.ndarray
    gap: np.ndarray

    @property
    def measure(self) -> float:
        """Return the relative gap of all rows together."""
        objective = float(self.objective.sum())
        return float(self.gap.sum()) / objective if objective > 0 else 0.0

    def rows(self, chosen: np.ndarray) -> Points:
        """Return some of the rows."""
        xp = namespace(self.weights)
        index = xp.asarray(chosen, device=device(self.weights))
        weights, gradient = (xp.take(array, index, axis=0) for array in (self.weights, self.gradient))
        return Points(weights, gradient, self.objective[chosen], self.gap[chosen])

    def put(self, rows: np.ndarray, others: Points) -> None:
        """Replace some rows, in place."""
        put(self.weights, rows, others.weights)
        put(self.gradient, rows, others.gradient)
        self.objective[rows], self.gap[rows] = others.objective, others.gap

    def improve(self, rows: np.ndarray, others: Points, *, anyway: np.ndarray | bool = False) -> np.ndarray:
        """Replace those of the rows that are better, and return which they are, (rows,).

        A row is better where its objective falls, or is the same while the gap falls, or is the same but for rounding while
        weights vanish, as they do along the null space of a Gram.
        """
        objective, gap = self.objective[rows], self.gap[rows]
        fewer = support_sizes(others.weights) < support_sizes(self.rows(rows).weights)
        better: np.ndarray = (others.objective < objective) | ((others.objective == objective) & (others.gap < gap))
        better = better | ((others.objective <= objective * (1 + 4 * EPSILON)) & fewer)
        taken = np.flatnonzero(better | anyway)
        self.put(rows[taken], others.rows(taken))
        return better


def support_sizes(weights: Array) -> np.ndarray:
    """Return the nonzeros per row (n,), on the host."""
    xp = namespace(weights)
    return to_numpy(xp.sum(xp.astype(weights != 0, xp.int64), axis=1))


def evaluated(problem: Quadratic, costs: Costs, weights: Array) -> Points:
    """Return rows with their objectives and gaps."""
    losses, gradient = problem.value_and_gradient(weights)
    cost = costs.value(weights)
    gap = costs.gaps(weights, losses, gradient, cost)
    return Points(weights, gradient, np.array(to_numpy(losses + cost)), np.array(to_numpy(gap)))


def rounding(problem: Quadratic, points: Points) -> Array:
    """Return the size, per row (n, 1), below which a difference of gradients is rounding.

    It is that of V, and that of (V - W) G, whose entries are at most |V - W|_1 in unit-diagonal coordinates.
    """
    xp = namespace(points.weights)
    size = TERMS * xp.abs(points.weights - problem.anchor) + xp.abs(points.weights)
    size = xp.sum(size * problem.diagonal, axis=1, keepdims=True)
    if problem.slope is not None:
        size = size + TERMS * xp.max(xp.abs(problem.slope), axis=1, keepdims=True)
    return EPSILON * size


def settled(problem: Quadratic, costs: Costs, points: Points, tol: float) -> np.ndarray:
    """Return the rows with nothing left to gain, (n,): those at the tolerance, or optimal to rounding."""
    xp = namespace(points.weights)
    along = xp.abs(points.gradient + costs.limit * xp.sign(points.weights))
    off = xp.where(points.weights == 0, costs.excess(points.gradient), along)
    known = (points.gap <= tol * points.objective) & (points.gap >= -FALSE * points.objective)
    done: np.ndarray = known | to_numpy(xp.all(off <= rounding(problem, points), axis=1))
    return done


def finished(
    problem: Quadratic, costs: Costs, points: Points, tol: float, rounds: int, *, patient: bool = False
) -> tuple[Points, np.ndarray, int]:
    """Return rows after at most so many exact solves each, which of them are settled, and the number of solves.

    No row's objective rises. A row stops early where its objective does not fall, or where many signs are wrong still. If
    `patient` it goes on: where the objective does not fall, with only the channel that wants to enter most; where it does not
    fall then either, with none. With none, or one that enters an exact solution, it falls by convexity, and since it falls, no
    signs come twice: the way to the optimum is finite but for rounding (Lee et al. 2007, Theorem 3.1), and often long.
    """
    xp = namespace(points.weights)
    done = settled(problem, costs, points, tol)
    going, solves = np.flatnonzero(~done), 0
    entering = np.full(done.shape, ALL)
    few = max(4, FEW * problem.shape[1])
    for _ in range(rounds):
        if not going.size:
            break
        index = xp.asarray(going, device=device(points.weights))
        part, own = problem.rows(index), costs.rows(index)
        after, changed = solved_once(part, own, points.rows(going), entering[going])
        solves += going.size
        done[going] = settled(part, own, after, tol)
        lower = points.improve(going, after, anyway=done[going])
        if patient:
            entering[going] = np.clip(entering[going] + np.where(lower, -1, 1), ALL, NONE + 1)
        goes_on = entering[going] <= NONE if patient else lower & (changed <= few)
        going = going[goes_on & ~done[going]]
    return points, done, solves


def solved_once(problem: Quadratic, costs: Costs, points: Points, entering: np.ndarray) -> tuple[Points, np.ndarray]:
    """Return rows after one solve of g_A = -lambda_A s_A, and how many signs it found to be wrong (n,).

    Wrong signs include those of the new gradient. A is the support with those channels that may enter, of those whose
    |g_j| > lambda_j, or -g_j > lambda_j where no weight may be negative. There all signs are positive, and a channel that costs
    nothing has a sign too.
    Where the solution has other signs than s, the better of two points is taken: the solution without those weights, and the
    first point on the way to it where a weight vanishes, up to which the objective falls if nothing entered.
    """
    xp = namespace(points.weights)
    weights, gradient, limit = points.weights, points.gradient, costs.limit
    live, slack = weights != 0, rounding(problem, points)
    wish = xp.where(live, xp.zeros_like(weights), costs.excess(gradient) - slack)
    mode = xp.asarray(entering, device=device(weights))[:, None]
    first = xp.argmax(wish, axis=1, keepdims=True) == xp.arange(weights.shape[1], device=device(weights))
    active = live | ((wish > 0) & ((mode == ALL) | ((mode == ONE) & first)))
    signs = xp.where(live, xp.sign(weights), -xp.sign(gradient))
    change = signed_change(problem.gram, active, xp.where(active, gradient + limit * signs, xp.zeros_like(weights)))
    target = weights + change
    wrong = active & (target * signs < 0) & (costs.positive | (limit > 0))
    after = evaluated(problem, costs, target)
    turned = np.flatnonzero(to_numpy(xp.any(wrong, axis=1)))
    if turned.size:
        index = xp.asarray(turned, device=device(weights))
        part, own = problem.rows(index), costs.rows(index)
        here, gone, move = (xp.take(array, index, axis=0) for array in (weights, wrong, change))
        zero = xp.zeros_like(here)
        projected = evaluated(part, own, own.nearest(xp.where(gone, zero, here + move)))
        reach = xp.where(gone, -here / xp.where(gone, move, xp.ones_like(move)), xp.ones_like(move))
        nearest = xp.min(reach, axis=1, keepdims=True)
        stopped = xp.where(gone & (reach <= nearest), zero, here + nearest * move)
        after.put(turned, projected)
        after.improve(turned, evaluated(part, own, own.nearest(stopped)))
    wanting = (after.weights == 0) & (costs.excess(after.gradient) > slack)
    return after, to_numpy(xp.sum(xp.astype(wrong, xp.int64) + xp.astype(wanting, xp.int64), axis=1))


def signed_change(gram: Array, active: Array, right: Array) -> Array:
    """Return rows d with G_AA d_A = -r_A and d = 0 off A.

    Where G_AA is singular there may be none, or many. Then d is the solution with a ridge, and if that is next to straight, the
    least of <r, d> + 1/2 d G d on it, which is far: along the null space.
    """
    xp = namespace(gram)
    change, _, regular = factorised_change(gram, active, right, bundles_of(active))
    singular = np.flatnonzero(~regular)
    if singular.size:
        index = xp.asarray(singular, device=device(gram))
        damped = gram + RIDGE * xp.eye(gram.shape[0], dtype=gram.dtype, device=device(gram))
        active, right = xp.take(active, index, axis=0), xp.take(right, index, axis=0)
        way = factorised_change(damped, active, right, bundles_of(active))[0]
        way = xp.where(xp.isfinite(way), way, xp.zeros_like(way))
        fall = -xp.sum(right * way, axis=1, keepdims=True)
        curvature = xp.sum((way @ gram) * way, axis=1, keepdims=True)
        length = clip(fall / xp.where(curvature > 0, curvature, xp.ones_like(fall)), 1.0, LONGEST)
        length = xp.where(curvature > 0, length, xp.full_like(fall, LONGEST))
        way = way * xp.where(length > STRAIGHT, length, xp.ones_like(length))
        put(change, singular, way)
    return change
