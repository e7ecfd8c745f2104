"""Chains of masks of channels or heads: what removing them one after another costs when the rest is refitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral

import numpy as np

from gramian.solvers.backend._xp import Array, cholesky, copied, device, namespace, solve_triangular, to_numpy
from gramian.solvers.backend.computing import computation
from gramian.solvers.backend.given import given
from gramian.solvers.backend.options import shown
from gramian.solvers.backend.printed import digits
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.units.mask import keep_within, unit_costs, unit_count

__all__ = ["RemovalPath", "removal_path", "unit_support"]

BLOCK = 64  # channels that are eliminated together before the rest is updated
STEP = 2.0**-45  # part of the largest price by which a price exceeds the one before it at least


@dataclass(frozen=True, eq=False)
class RemovalPath:
    """losses_k = min_V f(V) subject to V_P = 0,   P the channels of units order_0, ..., order_k

    This is a chain of masks, each with one unit less, and the loss of each when the weights on it are least squares.

    Parameters
    ----------
    order : array (m,)
        Units as they are removed.
    losses : array (m,)
        In float64 and that order, nondecreasing, the last one f(0).
    least : float
        min_V f(V), nothing removed.
    cost : array (m,)
        In float64, what keeping a unit costs, in the units' own order.
    detail : dict of str to float
        Figures of how the order was found.

    Attributes
    ----------
    units : int
        m.
    energy : float
        f(0).
    prices : array (m,)
        For every unit, relative error per cost along the lower convex hull of the losses.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import Quadratic, greedy_removal
    >>> rng = np.random.default_rng(0)
    >>> path = greedy_removal(Quadratic.from_data(rng.normal(size=(64, 8)), rng.normal(size=(4, 8))))
    >>> int(path.mask(6).sum()), path.loss(8) <= path.loss(6) <= path.loss(0)
    (6, True)
    """

    order: Array
    losses: Array
    least: float
    cost: Array
    detail: dict[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"RemovalPath({self.units} units, loss {digits(self.least)} to {digits(self.energy)})"

    @property
    def units(self) -> int:
        """Return m."""
        return int(self.order.shape[0])

    @cached_property
    def energy(self) -> float:
        """Return f(0) = 1/2 |X W^T|^2, the scale of a relative error."""
        return float(self.losses[-1])

    def loss(self, count: int) -> float:
        """Return the loss of `mask(count)` refitted."""
        self.check(count)
        return self.least if count == self.units else float(self.losses[self.units - count - 1])

    def mask(self, count: int) -> Array:
        """Return a boolean mask (m,), True for the `count` units removed last."""
        self.check(count)
        return namespace(self.order).argsort(self.order) >= self.units - count

    def mask_within(self, budget: float) -> Array:
        """Return a boolean mask (m,): as many of the units removed last as a budget pays for, by the rule of `keep_within`."""
        return keep_within(self.prices, self.cost, budget)

    @cached_property
    def prices(self) -> Array:
        """Return the slope of the lower convex hull of loss / f(0) against the cost removed, for every unit, (m,), float64.

        The slope is that over the step that removes the unit: relative error per cost, so prices of different modules compare.
        Removing, in many modules, what is cheaper than one multiplier minimises the sum of relative errors plus multiplier
        times cost kept over all masks of the chains; `keep_within` and `allocate_by_score` take prices as scores. Along the
        order they rise strictly, each by at least 2^-45 of the largest, so that within a segment of the hull, and where
        removing costs nothing, units go in the order of removal.
        """
        order, cost, losses = (to_numpy(array) for array in (self.order, self.cost, self.losses))
        added = np.diff(losses, prepend=self.least) / (self.energy or 1.0)
        slopes = hull_slopes(added, cost[order])
        prices = np.empty(self.units)
        prices[order] = slopes + STEP * (slopes[-1] or 1.0) * np.arange(self.units)
        return namespace(self.cost).asarray(prices, device=device(self.cost))

    def check(self, count: int) -> None:
        """Raise ValueError for a number of units that there are not."""
        if not isinstance(count, Integral) or isinstance(count, bool) or not 0 <= count <= self.units:
            raise ValueError(f"a mask keeps between 0 and {self.units} units, all there are, but is to keep {shown(count)}")


@computation
def removal_path(
    problem: Quadratic, order: Sequence[int] | Array, groups: int | None = None, cost: Array | float | None = None
) -> RemovalPath:
    """losses_k = min_V f(V) subject to V_P = 0, P the units order_0 ... order_k, for all k from one Cholesky factorisation

    Parameters
    ----------
    problem : Quadratic
        f.
    order : sequence of int or array (m,)
        A permutation of the units, by any method, the first to be removed first (ascending scores).
    groups : int, optional
        As many equal runs of consecutive channels (heads) are one unit each. None makes every channel a unit.
    cost : array (m,) or float, optional
        What keeping a unit costs. None is 1, so that a budget counts units.

    Returns
    -------
    RemovalPath
        The chain of masks with their losses.

    Raises
    ------
    ValueError
        For an order that is no permutation, and for groups or costs that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import Quadratic, removal_path
    >>> path = removal_path(Quadratic(np.eye(3), np.array([[1.0, 2.0, 4.0]])), [0, 1, 2])
    >>> path.losses.tolist()
    [0.5, 2.5, 10.5]
    """
    work, size, alive = unit_problem(problem, groups)
    chosen = np.array(to_numpy(given("order", order)))
    if chosen.ndim != 1 or not np.array_equal(np.sort(chosen), np.arange(alive.size)):
        raise ValueError(f"an order must be a permutation of the {alive.size} units but has shape {chosen.shape}")
    return path_along(work, size, chosen.astype(np.int64), unit_costs(alive.size, cost, work.gram), {})


def path_along(work: Quadratic, size: int, order: np.ndarray, costs: Array, detail: dict[str, float]) -> RemovalPath:
    """Return the path that removes units in this order."""
    xp = namespace(work.gram)
    added, least = nested_losses(work, channels_of(order, size))
    losses = least + np.cumsum(np.sum(added.reshape(-1, size), axis=1))
    place = device(work.gram)
    return RemovalPath(xp.asarray(order, device=place), xp.asarray(losses, device=place), least, costs, detail)


def nested_losses(problem: Quadratic, order: np.ndarray) -> tuple[np.ndarray, float]:
    """Return what removing each channel adds to the least loss, (p,), in the order of removal, and the loss before.

    With the channel removed first as the last one and G = R^T R, R upper triangular, f(V) = least + 1/2 |R V^T - z|^2 for
    z = R W^T - R^-T slope^T and least = floor - 1/2 |R^-T slope^T|^2. What is kept spans the first rows of R, so each row
    of z counts as soon as its channel is removed. A channel that is a combination of those removed later has a zero row.
    ValueError is raised for a problem of no data, with an indefinite Gram or a least loss below zero.
    """
    xp = namespace(problem.gram)
    width = problem.shape[1]
    negligible = 4 * width * float(xp.finfo(xp.float64).eps)  # of a unit diagonal: what rounding makes of such a channel
    index = xp.asarray(order[::-1].copy(), device=device(problem.gram))
    rest = xp.take(xp.take(problem.gram, index, axis=0), index, axis=1)
    weight = xp.take(problem.anchor.T, index, axis=0)
    slope = None if problem.slope is None else xp.take(problem.slope.T, index, axis=0)
    least = 0.0 if problem.floor is None else float(xp.sum(problem.floor))
    added = np.zeros(width)
    for first in range(0, width, BLOCK):
        last = min(first + BLOCK, width)
        corner = rest[first:last, first:last]
        pivots = independent(corner, negligible)
        if pivots.size < last - first and not problem.curvature > -float("inf"):
            raise ValueError(
                "the chain of masks has no losses: gram is not positive semidefinite, so that the loss has no minimum"
            )
        if pivots.size == 0:
            continue
        chosen = xp.asarray(pivots, device=device(rest))
        factor, _ = cholesky(xp.take(xp.take(corner, chosen, axis=0), chosen, axis=1))
        rows = solve_triangular(factor, xp.take(rest[first:last, first:], chosen, axis=0), upper=False)
        residual = rows @ weight[first:, :]
        right = rows[:, last - first :]
        if slope is not None:
            pull = solve_triangular(factor, xp.take(slope[first:last, :], chosen, axis=0), upper=False)
            residual = residual - pull
            least -= 0.5 * float(xp.sum(pull * pull))
            slope[last:, :] -= right.T @ pull
        rest[last:, last:] -= right.T @ right
        added[first + pivots] = 0.5 * to_numpy(xp.sum(residual * residual, axis=1))
    if least < 0 and not problem.has_minimum:
        raise ValueError(f"the chain of masks has no losses: slope and floor give a least loss of {least:.6g}, below zero")
    return added[::-1], max(least, 0.0)  # f is a sum of squares; less than zero is rounding


def independent(matrix: Array, negligible: float) -> np.ndarray:
    """Return positions whose Cholesky pivot, those of negligible ones skipped, is more than rounding may have made of zero.

    The pivot of a channel is a quadratic form of the matrix in the combination of channels before it that is left of it, with
    coefficients (1, -w); rounding of a unit diagonal makes `negligible` (1 + |w|^2) of a zero. With R upper triangular that is
    `negligible` times the pivot times the squared norm of its column of R^-1.
    """
    xp = namespace(matrix)
    factor, exists = cholesky(matrix)
    if exists:
        identity = xp.eye(matrix.shape[0], dtype=matrix.dtype, device=device(matrix))
        rows = solve_triangular(factor, identity, upper=False)  # R^-T
        if bool(xp.all(xp.sum(rows * rows, axis=1) < 1 / negligible)):
            return np.arange(matrix.shape[0])
    rest, chosen = np.array(to_numpy(matrix)), []
    left = np.eye(rest.shape[0])  # row j: the coefficients of what is left of channel j
    for position in range(rest.shape[0]):
        pivot = rest[position, position]
        if pivot > negligible * np.sum(left[position] ** 2):
            chosen.append(position)
            parts = rest[position] / pivot
            parts[: position + 1] = 0
            left -= parts[:, None] * left[position]
            rest -= pivot * parts[:, None] * parts
    return np.array(chosen, dtype=np.int64)


def hull_slopes(rises: np.ndarray, runs: np.ndarray) -> np.ndarray:
    """Return slopes (m,) of the greatest convex function below the chain of steps (run, rise), over each step.

    They are nondecreasing.
    """
    segments: list[tuple[float, float, int]] = []  # rise, run, steps
    for rise, run in zip(rises, runs):
        segments.append((float(rise), float(run), 1))
        while len(segments) > 1 and segments[-2][0] * segments[-1][1] >= segments[-1][0] * segments[-2][1]:
            last, before = segments.pop(), segments.pop()
            segments.append((before[0] + last[0], before[1] + last[1], before[2] + last[2]))
    return np.repeat([rise / run for rise, run, _ in segments], [steps for _, _, steps in segments])


# -- units -------------------------------------------------------------------------------------------------------------


def unit_support(mask: Array, shape: tuple[int, int]) -> Array:
    """Spread a mask of units over the weights, for `refit` and `Support`.

    Parameters
    ----------
    mask : array (m,) of bool
        True = kept; every unit is p / m consecutive channels.
    shape : tuple of int
        (q, p).

    Returns
    -------
    array (q, p) of bool
        The same for every row.

    Raises
    ------
    ValueError
        When the channels do not divide into the units.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import unit_support
    >>> unit_support(np.array([True, False]), (1, 4)).tolist()
    [[True, True, False, False]]
    """
    mask = given("mask", mask)
    if mask.ndim != 1 or mask.shape[0] < 1 or shape[1] % mask.shape[0]:
        raise ValueError(f"{shape[1]} channels do not divide into units of a mask {tuple(mask.shape)}")
    xp = namespace(checked_mask(mask, mask.shape[0]))
    channels = xp.reshape(xp.broadcast_to(mask[:, None], (mask.shape[0], shape[1] // mask.shape[0])), (1, -1))
    return copied(xp.broadcast_to(channels, shape))


def checked_mask(mask: Array, units: int) -> Array:
    """Return a mask of units, or raise ValueError for another number of them, and for one that is not boolean."""
    if tuple(mask.shape) != (units,):
        raise ValueError(f"the mask is {tuple(mask.shape)} but the problem has {units} units")
    if not namespace(mask).isdtype(mask.dtype, "bool"):
        raise ValueError(f"a mask of units is boolean but this one is {mask.dtype}")
    return mask


def unit_problem(problem: Quadratic, groups: int | None) -> tuple[Quadratic, int, np.ndarray]:
    """Return the problem in float64 and unit-diagonal coordinates, the channels of a unit, and which units have one alive.

    Dead channels get weight 0 and diagonal 1. The last is (m,).
    """
    width = problem.shape[1]
    units = unit_count(width, groups)
    unit, _ = problem.double.rescaled()
    alive = namespace(unit.gram).astype(unit.diagonal > 0, unit.gram.dtype)
    slope = None if unit.slope is None else unit.slope * alive
    work = Quadratic(unit.gram, unit.anchor * alive, slope, unit.floor, trusted=True).damped(1 - alive)
    return work, width // units, np.any(to_numpy(alive).reshape(units, -1) > 0, axis=1)


def channels_of(units: np.ndarray, size: int) -> np.ndarray:
    """Return the channels of these units, one unit after another."""
    return (units[:, None] * size + np.arange(size)).reshape(-1)


def diagonal_blocks(matrix: Array, size: int) -> Array:
    """Return the blocks (m, s, s) on the diagonal of a matrix (m s, m s)."""
    xp = namespace(matrix)
    count = matrix.shape[0] // size
    blocks = xp.permute_dims(xp.reshape(matrix, (count, size, count, size)), (1, 3, 0, 2))
    return copied(xp.permute_dims(xp.linalg.diagonal(blocks), (2, 0, 1)))
