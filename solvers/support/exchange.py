"""Local search over supports: kept weights exchanged for pruned ones wherever the loss falls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gramian.solvers.backend._xp import (
    Array,
    as_floating,
    copied,
    device,
    full,
    namespace,
    principals,
    solve_positive,
    to_numpy,
)
from gramian.solvers.backend.computing import computation
from gramian.solvers.backend.given import given_floats
from gramian.solvers.backend.options import whole
from gramian.solvers.core.certificate import Certificate, certify
from gramian.solvers.core.patterns import NM, Pattern, PatternLike, TopK, counted_pattern
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Solution, Status
from gramian.solvers.core.terms import Support
from gramian.solvers.core.watch import Callback, Watch, watched
from gramian.solvers.direct.factorised import BATCH_BYTES, spread
from gramian.solvers.direct.restricted import refit
from gramian.solvers.support.obs import inverse_factor

__all__ = ["exchange_weights"]

NEAR = 1e-6  # part of a unit-diagonal channel that others cannot make up for, below which it counts as depending on them
RIDGE = 1e-7  # on the unit-diagonal Gram, in the search alone, where channels depend on each other
GUESS = 0.01  # the same, in the pivots that stand for the scores of channels that do not take part
HELP = 1e-6  # of a row's loss: a smaller gain is none
ROUNDING = 1e-12  # of a row's loss at zero, besides the ridge: likewise
SHIFTS = 1024  # rows at most that give a weight to others in one round


@computation
def exchange_weights(
    problem: Quadratic,
    pattern: PatternLike,
    start: Array,
    *,
    rounds: int = 10,
    candidates: int = 64,
    widest: int = 128,
    throw: bool = False,
    time_limit: float | None = None,
    callback: Callback | None = None,
    progress: bool = False,
) -> Solution:
    """min_V f(V) subject to V satisfying the pattern, by local search from the support of any method's answer

    The search goes towards a support where no exchange of a kept weight for a pruned one lowers the loss, all others refitted.
    The loss is at most that of `start` and that of the refit on its support, but for 1e-12 of the loss at zero: supports
    that fit the data exactly differ by rounding alone, which must not choose among them.

    With K the kept channels of a row, A = G_KK^-1 and g the gradient, dropping j costs v_j^2 / (2 A_jj) and adding i gains
    g_i^2 / (2 S_i), S_i = G_ii - G_iK A G_Ki. How the two interact is in a `Tableau` of `candidates` channels of the row:
    those of least cost and largest gain with 1 / ((G + D)^-1)_jj in place of 1 / A_jj and S_i. Exchanges among them, the
    best first, need no factorisation, so a round takes one of every row and a product `V G`, like a refit. A row keeps what
    it found if its loss, computed anew, falls; else it tries half as many. Where none helps, it is searched again with
    twice the candidates, up to `widest`. Exchanges are made within a row, for n:m within a group. For a count over the whole
    matrix, weights also shift from rows where dropping one costs least to rows that gain most, if the loss of all falls; else
    half as many.

    Parameters
    ----------
    problem : Quadratic
        f.
    pattern : TopK, NM, str or float
        Which masks are allowed; "2:4" and a sparsity will do.
    start : array (q, p)
        Weights that satisfy the pattern; where they keep fewer than it admits, the support is filled up first.
    rounds : int, default 10
        The most rounds.
    candidates : int, default 64
        The channels of a row among which exchanges are sought at first.
    widest : int, default 128
        The most channels of a row among which exchanges are sought.
    throw, time_limit, callback, progress : optional
        As of `solve`. Every round is a step, and a check.

    Returns
    -------
    Solution
        SWAP_OPTIMAL, SEARCHED, TIME_LIMIT or STOPPED, with (round, relative error) as its history. Its detail: `exchanges` and
        `shifts` made; `rows_at_rest`, where no exchange at all helps (not known if widest < p); `swap_optimal`, 1 if that is
        every row and no shift helps, by more than 1e-6 of the rows' loss; `ridge`, 0 unless channels depend on each other, that
        the search put on the change of v_j sqrt(G_jj): gains up to this part of the loss at zero then do not count.

    Raises
    ------
    ValueError
        For a start off the pattern, and for numbers out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import NM, Quadratic, exchange_weights, wanda
    >>> rng = np.random.default_rng(0)
    >>> problem = Quadratic.from_data(rng.normal(size=(64, 8)), rng.normal(size=(4, 8)))
    >>> start = wanda(problem, NM(2, 4))
    >>> found = exchange_weights(problem, NM(2, 4), start.weights)
    >>> found.certificate.objective < start.certificate.objective, found.detail["swap_optimal"]
    (True, 1.0)
    """
    check_search(rounds, candidates, widest)
    pattern = counted_pattern(pattern, problem.shape, "exchange_weights")
    start = given_floats("start", start, problem.anchor)
    with watched("exchange_weights", rounds, "round", time_limit=time_limit, callback=callback, progress=progress) as watch:
        solution = watched_exchanges(problem, pattern, start, rounds, candidates, widest, watch)
    return solution.required() if throw else solution


def watched_exchanges(
    problem: Quadratic, pattern: TopK | NM, start: Array, rounds: int, candidates: int, widest: int, watch: Watch
) -> Solution:
    """Do what `exchange_weights` does, whose options are checked already, beside a watch."""
    if tuple(start.shape) != problem.shape or not pattern.admits(start != 0):
        raise ValueError(f"the start must be {problem.shape} and satisfy {pattern} but is {tuple(start.shape)} or does not")
    first = refit(problem, start != 0, start=start)
    walk, history = Walk(problem.double, pattern, first.weights, candidates, widest), []

    def reached() -> tuple[Array, Certificate]:
        """Return the weights where the search stands."""
        weights = as_floating(walk.weights / walk.scale, problem.anchor)
        return weights, certify(problem, Support(walk.mask), weights)

    ended = watch.verdict(0, reached, over=rounds == 0)
    for step in range(rounds):
        if ended or not walk.exchange() | walk.shift():
            break
        history.append((step + 1, problem.double.relative_error(walk.weights / walk.scale)))
        ended = watch.verdict(step + 1, reached, over=step + 1 == rounds)
    still = bool(namespace(start).all(walk.mask == (first.weights != 0)))
    last = first if still else refit(problem, walk.mask, start=as_floating(walk.weights / walk.scale, problem.anchor))
    rounding = ROUNDING * problem.double.energy
    best = last if last.certificate.objective <= first.certificate.objective + rounding else first
    optimal = best is last and np.all(walk.rest) and not walk.helpful_shifts()
    detail = best.detail | {"exchanges": walk.exchanges, "shifts": walk.shifts, "ridge": walk.ridge}
    detail |= {"rows_at_rest": float(np.sum(walk.rest)), "swap_optimal": float(optimal)}
    status = Status.SWAP_OPTIMAL if optimal else ended or Status.SEARCHED
    return Solution(best.weights, status, best.certificate, len(history), tuple(history), detail)


def check_search(rounds: int, candidates: int, widest: int) -> None:
    """Raise ValueError for numbers out of range."""
    whole("rounds", rounds, 0)
    whole("widest", widest, whole("candidates", candidates, 2))


class Walk:
    """Hold where the search stands, in unit-diagonal coordinates and float64.

    weights: (q, p), refitted on mask (q, p). losses: (q,). worth: (q, p), what dropping a kept weight costs and adding a pruned
    one gains, NaN where that is not known. Per row, on the host, there are: going, whether it is to be searched; rest, whether
    it is known that no exchange helps; width, how many candidates it has; limit, how many exchanges.
    """

    def __init__(self, problem: Quadratic, pattern: Pattern, start: Array, candidates: int, widest: int) -> None:
        xp = namespace(problem.anchor)
        unit, self.scale = problem.rescaled()
        alive = xp.astype(unit.diagonal > 0, xp.float64)  # a dead channel of weight 0 costs and gains nothing
        unit = Quadratic(unit.gram, unit.anchor * alive, unit.slope, unit.floor, trusted=True).damped(1 - alive)
        factor, self.ridge = inverse_factor(unit, 0.0)
        if self.ridge > 0 or bool(xp.any(NEAR * xp.sum(factor**2, axis=0) > 1)):
            self.ridge = inverse_factor(unit, RIDGE)[1]
        self.problem = unit.damped(self.ridge)
        self.pivots = 1 / xp.sum(inverse_factor(unit, GUESS)[0] ** 2, axis=0)
        self.pattern, self.group = pattern, pattern.group if isinstance(pattern, NM) else 0
        self.weights, self.mask = as_floating(start, like=unit.anchor) * self.scale * alive, start != 0
        gain = self.problem.gradient(self.weights) ** 2 / self.pivots
        chosen = pattern.select(xp.where(self.mask, full((1, 1), float("inf"), gain), gain)) & (gain > 0) & ~self.mask
        if bool(xp.any(chosen)):  # the pattern admits more than the start keeps
            self.mask = self.mask | chosen
            self.weights = refit(self.problem, self.mask, start=self.weights).weights
        self.losses, self.worth = self.problem.row_losses(self.weights), xp.full_like(self.weights, float("nan"))
        self.tolerance = HELP * self.losses + (ROUNDING + self.ridge) * self.problem.at_zero[0]
        (rows, width), group = problem.shape, self.group or 1
        self.narrow, self.wide = (min(width, max(group, count // group * group)) for count in (candidates, widest))
        self.going, self.rest = np.ones(rows, dtype=bool), np.zeros(rows, dtype=bool)
        self.width, self.limit = np.full(rows, self.narrow), np.full(rows, width)
        self.whole = isinstance(pattern, TopK) and not pattern.per_row
        self.exchanges, self.shifts, self.most_shifts = 0.0, 0.0, SHIFTS

    def exchange(self) -> bool:
        """Make one round within rows, and return whether another may find more."""
        order = np.flatnonzero(self.going)
        if order.size == 0:
            return False
        xp = namespace(self.weights)
        gradient = self.problem.gradient(self.weights)
        kept = to_numpy(xp.sum(xp.astype(self.mask, xp.int64), axis=1))
        order = order[np.lexsort((-kept[order], -self.width[order]))]
        width, counts, parts = self.width[order], list[int](), []
        while len(counts) < order.size:
            first = order[len(counts)]
            batch = order[len(counts) :][: max(1, BATCH_BYTES // (24 * int(kept[first] + self.width[first]) ** 2))]
            batch = batch[self.width[batch] == self.width[first]]
            rows = xp.asarray(batch, device=device(gradient))
            given = [xp.take(array, rows, axis=0) for array in (self.weights, self.mask, gradient, self.tolerance)]
            *part, made = self.search(given[0], given[1], given[2], given[3], self.limit[batch], int(self.width[first]))
            parts.append(part)
            counts.extend(made)
        weights, mask, worth = (xp.concat(arrays) for arrays in zip(*parts))
        made, index = np.array(counts), xp.asarray(order, device=device(weights))
        losses = self.problem.rows(index).row_losses(weights)
        quiet = (made == 0) & to_numpy(xp.isfinite(losses))
        accepted = quiet | to_numpy(losses < xp.take(self.losses, index, axis=0))
        self.place(order, accepted, weights, mask, losses, worth)
        self.exchanges += float(np.sum(made[accepted]))
        self.rest[order] = quiet & (width == self.problem.shape[1])
        self.limit[order] = np.where(accepted, self.problem.shape[1], made // 2)
        self.going[order] = np.where(quiet, width < self.wide, self.limit[order] > 0)
        self.width[order] = np.where(quiet, np.minimum(2 * width, self.wide), width)
        return bool(np.any(self.going))

    def search(
        self, weights: Array, mask: Array, gradient: Array, tolerance: Array, limit: np.ndarray, width: int
    ) -> tuple[Array, Array, Array, np.ndarray]:
        """Return weights, masks and worth (b, p) of some rows after the exchanges found in them.

        Return also how many these were (b,).
        """
        xp = namespace(weights)
        chosen = self.choose(weights, mask, gradient, width)
        spots = xp.argsort(xp.astype(~chosen, xp.int8), axis=1, stable=True)[:, :width]
        size = max(1, int(xp.max(xp.sum(xp.astype(mask, xp.int64), axis=1))))
        kept = xp.argsort(xp.astype(~mask, xp.int8), axis=1, stable=True)[:, :size]  # pruned ones fill up short rows
        filled = xp.take_along_axis(mask, kept, axis=1)
        matrices = principals(self.problem.gram, xp.concat([kept, spots], axis=1))
        identity = xp.eye(size, dtype=weights.dtype, device=device(weights))[None, :, :]
        inner = xp.where(filled[:, :, None] & filled[:, None, :], matrices[:, :size, :size], identity)
        inside = xp.take_along_axis(mask, spots, axis=1)
        same = xp.astype(kept[:, :, None] == spots[:, None, :], weights.dtype)
        columns = xp.where(inside[:, None, :], same, matrices[:, :size, size:])
        columns = xp.concat([columns, xp.take_along_axis(gradient, kept, axis=1)[:, :, None]], axis=2)
        columns = columns * xp.astype(filled, weights.dtype)[:, :, None]
        solved, positive = solve_positive(copied(inner), columns)
        solved = xp.where(positive[:, None, None], solved, full((1, 1, 1), float("nan"), solved))  # to be refused
        product = xp.matrix_transpose(columns[:, :, :-1]) @ solved
        pruned = xp.astype(~inside, weights.dtype)
        sign = 2 * pruned - 1
        table = matrices[:, size:, size:] * pruned[:, :, None] * pruned[:, None, :]
        table = table - sign[:, :, None] * sign[:, None, :] * product[:, :, :-1]
        values = xp.take_along_axis(xp.where(mask, weights, gradient), spots, axis=1) - product[:, :, -1]
        after, made = Tableau(table, sign * values, inside).improved(self.group or width, tolerance, limit)
        # pivots on a block move all values outside it by the block's columns times what its own values turned into
        turned = xp.where(after.kept == inside, xp.zeros_like(values), after.values)
        moved = (solved[:, :, :-1] @ turned[:, :, None] - solved[:, :, -1:])[:, :, 0]
        now = xp.where(chosen, spread(xp.astype(after.kept, weights.dtype), chosen) > 0, mask)
        moved = xp.where(chosen & ~mask, -spread(after.values, chosen), weights + spread(moved, mask))
        worth = xp.where(chosen, spread(after.worth, chosen), full((1, 1), float("nan"), weights))
        return moved * xp.astype(now, weights.dtype), now, worth, made

    def choose(self, weights: Array, mask: Array, gradient: Array, width: int) -> Array:
        """Return the mask of the `width` channels of every row that an exchange is likeliest among."""
        xp = namespace(weights)
        infinity = full((1, 1), float("inf"), weights)
        cost = xp.where(mask, weights**2 * self.pivots, infinity)
        gain = xp.where(mask, -infinity, gradient**2 / self.pivots)
        if self.group:  # whole groups, by their best exchange
            shape = (weights.shape[0], -1, self.group)
            score = xp.max(xp.reshape(gain, shape), axis=2) - xp.min(xp.reshape(cost, shape), axis=2)
            best = ranked(-score) < width // self.group
            return xp.reshape(xp.broadcast_to(best[:, :, None], (*best.shape, self.group)), weights.shape)
        return ranked(xp.where(mask, ranked(cost), ranked(-gain))) < width  # as many of either kind, while there are

    def helpful_shifts(self) -> list[tuple[int, int, int, int]]:
        """Return shifts between rows that gain, by what is known; there are none where counts hold per row or group."""
        return best_shifts(*(to_numpy(a) for a in (self.worth, self.mask, self.tolerance))) if self.whole else []

    def shift(self) -> bool:
        """Make one round between rows, and return whether another may find more."""
        pairs = self.helpful_shifts()[: self.most_shifts]
        if not pairs:
            return False
        xp = namespace(self.weights)
        rows, mask = np.unique([(giver, taker) for giver, _, taker, _ in pairs]), np.array(to_numpy(self.mask))
        for giver, dropped, taker, added in pairs:
            mask[giver, dropped], mask[taker, added] = False, True
        index, trial = (xp.asarray(array, device=device(self.weights)) for array in (rows, mask[rows]))
        part = self.problem.rows(index)
        weights = refit(part, trial).weights
        losses = part.row_losses(weights)
        if not float(xp.sum(losses)) < float(xp.sum(xp.take(self.losses, index, axis=0))):
            self.most_shifts = len(pairs) // 2
            return self.most_shifts > 0
        self.place(rows, rows >= 0, weights, trial, losses, xp.full_like(weights, float("nan")))
        self.shifts, self.most_shifts = self.shifts + len(pairs), 2 * len(pairs)
        self.going[rows], self.rest[rows], self.width[rows], self.limit[rows] = True, False, self.narrow, mask.shape[1]
        return True

    def place(self, rows: np.ndarray, accepted: np.ndarray, *values: Array) -> None:
        """Give those of `rows` that are accepted their new weights, mask, losses and worth."""
        xp = namespace(self.weights)
        source = np.full(self.problem.shape[0], -1)
        source[rows[accepted]] = np.flatnonzero(accepted)
        index, new = (xp.asarray(array, device=device(self.weights)) for array in (np.maximum(source, 0), source >= 0))
        for name, array in zip(("weights", "mask", "losses", "worth"), values):
            chosen = new[:, None] if array.ndim > 1 else new
            setattr(self, name, xp.where(chosen, xp.take(array, index, axis=0), getattr(self, name)))
        self.tolerance = HELP * self.losses + (ROUNDING + self.ridge) * self.problem.at_zero[0]


@dataclass(frozen=True, eq=False)
class Tableau:
    """[-A, B; B^T, S] on c kept and pruned channels in each of b rows (b, c, c), values (-v, g) and kept (b, c).

    A = G_KK^-1, B = A G_KP, S = G_PP - G_PK A G_KP, of which the table has the part of these channels; v are the refitted
    weights, g the gradient. That is the Gram after Gauss-Jordan pivots on K (the sweep operator of regression). A further
    pivot adds a channel or drops it, and changes the loss by -value^2 / (2 pivot).
    """

    table: Array
    values: Array
    kept: Array

    @property
    def worth(self) -> Array:
        """Return what dropping a kept channel costs, and what adding a pruned one gains, (b, c)."""
        xp = namespace(self.table)
        pivots = xp.abs(xp.linalg.diagonal(self.table))
        return 0.5 * self.values**2 / xp.where(pivots > NEAR, pivots, full((1, 1), float("inf"), pivots))

    def improved(self, group: int, tolerance: Array, limit: np.ndarray) -> tuple[Tableau, np.ndarray]:
        """Return the tableau after the best exchanges within groups of neighbours, and how many every row made.

        A row ends when none gains more than `tolerance`, or when `limit` is reached, (b,) each.
        """
        xp = namespace(self.table)
        left, made = np.arange(limit.size), np.zeros(limit.size, dtype=np.int64)
        current, parts, ends = self, [], []
        while left.size:
            change, added, dropped = current.best(group)
            going = to_numpy(change < -tolerance) & (made[left] < limit[left])
            if not np.all(going):
                stay, ended = (xp.asarray(np.flatnonzero(rows), device=device(tolerance)) for rows in (going, ~going))
                parts.append(current.take(ended))
                ends.append(left[~going])
                current, left = current.take(stay), left[going]
                added, dropped, tolerance = (xp.take(array, stay, axis=0) for array in (added, dropped, tolerance))
            if left.size:
                current = current.exchanged(added, dropped)
                made[left] += 1
        order = xp.asarray(np.argsort(np.concatenate(ends)), device=device(self.table))
        return Tableau(*(xp.concat([getattr(p, n) for p in parts]) for n in ("table", "values", "kept"))).take(order), made

    def take(self, rows: Array) -> Tableau:
        """Return the tableau of some rows."""
        return Tableau(*(namespace(rows).take(array, rows, axis=0) for array in (self.table, self.values, self.kept)))

    def best(self, group: int) -> tuple[Array, Array, Array]:
        """Return the change of the loss by the best exchange of every row, the channel it adds and the one it drops, (b,) each.

        Without j the value of a pruned i is r_i - T_ij r_j / T_jj and its pivot T_ii - T_ij^2 / T_jj.
        """
        xp = namespace(self.table)
        count, width = self.values.shape
        groups = width // group
        table = xp.permute_dims(xp.reshape(self.table, (count, groups, group, groups, group)), (0, 2, 4, 1, 3))
        table = xp.linalg.diagonal(table)  # (b, m, m, groups): channels of one group
        lists = (xp.linalg.diagonal(self.table), self.values, self.kept)
        pivots, values, kept = (xp.permute_dims(xp.reshape(array, (count, groups, group)), (0, 2, 1)) for array in lists)
        one, zero, infinity = (full((1, 1, 1), value, values) for value in (1.0, 0.0, float("inf")))
        inverse = xp.where(kept, 1 / xp.where(kept, pivots, one), zero)
        cost = xp.where(kept, -(values**2) * inverse, infinity)
        value = values[:, :, None, :] - table * (values * inverse)[:, None, :, :]
        pivot = xp.where(kept, one, pivots)[:, :, None, :] - table**2 * inverse[:, None, :, :]
        change = cost[:, None, :, :] - value**2 / xp.where(pivot > NEAR, pivot, infinity)
        change = xp.reshape(0.5 * change + xp.where(kept, infinity, zero)[:, :, None, :], (count, -1))
        best = xp.argmin(change, axis=1)
        pair, first = best // groups, best % groups * group
        return xp.min(change, axis=1), first + pair // group, first + pair % group

    def exchanged(self, added: Array, dropped: Array) -> Tableau:
        """Return the tableau after a pivot on both channels F of every row at once.

        With U = T_:F and D = T_FF, rows and columns F become U D^-1 with the signs of F (-1 for the dropped), F itself -D^-1
        with both, and all others T - U D^-1 U^T.
        """
        xp = namespace(self.table)
        places = xp.arange(self.values.shape[1], device=device(self.values))
        spots = places[None, :, None] == xp.stack([added, dropped], axis=1)[:, None, :]
        unit = xp.astype(spots, self.table.dtype)  # (b, c, 2)
        columns = self.table @ unit
        inner = xp.matrix_transpose(unit) @ columns
        others = columns - unit @ inner
        signed = others - unit * xp.asarray([1.0, -1.0], dtype=self.table.dtype, device=device(self.table))
        ratio = signed @ xp.linalg.inv(inner)
        left, right = xp.concat([unit, columns, ratio], axis=2), xp.concat([others, unit, signed], axis=2)
        values = self.values - ((unit + ratio) @ (xp.matrix_transpose(unit) @ self.values[:, :, None]))[:, :, 0]
        kept = (self.kept | spots[:, :, 0]) & ~spots[:, :, 1]
        return Tableau(self.table - left @ xp.matrix_transpose(right), values, kept)


def best_shifts(worth: np.ndarray, mask: np.ndarray, tolerance: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Return (row that gives, channel it drops, row that takes, channel it adds), the best first, while they gain.

    Each row takes part once, for worth is that of a single change.
    """
    known = ~np.isnan(worth)
    cost, gain = np.where(mask & known, worth, np.inf), np.where(~mask & known, worth, 0.0)
    dropped, added = np.argmin(cost, axis=1), np.argmax(gain, axis=1)
    cost, gain = np.min(cost, axis=1) + tolerance, np.max(gain, axis=1) - tolerance
    givers, takers = np.argsort(cost, kind="stable")[:SHIFTS], np.argsort(-gain, kind="stable")[:SHIFTS]
    net, pairs, used = gain[None, takers] - cost[givers, None], [], set[int]()
    for index in np.argsort(-net, axis=None, kind="stable")[: np.sum(net > 0)]:
        giver, taker = int(givers[index // takers.size]), int(takers[index % takers.size])
        if giver != taker and not used & {giver, taker}:
            pairs.append((giver, int(dropped[giver]), taker, int(added[taker])))
            used |= {giver, taker}
    return pairs


def ranked(score: Array) -> Array:
    """Return the place of every entry in the order of its row, the least first."""
    xp = namespace(score)
    return xp.argsort(xp.argsort(score, axis=1, stable=True), axis=1, stable=True)
