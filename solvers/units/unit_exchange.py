"""Local search over channels or heads to keep, all weights refitted: kept units exchanged for removed ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gramian.solvers.backend._xp import Array, copied, device, namespace, to_numpy
from gramian.solvers.backend.computing import computation
from gramian.solvers.backend.given import given
from gramian.solvers.backend.options import whole
from gramian.solvers.backend.printed import kept
from gramian.solvers.core.certificate import Certificate
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Solution, Status
from gramian.solvers.core.watch import Callback, Watch, watched
from gramian.solvers.direct.factorised import BATCH_BYTES
from gramian.solvers.direct.restricted import refit
from gramian.solvers.support.exchange import HELP, NEAR, RIDGE, ROUNDING
from gramian.solvers.support.obs import inverse_factor
from gramian.solvers.units.compensated import block_losses, factorised, times
from gramian.solvers.units.removal import channels_of, checked_mask, diagonal_blocks, unit_problem, unit_support

__all__ = ["UnitExchange", "exchange_units"]

BETWEEN = 64  # exchanges at most before the tableau is computed anew


@dataclass(frozen=True, eq=False)
class UnitExchange:
    """Hold a mask of units and the weights refitted on it.

    Parameters
    ----------
    mask : array (m,) of bool
        True = kept.
    solution : Solution
        The weights. Its detail: `exchanges` made; `swap_optimal`, 1 if no exchange of a kept unit for a removed one helps, by
        more than 1e-6 of the loss; `ridge` of the search.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import Quadratic, exchange_units
    >>> exchange_units(Quadratic(np.eye(2), np.array([[1.0, 4.0]])), np.array([True, False]))
    UnitExchange(1 of 2 units, Solution(1x2, searched, KKT residual 0, 50 % zeros))
    """

    mask: Array
    solution: Solution

    def __repr__(self) -> str:
        return f"UnitExchange({kept(self.mask)} units, {self.solution})"


@computation
def exchange_units(
    problem: Quadratic,
    mask: Array,
    groups: int | None = None,
    *,
    rounds: int = 10,
    throw: bool = False,
    time_limit: float | None = None,
    callback: Callback | None = None,
    progress: bool = False,
) -> UnitExchange:
    """argmin over masks of as many units of min_V f(V) subject to V = 0 off the mask, by local search

    While the loss falls, the best exchange of a kept unit j for a removed one i is made. With K the kept channels,
    A = G_KK^-1, v the refitted weights and g the gradient, dropping j and then adding i changes the loss by

        1/2 tr(v_j A_jj^-1 v_j^T) - 1/2 tr(g'_i S'_ii^-1 g'_i^T),   S'_ii = S_ii + B_ji^T A_jj^-1 B_ji,
        g'_i = g_i - v_j A_jj^-1 B_ji,   B = A G_KP,   S = G_PP - G_PK B.

    All units cost the same. The pivots of Gauss and Jordan carry A, B, S, v and g along for 64 exchanges, then they are
    computed anew; a round counts if the loss computed from its mask falls, else it takes half as many exchanges. The answer is
    never worse than the given mask, but for 1e-12 of f(0): masks that fit the data exactly differ by rounding alone, which must
    not choose among them. Where channels depend on each other the search puts a ridge on the change of v_j sqrt(G_jj), and
    gains up to this part of f(0) do not count.

    Parameters
    ----------
    problem : Quadratic
        f.
    mask : array (m,) of bool
        True = kept.
    groups : int, optional
        As many equal runs of consecutive channels (heads) are one unit each. None makes every channel a unit.
    rounds : int, default 10
        The most rounds.
    throw, time_limit, callback, progress : optional
        As of `solve`. Every round is a step, and a check, at which a callback costs a refit.

    Returns
    -------
    UnitExchange
        The mask, and the weights refitted on it: SEARCHED, TIME_LIMIT or STOPPED.

    Raises
    ------
    ValueError
        For a mask that does not fit, and for rounds < 0.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import Quadratic, exchange_units
    >>> found = exchange_units(Quadratic(np.eye(2), np.array([[1.0, 4.0]])), np.array([True, False]))
    >>> found.mask.tolist(), found.solution.weights.tolist()
    ([False, True], [[0.0, 4.0]])
    """
    rounds = whole("rounds", rounds, 0)
    with watched("exchange_units", rounds, "round", time_limit=time_limit, callback=callback, progress=progress) as watch:
        found = watched_exchanges(problem, mask, groups, rounds, watch)
    if throw:
        found.solution.required()
    return found


def watched_exchanges(problem: Quadratic, mask: Array, groups: int | None, rounds: int, watch: Watch) -> UnitExchange:
    """Do what `exchange_units` does, whose rounds are checked already, beside a watch."""
    work, size, alive = unit_problem(problem, groups)
    mask = checked_mask(given("mask", mask, problem.anchor), alive.size)
    xp = namespace(work.gram)
    factor, ridge = inverse_factor(work, 0.0)
    if ridge > 0 or bool(xp.any(NEAR * xp.sum(factor**2, axis=0) > 1)):
        ridge = inverse_factor(work, RIDGE)[1]
    work = work.damped(ridge)
    first = refit(problem, unit_support(mask, problem.shape))
    tableau, limit, made, still = Tableau(work, np.array(to_numpy(mask)), size), BETWEEN, 0, False

    def reached() -> tuple[Array, Certificate]:
        """Return the weights refitted on the mask that there is now."""
        solution = refit(problem, unit_support(xp.asarray(tableau.kept, device=device(work.gram)), problem.shape))
        return solution.weights, solution.certificate

    ended = watch.verdict(0, reached, over=rounds == 0)
    for step in range(rounds):
        if ended:
            break
        kept, loss = tableau.kept.copy(), tableau.loss
        taken = tableau.improve(limit, HELP * loss + (ROUNDING + ridge) * work.energy)
        still = taken == 0
        if still:
            break
        trial = Tableau(work, tableau.kept, size)
        accepted = trial.loss < loss
        tableau = trial if accepted else Tableau(work, kept, size)
        made, limit = (made + taken, BETWEEN) if accepted else (made, taken // 2)
        ended = watch.verdict(step + 1, reached, over=limit == 0 or step + 1 == rounds)
        if limit == 0:
            break
    chosen = xp.asarray(tableau.kept, device=device(work.gram))
    last = refit(problem, unit_support(chosen, problem.shape)) if made else first
    better = last.certificate.objective <= first.certificate.objective + ROUNDING * problem.double.energy
    best, chosen = (last, chosen) if better else (first, mask)
    made = made if better else 0
    detail = best.detail | {"exchanges": float(made), "swap_optimal": float(still and better), "ridge": ridge}
    return UnitExchange(chosen, Solution(best.weights, ended or Status.SEARCHED, best.certificate, made, (), detail))


class Tableau:
    """[-A, B; B^T, S] (p, p), the Gram after pivots on the kept channels, and values [-v, g]^T (p, q).

    Both are in the order of the channels. kept: (m,), on the host. loss: what it was when this was computed.
    """

    def __init__(self, problem: Quadratic, kept: np.ndarray, size: int) -> None:
        xp = namespace(problem.gram)
        self.kept, self.size = kept, size
        inside, outside = (channels_of(np.flatnonzero(units), size) for units in (kept, ~kept))
        place = np.argsort(np.concatenate([inside, outside]))
        order, inner, outer = (xp.asarray(a, device=device(problem.gram)) for a in (place, inside, outside))
        weights = xp.zeros_like(problem.anchor.T)
        inverse, columns = problem.gram[:0, :0], weights[:0, :]
        if inside.size:
            inverse, columns, _ = factorised(problem, inside)
        weights = xp.take(xp.concat([columns, weights[: outside.size, :]]), order, axis=0)
        losses, gradient = problem.value_and_gradient(weights.T)
        beside = xp.take(xp.take(problem.gram, inner, axis=0), outer, axis=1)
        across = inverse @ beside
        rest = xp.take(xp.take(problem.gram, outer, axis=0), outer, axis=1) - beside.T @ across
        table = xp.concat([xp.concat([-inverse, across], axis=1), xp.concat([across.T, rest], axis=1)])
        self.table = xp.take(xp.take(table, order, axis=0), order, axis=1)
        self.values = xp.take(xp.concat([-columns, xp.take(gradient.T, outer, axis=0)]), order, axis=0)
        self.loss = float(xp.sum(losses))

    def improve(self, limit: int, tolerance: float) -> int:
        """Make the best exchange, and the next, until none gains more than `tolerance` or `limit` is reached.

        Return how many were made.
        """
        for made in range(limit):
            change, dropped, added = self.best()
            if not change < -tolerance:
                return made
            self.pivot(dropped, -1.0)
            self.pivot(added, 1.0)
        return limit

    def best(self) -> tuple[float, int, int]:
        """Return the change of the loss by the best exchange, the unit it drops and the one it adds."""
        xp, size = namespace(self.table), self.size
        inside, outside = np.flatnonzero(self.kept), np.flatnonzero(~self.kept)
        best = (float("inf"), 0, 0)
        if outside.size == 0:
            return best
        blocks, lots = diagonal_blocks(self.table, size), xp.reshape(self.values, (self.kept.size, size, -1))
        products = lots @ xp.matrix_transpose(lots)
        others, outer = (xp.asarray(a, device=device(blocks)) for a in (outside, channels_of(outside, size)))
        pivots, own = (xp.take(array, others, axis=0)[None, ...] for array in (blocks, products))
        ours = xp.take(self.values, outer, axis=0).T
        together = max(1, BATCH_BYTES // (8 * size**2 * outside.size))
        for dropped in (inside[first : first + together] for first in range(0, inside.size, together)):
            chosen, inner = (xp.asarray(a, device=device(blocks)) for a in (dropped, channels_of(dropped, size)))
            inverse, lost = -xp.take(blocks, chosen, axis=0), xp.take(products, chosen, axis=0)
            rows = xp.take(xp.take(self.table, inner, axis=0), outer, axis=1)
            ratio = xp.linalg.solve(inverse, xp.reshape(rows, (dropped.size, size, -1)))
            beside, ratio, mixed = (
                xp.permute_dims(xp.reshape(array, (dropped.size, size, outside.size, size)), (0, 2, 1, 3))
                for array in (rows, ratio, xp.take(self.values, inner, axis=0) @ ours)
            )
            turned = xp.matrix_transpose(ratio)
            half = times(turned, mixed + 0.5 * times(lost[:, None, :, :], ratio))
            schur = pivots + times(turned, beside)
            gains = block_losses(schur, own + half + xp.matrix_transpose(half))
            change = block_losses(inverse, lost)[:, None] - gains
            spot = int(xp.argmin(xp.reshape(change, (-1,))))
            found = float(change[spot // outside.size, spot % outside.size])
            best = min(best, (found, int(dropped[spot // outside.size]), int(outside[spot % outside.size])))
        return best

    def pivot(self, unit: int, sign: float) -> None:
        """Add a unit (sign 1) or drop it (-1).

        T becomes T - T_:F T_FF^-1 T_F:, its rows and columns F sign T_FF^-1 T_F:, and F itself -T_FF^-1.
        """
        xp = namespace(self.table)
        here = slice(unit * self.size, (unit + 1) * self.size)
        rows, values = (copied(array[here, :]) for array in (self.table, self.values))
        inverse = xp.linalg.inv(rows[:, here])
        ratio = inverse @ rows
        self.table -= rows.T @ ratio
        self.values -= ratio.T @ values
        self.table[here, :], self.table[:, here] = sign * ratio, sign * ratio.T
        self.table[here, here], self.values[here, :] = -inverse, sign * (inverse @ values)
        self.kept[unit] = sign > 0
