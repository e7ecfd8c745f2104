"""Local search over supports: kept weights exchanged for pruned ones wherever the loss falls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gramian.solvers._xp import Array, as_floating, device, full, namespace, principal, solve_positive, to_numpy
from gramian.solvers.obs import inverse_factor
from gramian.solvers.patterns import NM, Pattern, TopK
from gramian.solvers.problem import Quadratic
from gramian.solvers.restricted import BATCH_BYTES, refit, spread
from gramian.solvers.solution import Solution, Status

__all__ = ["exchange_weights"]

RIDGE = 1e-10  # of the unit-diagonal Gram, under the search alone: every inverse then exists
GUESS = 0.01  # of the unit-diagonal Gram, in the pivots that stand for scores of channels that do not take part
HELP = 1e-6  # of a row's loss: a smaller gain is none
ROUNDING = 1e-12  # of a row's loss at zero: likewise
SPARE = 1e-9  # part of a channel that the kept ones cannot make up for, below which it has nothing to add
SHIFTS = 8  # weights that a row gives to others, or takes from them, in one round


def exchange_weights(
    problem: Quadratic, pattern: Pattern, start: Array, *, rounds: int = 12, candidates: int = 64, widest: int = 128
) -> Solution:
    """A V that no exchange of one kept weight for one pruned one improves, or the way there: local search for
    `min_V f(V) subject to V satisfying the pattern` from the support of any method's answer, refitted at every step.

    start: weights (q, p) that satisfy the pattern. Where they keep fewer than it admits, the support is filled up first.
    The loss never rises: it is at most that of `start` and of the refit on its support.

    With K the kept channels of a row and A = G_KK^-1, dropping j and refitting the others costs v_j^2 / (2 A_jj), and
    adding i gains g_i^2 / (2 S_i), S_i = G_ii - G_iK A G_Ki, g the gradient. `Tableau` holds these figures for `candidates`
    channels of a row, those of the least and largest scores with 1 / ((G + D)^-1)_jj in place of 1 / A_jj and S_i, so
    that exchanges among them, best first, cost no factorisation: a round is one factorisation of every row and one product
    `V G`. A row keeps what it found if its loss, computed anew, falls; else half as many exchanges are tried. A row in which
    none helps is searched again with twice the candidates, up to `widest`, and is then at rest.

    Exchanges stay within a row, and within a group for n:m. For a count over the whole matrix, weights are also moved from
    rows where they cost least to rows where they gain most, if the loss of all rows concerned falls.

    detail: exchanges and shifts made; rows_at_rest, in which no exchange helps of all there are (none can be proven so if
    widest < p); swap_optimal, 1 if that is every row and no shift helps either. "Helps" means by more than 1e-6 of the
    row's loss. history: (round, relative error). Raises ValueError for a start of another shape or off the pattern.
    """
    if rounds < 0 or candidates < 2 or widest < candidates:
        raise ValueError(f"need rounds >= 0 and 2 <= candidates <= widest but got {rounds}, {candidates} and {widest}")
    pattern.check(problem.shape)
    xp = namespace(problem.anchor, start)
    if tuple(start.shape) != problem.shape or not pattern.admits(start != 0):
        raise ValueError(f"the start must be {problem.shape} and satisfy {pattern}; it is {tuple(start.shape)}")
    first = refit(problem, start != 0, start=start)
    walk = Walk(problem.double, pattern, first.weights, candidates, widest)
    history = [(0, first.certificate.relative_error)]
    for step in range(rounds):
        if not walk.exchange() | walk.shift():
            break
        history.append((step + 1, problem.double.relative_error(walk.weights / walk.scale)))
    last = refit(problem, walk.mask, start=as_floating(walk.weights / walk.scale, like=problem.anchor))
    best = last if last.certificate.objective < first.certificate.objective else first
    detail = best.detail | {
        "exchanges": float(walk.exchanges),
        "shifts": float(walk.shifts),
        "rows_at_rest": float(np.sum(walk.rest)),
        "swap_optimal": float(best is last and np.all(walk.rest) and not walk.shifting),
    }
    return Solution(best.weights, Status.SEARCHED, best.certificate, len(history) - 1, tuple(history), detail)


class Walk:
    """Where the search stands, in unit-diagonal coordinates and float64.

    mask, weights: (q, p), weights refitted on the mask. worth: (q, p), what dropping a kept weight costs, what adding a
    pruned one gains; infinite or zero where it is not known. Per row: losses, and on the host: going, whether it is
    searched in the next round; rest, whether it is proven that no exchange helps; width, how many candidates; limit, how
    many exchanges.
    """

    def __init__(self, problem: Quadratic, pattern: Pattern, start: Array, candidates: int, widest: int) -> None:
        xp = namespace(problem.anchor)
        unit, self.scale = problem.rescaled()
        alive = xp.astype(problem.diagonal > 0, xp.float64)  # a dead channel has neither cost nor gain if its weight is 0
        _, ridge = inverse_factor(unit, RIDGE)
        ridge *= float(xp.mean(unit.diagonal)) or 1.0
        self.problem = Quadratic(unit.gram, unit.anchor * alive, unit.slope, unit.floor, trusted=True).damped(ridge)
        factor, _ = inverse_factor(unit, GUESS)
        self.pivots = 1 / xp.sum(factor * factor, axis=0)
        self.pattern = pattern
        self.weights = as_floating(start, like=problem.anchor) * self.scale * alive
        self.fill(start != 0)
        self.losses = self.problem.row_losses(self.weights)
        self.worth = unknown(self.mask)
        rows, width = problem.shape
        group = pattern.group if isinstance(pattern, NM) else 1
        self.narrow, self.wide = (min(width, max(1, count // group) * group) for count in (candidates, widest))
        self.going, self.rest = np.ones(rows, dtype=bool), np.zeros(rows, dtype=bool)
        self.width, self.limit = np.full(rows, self.narrow), np.full(rows, width)
        self.exchanges = self.shifts = 0
        self.shifting = isinstance(pattern, TopK) and not pattern.per_row  # until no shift helps
        self.most_shifts = rows * SHIFTS

    def fill(self, mask: Array) -> None:
        """Take what the pattern admits beyond a mask: those that gain most."""
        xp = namespace(mask)
        gain = self.problem.gradient(self.weights) ** 2 / self.pivots
        chosen = self.pattern.select(xp.where(mask, full((1, 1), float("inf"), gain), gain))
        self.mask = mask | (chosen & (gain > 0))
        if bool(xp.any(self.mask & ~mask)):
            self.weights = refit(self.problem, self.mask, start=self.weights).weights

    @property
    def tolerance(self) -> Array:
        """What an exchange must gain, per row."""
        return HELP * self.losses + ROUNDING * self.problem.at_zero[0]

    def exchange(self) -> bool:
        """One round within rows; whether another may find more."""
        order = np.flatnonzero(self.going)
        if order.size == 0:
            return False
        xp = namespace(self.weights)
        gradient, tolerance = self.problem.gradient(self.weights), self.tolerance
        kept = to_numpy(xp.sum(xp.astype(self.mask, xp.int64), axis=1))
        order = order[np.lexsort((-kept[order], -self.width[order]))]
        parts, begin = [], 0
        while begin < order.size:
            width = int(self.width[order[begin]])
            together = max(1, BATCH_BYTES // (24 * (int(kept[order[begin]]) + width) ** 2))
            batch = order[begin : begin + together]
            batch = batch[self.width[batch] == width]
            rows = xp.asarray(batch, device=device(self.weights))
            given = (xp.take(array, rows, axis=0) for array in (self.weights, self.mask, gradient, tolerance))
            parts.append(self.search(*given, width, self.limit[batch]))
            begin += batch.size
        weights, mask, worth = (xp.concat([part[k] for part in parts]) for k in range(3))
        made = np.concatenate([part[3] for part in parts])
        losses = self.problem.rows(xp.asarray(order, device=device(weights))).row_losses(weights)
        lower = to_numpy(losses < xp.take(self.losses, xp.asarray(order, device=device(weights)), axis=0))
        found, none, refused = order[lower & (made > 0)], order[made == 0], order[~lower & (made > 0)]
        better = np.flatnonzero(lower & (made > 0))
        settled = np.flatnonzero(lower & (made > 0) | (made == 0))  # of these rows the worth is that of their weights
        self.weights, self.mask = (placed(a, found, b, better) for a, b in ((self.weights, weights), (self.mask, mask)))
        self.losses = placed(self.losses, found, losses, better)
        self.worth = placed(self.worth, order[settled], worth, settled)
        self.exchanges += int(np.sum(made[better]))
        self.limit[found] = self.problem.shape[1]
        self.limit[refused] = made[~lower & (made > 0)] // 2
        self.rest[none] = self.width[none] >= self.problem.shape[1]
        self.going[none] = self.width[none] < self.wide
        self.going[refused] = self.limit[refused] > 0
        self.width[none] = np.minimum(2 * self.width[none], self.wide)
        return bool(np.any(self.going))

    def search(
        self, weights: Array, mask: Array, gradient: Array, tolerance: Array, width: int, limit: np.ndarray
    ) -> tuple[Array, Array, Array, np.ndarray]:
        """Weights, masks and worth (b, p) of some rows after the exchanges found in them, and how many these were (b,)."""
        xp = namespace(weights)
        chosen = self.choose(weights, mask, gradient, width)
        spots = xp.argsort(xp.astype(~chosen, xp.int8), axis=1, stable=True)[:, :width]
        size = max(1, int(xp.max(xp.sum(xp.astype(mask, xp.int64), axis=1))))
        kept = xp.argsort(xp.astype(~mask, xp.int8), axis=1, stable=True)[:, :size]  # pruned ones fill up short rows
        filled = xp.take_along_axis(mask, kept, axis=1)
        matrices = principal(self.problem.gram, xp.concat([kept, spots], axis=1))
        identity = xp.eye(size, dtype=weights.dtype, device=device(weights))
        inner = xp.where(filled[:, :, None] & filled[:, None, :], matrices[:, :size, :size], identity[None, :, :])
        inside = xp.take_along_axis(mask, spots, axis=1)
        same = xp.astype(kept[:, :, None] == spots[:, None, :], weights.dtype)
        columns = xp.where(inside[:, None, :], same, matrices[:, :size, size:])
        columns = columns * xp.astype(filled, weights.dtype)[:, :, None]
        right = xp.take_along_axis(gradient, kept, axis=1) * xp.astype(filled, weights.dtype)
        solved, positive = solve_positive(xp.asarray(inner, copy=True), xp.concat([columns, right[:, :, None]], axis=2))
        sign = 1 - 2 * xp.astype(inside, weights.dtype)  # -1 for the kept
        product = xp.matrix_transpose(columns) @ solved
        pruned = xp.astype(~inside, weights.dtype)
        table = matrices[:, size:, size:] * pruned[:, :, None] * pruned[:, None, :]
        table = table - sign[:, :, None] * sign[:, None, :] * product[:, :, :-1]
        present = xp.where(inside, xp.take_along_axis(weights, spots, axis=1), xp.take_along_axis(gradient, spots, axis=1))
        values = sign * (present - product[:, :, -1])
        before = Tableau(table, values, inside)
        group = self.pattern.group if isinstance(self.pattern, NM) else width
        after, made = before.improved(group, tolerance, np.where(to_numpy(positive), limit, 0))
        # a block of the tableau moves the values outside it by what its own turned into
        turned = xp.where(after.kept == inside, xp.zeros_like(values), xp.where(inside, -after.values, after.values))
        moved = xp.take_along_axis(weights, kept, axis=1) - solved[:, :, -1]
        moved = spread(moved + (solved[:, :, :-1] @ (sign * turned)[:, :, None])[:, :, 0], mask)
        now = xp.where(chosen, spread(xp.astype(after.kept, weights.dtype), chosen) > 0, mask)
        moved = xp.where(chosen & ~mask, -spread(after.values, chosen), moved) * xp.astype(now, weights.dtype)
        worth = xp.where(chosen, spread(after.worth, chosen), unknown(now))
        return moved, now, worth, made

    def choose(self, weights: Array, mask: Array, gradient: Array, width: int) -> Array:
        """Mask of the `width` channels of a row that an exchange is likeliest among, by pivots in place of exact scores."""
        xp = namespace(weights)
        infinity = full((1, 1), float("inf"), weights)
        cost = xp.where(mask, weights**2 * self.pivots, infinity)
        gain = xp.where(mask, -infinity, gradient**2 / self.pivots)
        if isinstance(self.pattern, NM):  # whole groups, by their best exchange
            group = self.pattern.group
            shape = (weights.shape[0], -1, group)
            score = xp.max(xp.reshape(gain, shape), axis=2) - xp.min(xp.reshape(cost, shape), axis=2)
            best = ranked(-score) < width // group
            return xp.reshape(xp.broadcast_to(best[:, :, None], (*best.shape, group)), weights.shape)
        return ranked(xp.where(mask, ranked(cost), ranked(-gain))) < width  # as many of either kind, while there are

    def shift(self) -> bool:
        """Weights moved between rows, for a count over the whole matrix; whether another round may find more."""
        if not self.shifting:
            return False
        xp = namespace(self.weights)
        pairs = cheapest_shifts(to_numpy(self.worth), to_numpy(self.mask), to_numpy(self.tolerance))[: self.most_shifts]
        self.shifting = bool(pairs) or bool(np.any(self.going))
        if not pairs:
            return False
        rows = np.unique([row for giver, _, taker, _ in pairs for row in (giver, taker)])
        mask = np.array(to_numpy(self.mask))
        for giver, dropped, taker, added in pairs:
            mask[giver, dropped], mask[taker, added] = False, True
        index = xp.asarray(rows, device=device(self.weights))
        part, trial = self.problem.rows(index), xp.asarray(mask[rows], device=device(self.weights))
        weights = refit(part, trial).weights
        losses = part.row_losses(weights)
        if float(xp.sum(losses)) >= float(xp.sum(xp.take(self.losses, index, axis=0))):
            self.most_shifts = len(pairs) // 2
            self.shifting = self.most_shifts > 0
            return self.shifting
        every = np.arange(rows.size)
        self.weights, self.mask = placed(self.weights, rows, weights, every), placed(self.mask, rows, trial, every)
        self.losses, self.worth = placed(self.losses, rows, losses, every), placed(self.worth, rows, unknown(trial), every)
        self.shifts += len(pairs)
        self.going[rows], self.rest[rows], self.width[rows] = True, False, self.narrow
        self.limit[rows], self.most_shifts = self.problem.shape[1], 2 * len(pairs)
        return True


@dataclass(frozen=True, eq=False)
class Tableau:
    """The state of c channels in each of b rows: [-A, B; B^T, S] for kept and pruned ones, and the values (-v, g).

    kept: boolean (b, c). A = (G_KK)^-1, B = A G_KP, S = G_PP - G_PK A G_KP, restricted to these channels (b, c, c); v the
    refitted weights, g the gradient (b, c). It is what Gauss-Jordan pivots on K make of the Gram (the sweep of regression):
    one more pivot changes the loss by -value^2 / (2 pivot), and adds or drops the channel.
    """

    table: Array
    values: Array
    kept: Array

    @property
    def worth(self) -> Array:
        """What dropping a kept channel costs, what adding a pruned one gains; (b, c)."""
        xp = namespace(self.table)
        pivots = xp.abs(xp.linalg.diagonal(self.table))
        known = pivots > SPARE
        gains = 0.5 * self.values**2 / xp.where(known, pivots, xp.ones_like(pivots))
        return xp.where(known, gains, xp.zeros_like(gains))

    def improved(self, group: int, tolerance: Array, limit: np.ndarray) -> tuple[Tableau, np.ndarray]:
        """After the best exchange within groups of so many neighbours, and so on until none gains more than `tolerance` or
        `limit` is reached, (b,) each; and how many each row made."""
        xp = namespace(self.table)
        left, made = np.arange(limit.size), np.zeros(limit.size, dtype=np.int64)
        current, parts, ends = self, [], []
        while left.size:
            change, added, dropped = current.best(group)
            stop = ~to_numpy(change < -tolerance) | (made[left] >= limit[left])
            if np.any(stop):
                ended, going = (xp.asarray(np.flatnonzero(s), device=device(tolerance)) for s in (stop, ~stop))
                parts.append(current.take(ended))
                ends.append(left[stop])
                current, left = current.take(going), left[~stop]
                added, dropped, tolerance = (xp.take(array, going, axis=0) for array in (added, dropped, tolerance))
            if left.size:
                current = current.exchanged(added, dropped)
                made[left] += 1
        order = xp.asarray(np.argsort(np.concatenate(ends)), device=device(self.table))
        table, values, kept = (xp.concat([getattr(p, n) for p in parts]) for n in ("table", "values", "kept"))
        return Tableau(table, values, kept).take(order), made

    def take(self, rows: Array) -> Tableau:
        xp = namespace(self.table)
        return Tableau(*(xp.take(array, rows, axis=0) for array in (self.table, self.values, self.kept)))

    def best(self, group: int) -> tuple[Array, Array, Array]:
        """Change of the loss by the best exchange of every row, the channel it adds and the one it drops; (b,) each.

        Dropping j leaves r_i - T_ij r_j / T_jj of the value and T_ii - T_ij^2 / T_jj of the pivot of every i.
        """
        xp = namespace(self.table)
        count, width = self.values.shape
        groups = width // group
        table = xp.permute_dims(xp.reshape(self.table, (count, groups, group, groups, group)), (0, 2, 4, 1, 3))
        table = xp.linalg.diagonal(table)  # (b, m, m, groups): only within groups
        pivots, values, kept = (
            xp.permute_dims(xp.reshape(array, (count, groups, group)), (0, 2, 1))
            for array in (xp.linalg.diagonal(self.table), self.values, self.kept)
        )
        one, zero, infinity = (full((1, 1, 1), value, values) for value in (1.0, 0.0, float("inf")))
        inverse = xp.where(kept, 1 / xp.where(kept, pivots, one), zero)
        cost = xp.where(kept, -(values**2) * inverse, infinity)
        barrier = xp.where(kept, infinity, zero)
        value = values[:, :, None, :] - table * (values * inverse)[:, None, :, :]
        pivot = xp.where(kept, one, pivots)[:, :, None, :] - table**2 * inverse[:, None, :, :]
        gain = value**2 / xp.where(pivot > SPARE, pivot, infinity)
        change = xp.reshape(0.5 * (cost[:, None, :, :] - gain) + barrier[:, :, None, :], (count, -1))
        best = xp.argmin(change, axis=1)
        place, where = best // groups, best % groups
        least = xp.take_along_axis(change, best[:, None], axis=1)[:, 0]
        return least, where * group + place // group, where * group + place % group

    def exchanged(self, added: Array, dropped: Array) -> Tableau:
        """After a pivot on both channels F of every row at once. With U = T_:F and D = T_FF, rows and columns F become
        U D^-1 with the signs of F (-1 for the dropped), F itself -D^-1 with both, all others T - U D^-1 U^T."""
        xp = namespace(self.table)
        places = xp.arange(self.values.shape[1], device=device(self.values))[None, :, None]
        both = xp.stack([added, dropped], axis=1)
        spots = places == both[:, None, :]
        unit = xp.astype(spots, self.table.dtype)  # (b, c, 2)
        columns = self.table @ unit
        inner = xp.matrix_transpose(unit) @ columns
        others = columns - unit @ inner
        signed = others - unit * xp.asarray([1.0, -1.0], dtype=self.table.dtype, device=device(self.table))
        ratio = signed @ xp.linalg.inv(inner)
        left, right = xp.concat([unit, columns, ratio], axis=2), xp.concat([others, unit, signed], axis=2)
        own = xp.matrix_transpose(unit) @ self.values[:, :, None]
        values = self.values - ((unit + ratio) @ own)[:, :, 0]
        kept = (self.kept | spots[:, :, 0]) & ~spots[:, :, 1]
        return Tableau(self.table - left @ xp.matrix_transpose(right), values, kept)


def cheapest_shifts(worth: np.ndarray, mask: np.ndarray, tolerance: np.ndarray) -> list[tuple[int, int, int, int]]:
    """(giving row, channel dropped, taking row, channel added), best first, none of which gains less than it costs; at most
    SHIFTS per row, and no row gives and takes: scores hold for one change of a row, and others of its kind add up well."""
    costs, gains = np.where(mask, worth, np.inf), np.where(mask, 0.0, worth)
    givers, takers = ([], [])
    for entries, scores, largest in ((givers, costs, False), (takers, -gains, True)):
        chosen = np.argsort(scores, axis=1, kind="stable")[:, :SHIFTS]
        for row, channel in np.ndindex(chosen.shape):
            entries.append((float(scores[row, chosen[row, channel]]), row, int(chosen[row, channel])))
        entries.sort()
    pairs, role = [], np.zeros(len(mask), dtype=int)  # 1 gives, -1 takes
    return pairs


def unknown(mask: Array) -> Array:
    """The worth of weights of which nothing is known: too much to be dropped, too little to be added."""
    zero = namespace(mask).astype(mask, namespace(mask).float64)
    return namespace(mask).where(mask, zero + float("inf"), zero)


def ranked(score: Array) -> Array:
    """Place of every entry in the order of its row, the least first."""
    xp = namespace(score)
    return xp.argsort(xp.argsort(score, axis=1, stable=True), axis=1, stable=True)


def placed(array: Array, rows: np.ndarray, values: Array, which: np.ndarray) -> Array:
    """`array` with `values[which]` as its `rows`."""
    if rows.size == 0:
        return array
    xp = namespace(array, values)
    source = np.full(array.shape[0], -1)
    source[rows] = which
    index = xp.asarray(np.maximum(source, 0), device=device(array))
    new = xp.asarray(source >= 0, device=device(array))
    return xp.where(xp.reshape(new, (-1, *[1] * (array.ndim - 1))), xp.take(values, index, axis=0), array)
