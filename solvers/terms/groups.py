"""Terms that keep or remove groups of channels of a row together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np

from gramian.solvers.backend._xp import Array, device, namespace, to_numpy
from gramian.solvers.backend.printed import extent
from gramian.solvers.core.prices import checked_number, checked_price, of_price, price_like, where_zero
from gramian.solvers.terms.squares import over

__all__ = ["GroupL2", "SparseGroup"]

NEWTON_STEPS = 30  # of which fewer than ten are needed, but the host does not wait to know


@dataclass(frozen=True, eq=False)
class GroupL2:
    """h(V) = sum_i sum_g lambda_g |V_ig|_2, over groups g of channels

    In each row the weights of a group vanish together. The group LASSO of Yuan and Lin has lambda_g = lambda sqrt(size of g).

    Parameters
    ----------
    groups : array of int (p,) or sequence of int
        The group of every channel, numbered from 0 without a gap.
    weight : float or array (count,)
        lambda >= 0, a number or one for each group.

    Attributes
    ----------
    count : int
        How many groups there are.

    Raises
    ------
    ValueError
        For groups that are not numbered so, for another number of lambdas, and unless lambda is finite and at least zero.

    Notes
    -----
    The proximal map is closed only where all channels of a group take the same step, so that `FISTA(scaled=True)` refuses the
    term.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import FISTA, GroupL2, Quadratic, solve
    >>> problem = Quadratic(np.eye(4), np.array([[3.0, 4.0, 0.3, 0.4]]))
    >>> solve(problem, GroupL2([0, 0, 1, 1], 1.0), FISTA(), tol=1e-12).weights.round(6).tolist()
    [[2.4, 3.2, 0.0, 0.0]]
    """

    groups: Array
    weight: Array | float
    count: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        adopt_groups(self, self.groups, self.weight)

    def __repr__(self) -> str:
        return f"GroupL2({self.count} groups of {extent(self.groups)} channels, {of_price(self.weight)})"

    def value(self, weights: Array) -> Array:
        """Return h per row, (q,)."""
        return namespace(weights).sum(price_like(self.weight, weights) * norms(weights, members(self, weights)), axis=1)

    def prox(self, weights: Array, step: float) -> Array:
        """argmin_V 1/2 |V - U|^2 + step h(V): the norm of every group of a row is lowered by step * lambda, to zero at most."""
        one_step(step, self)
        return shrunk(weights, members(self, weights), step * price_like(self.weight, weights))

    def polar(self, gradient: Array) -> Array:
        """Return h°(g) = max_g |g_g|_2 / lambda_g per row, (q,), where 0 / 0 is 0, raised by its rounding."""
        size, weight = norms(gradient, members(self, gradient)), price_like(self.weight, gradient)
        return largest_ratio(size, weight, gradient)

    def free(self, weights: Array) -> Array | None:
        """Return where lambda is zero, (q, p), or None if it is that nowhere."""
        return spread_mask(where_zero(self.weight, weights[:, : self.count] * 0), groups_like(self, weights))

    def rescaled(self, scale: Array) -> NoReturn:
        """Raise ValueError: in coordinates `scale * v` this is no norm of groups."""
        raise ValueError(NOT_RESCALED.format(type(self).__name__))


@dataclass(frozen=True, eq=False)
class SparseGroup:
    """h(V) = lambda |V|_1 + sum_i sum_g mu_g |V_ig|_2, over groups g of channels (Simon et al. 2013)

    In each row groups of weights vanish together, and single weights of those that stay.

    Parameters
    ----------
    groups : array of int (p,) or sequence of int
        The group of every channel, numbered from 0 without a gap.
    l1 : float
        lambda >= 0.
    weight : float or array (count,)
        mu >= 0, a number or one for each group.

    Attributes
    ----------
    count : int
        How many groups there are.

    Raises
    ------
    ValueError
        For groups that are not numbered so, for another number of mus, and unless lambda and mu are finite and at least zero.

    Notes
    -----
    As with `GroupL2`, `FISTA(scaled=True)` refuses the term.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import FISTA, Quadratic, SparseGroup, solve
    >>> problem = Quadratic(np.eye(4), np.array([[4.0, 5.0, 0.5, 2.0]]))
    >>> solve(problem, SparseGroup([0, 0, 1, 1], 1.0, 2.5), FISTA(), tol=1e-12).weights.round(6).tolist()
    [[1.5, 2.0, 0.0, 0.0]]
    """

    groups: Array
    l1: float
    weight: Array | float
    count: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "l1", checked_number(self.l1, "the L1 weight"))
        adopt_groups(self, self.groups, self.weight)

    def __repr__(self) -> str:
        return f"SparseGroup({self.count} groups of {extent(self.groups)} channels, {self.l1}, {of_price(self.weight)})"

    def value(self, weights: Array) -> Array:
        """Return h per row, (q,)."""
        xp = namespace(weights)
        size = price_like(self.weight, weights) * norms(weights, members(self, weights))
        return self.l1 * xp.sum(xp.abs(weights), axis=1) + xp.sum(size, axis=1)

    def prox(self, weights: Array, step: float) -> Array:
        """argmin_V 1/2 |V - U|^2 + step h(V): the soft threshold at step * lambda, then that of groups at step * mu."""
        one_step(step, self)
        xp = namespace(weights)
        thresholded = xp.sign(weights) * over(xp.abs(weights), step * self.l1)
        return shrunk(thresholded, members(self, weights), step * price_like(self.weight, weights))

    def polar(self, gradient: Array) -> Array:
        """Return h°(g) = max_g nu_g per row, (q,), with |max(|g_g| - nu lambda, 0)|_2 = nu mu_g, from above.

        The difference of the sides is convex and falls by lambda + mu at least, so that Newton's method from below stays below,
        and what is left of the difference, over lambda + mu, bounds its distance to the root.
        """
        xp = namespace(gradient)
        size, table, groups = xp.abs(gradient), members(self, gradient), groups_like(self, gradient)
        weight = price_like(self.weight, gradient) + xp.zeros_like(gradient[:, : self.count])
        bound = self.l1 + weight > 0
        fall = xp.where(bound, self.l1 + weight, xp.ones_like(weight))
        length = norms(size, table)
        level = length / xp.where(bound, self.l1 * xp.sqrt(xp.sum(table, axis=0)) + weight, xp.ones_like(weight))
        for last in [False] * NEWTON_STEPS + [True]:
            excess = over(size, self.l1 * xp.take(level, groups, axis=1))
            reach = norms(excess, table)
            left = reach - level * weight
            rate = self.l1 * (excess @ table) / xp.where(reach > 0, reach, xp.ones_like(reach)) + weight
            rate = xp.where(rate > fall, rate, fall)
            level = level + over(left, 0.0) / (fall if last else rate)
        free = xp.where(length > 0, xp.full_like(length, float("inf")), length)
        return xp.max(xp.where(bound, level, free), axis=1) * (1 + rounding_of_norms(gradient))

    def free(self, weights: Array) -> Array | None:
        """Return where lambda and mu are both zero, (q, p), or None if they are that nowhere."""
        if self.l1 > 0:
            return None
        return spread_mask(where_zero(self.weight, weights[:, : self.count] * 0), groups_like(self, weights))

    def rescaled(self, scale: Array) -> NoReturn:
        """Raise ValueError: in coordinates `scale * v` this is no norm of groups."""
        raise ValueError(NOT_RESCALED.format(type(self).__name__))


NOT_RESCALED = "{} ties channels to each other and has no form in other coordinates: solve in those of the problem"


def adopt_groups(term: GroupL2 | SparseGroup, groups: Array, weight: Array | float) -> None:
    """Set the fields that both terms share. ValueError is raised for what their docstrings say."""
    groups = groups if hasattr(groups, "ndim") else np.asarray(groups)
    xp = namespace(groups)
    if groups.ndim != 1 or not groups.shape[0] or not xp.isdtype(groups.dtype, "integral"):
        raise ValueError(f"groups are one integer for each channel, (p,), but are {extent(groups)} of {groups.dtype}")
    found = np.unique(to_numpy(groups))
    count = len(found)
    if found[0] != 0 or found[-1] != count - 1:
        raise ValueError(f"groups must be numbered from 0 to {count - 1} without a gap but are {found[:8].tolist()}...")
    weight = checked_price(weight, "the weight of a group")
    if getattr(weight, "ndim", 0) and tuple(weight.shape) != (count,):  # type: ignore[union-attr]
        raise ValueError(f"there are {count} groups but {extent(weight)} weights of groups")
    for name, value in (("groups", groups), ("weight", weight), ("count", count)):
        object.__setattr__(term, name, value)


def one_step(step: Array | float, term: object) -> None:
    """Raise ValueError for a step per channel."""
    if getattr(step, "ndim", 0):
        raise ValueError(f"{type(term).__name__} has a proximal map for one step only, not for a step per channel")


def groups_like(term: GroupL2 | SparseGroup, array: Array) -> Array:
    """Return the groups as an array of the library and on the device of `array`. ValueError is raised for another width."""
    groups = term.groups
    if groups.shape[0] != array.shape[1]:
        raise ValueError(f"the groups are of {groups.shape[0]} channels but the weights have {array.shape[1]}")
    xp = namespace(array)
    same = namespace(groups) is xp and device(groups) == device(array)
    return groups if same else xp.asarray(to_numpy(groups), device=device(array))


def members(term: GroupL2 | SparseGroup, array: Array) -> Array:
    """Return which channel is in which group, (p, count), in the dtype of `array`."""
    xp, groups = namespace(array), groups_like(term, array)
    return xp.astype(groups[:, None] == xp.arange(term.count, dtype=groups.dtype, device=device(array))[None, :], array.dtype)


def norms(array: Array, table: Array) -> Array:
    """Return the Euclidean norm of every group of a row, (q, count)."""
    return namespace(array).sqrt((array * array) @ table)


def shrunk(weights: Array, table: Array, threshold: Array | float) -> Array:
    """Return the weights with the norm of every group of a row lowered by a threshold, to zero at most."""
    xp = namespace(weights)
    size = norms(weights, table)
    kept = over(size, threshold) / xp.where(size > 0, size, xp.ones_like(size))
    return weights * (kept @ table.T)  # a row of the table is one 1, so that this picks a number


def largest_ratio(size: Array, weight: Array | float, gradient: Array) -> Array:
    """Return max_g size_g / weight_g per row, (q,), where 0 / 0 is 0, raised by the rounding of `size`."""
    xp = namespace(size)
    weight = weight + xp.zeros_like(size)
    ratio = size / xp.where(weight > 0, weight, xp.ones_like(weight))
    free = xp.where(size > 0, xp.full_like(size, float("inf")), size)
    return xp.max(xp.where(weight > 0, ratio, free), axis=1) * (1 + rounding_of_norms(gradient))


def rounding_of_norms(array: Array) -> float:
    """Return what rounding can take from the norm of a group, relative to it."""
    rounding: float = (array.shape[1] + 8) * float(namespace(array).finfo(array.dtype).eps)
    return rounding


def spread_mask(mask: Array | None, groups: Array) -> Array | None:
    """Return a mask of groups (q, count) as one of channels (q, p)."""
    return None if mask is None else namespace(mask).take(mask, groups, axis=1)
