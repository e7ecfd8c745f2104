"""Pruned and quantised in one sweep: every column in turn is set to zero or rounded, its error moved to those on its right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gramian.solvers.backend._xp import Array, copied, namespace
from gramian.solvers.backend.computing import computation
from gramian.solvers.backend.options import number, shown, whole
from gramian.solvers.core.certificate import certify
from gramian.solvers.core.patterns import NM, PatternLike, TopK, counted_pattern
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Solution, Status
from gramian.solvers.core.terms import Support
from gramian.solvers.quantised.code_descent import better_rows, descended
from gramian.solvers.quantised.grids import Grid
from gramian.solvers.quantised.result import Quantised, certify_codes
from gramian.solvers.support.baselines import magnitude, wanda
from gramian.solvers.support.l0 import l0_admm
from gramian.solvers.support.obs import DAMPING, ChosenMask, sparsegpt, sweep_start
from gramian.solvers.support.sweep import NEARBY, swept

__all__ = ["SUPPORTS", "quantise", "sparsegpt_quantised"]

SUPPORTS: dict[str, Callable[..., Solution] | None] = {
    "sweep": None,
    "l0": l0_admm,
    "magnitude": magnitude,
    "wanda": wanda,
    "sparsegpt": sparsegpt,
}
ROUNDS = 10  # turns of the descent on the codes


@computation
def quantise(
    problem: Quadratic,
    pattern: PatternLike = 0.0,
    *,
    bits: int = 4,
    group: int = 64,
    support: str = "sweep",
    damping: float = DAMPING,
    block: int = 128,
    rounds: int = ROUNDS,
) -> Quantised:
    """argmin f(V) over V = s c on a mask, columns in turn: c_j = round(v_j / s) or 0, then the best columns right of j

    One sweep as in `sparsegpt` over the Cholesky factor of (G + D)^-1, D a ridge, in which a column is projected on mask and
    grid at once, so that what is on its right makes up for both. A scale is chosen when the sweep reaches its group: of a few,
    that with the least error weighted by what an error costs. Rows for which rounding to the nearest code is better take that.
    Then codes are improved one by one while the loss falls, to coordinate-wise optimality if `rounds` suffice; it is that of
    the damped problem, and no error of text that was not seen is promised.

    Frantar and Alistarh, Optimal Brain Compression (2022), and GPTQ (2023), with the mask of SparseGPT (2023).

    Parameters
    ----------
    problem : Quadratic
        The loss.
    pattern : Pattern, str or float, default 0.0
        Zeros of the weights, such as `NM(2, 4)` or `TopK(0.5)`; none for 0.0.
    bits : int, default 4
        2 to 8: codes are whole numbers c with -2^(bits - 1) <= c < 2^(bits - 1).
    group : int, default 64
        Consecutive inputs of a row that share a scale; all of them where it is as large as the row, or larger.
    support : {"sweep", "l0", "magnitude", "wanda", "sparsegpt"}, default "sweep"
        What chooses the mask: the sweep as it goes on, as SparseGPT does, or a method beforehand, from whose weights the sweep
        then starts.
    damping : float, default 0.01
        D = damping * mean(diag G) * I.
    block : int, default 128
        Columns whose errors wait for one product, and of which TopK's mask is chosen at once; scales of longer groups are
        chosen before the sweep.
    rounds : int, default 10
        Turns of the descent on the codes; 0 leaves them as the sweep has them.

    Returns
    -------
    Quantised
        Codes, scales, mask, the dequantised weights, and what is proven of them.

    Raises
    ------
    ValueError
        For an option out of range, for a pattern that does not divide the weights, and for a group that cuts through those of
        an n:m pattern.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import Quadratic, quantise
    >>> rng = np.random.default_rng(0)
    >>> problem = Quadratic.from_data(rng.normal(size=(64, 8)), rng.normal(size=(4, 8)))
    >>> found = quantise(problem, "2:4", bits=4, group=8)
    >>> found.certificate.optimal, found.codes.dtype, bool(np.all(found.weights[~found.mask] == 0))
    (True, dtype('int8'), True)
    """
    pattern = counted_pattern(pattern, problem.shape, "quantise")
    damping, block, rounds = number("damping", damping), whole("block", block), whole("rounds", rounds, 0)
    grid = Grid(bits, group)
    if isinstance(pattern, NM) and grid.group < problem.shape[1] and grid.group % pattern.group:
        cuts = f"a group of {grid.group} inputs cuts through the groups of {pattern.group} of pattern {pattern}"
        raise ValueError(f"{cuts}: give a multiple of {pattern.group}")
    if support not in SUPPORTS:
        raise ValueError(f"support must be one of {', '.join(SUPPORTS)} but is {shown(support)}")
    xp = namespace(problem.anchor)
    factor, start, used = sweep_start(problem, damping)
    method, chosen = SUPPORTS[support], ChosenMask.of(problem, pattern, factor)
    held: HeldMask | None = None
    if method is not None:
        weights = method(problem, pattern).weights
        held, start = HeldMask(copied(pattern.largest(xp.abs(weights)).T)), copied(weights.T)
    project = OnGrid.of(grid, held or chosen, start, factor, block)
    block, nearby = project.steps(pattern, block)
    columns = swept(copied(start), factor, project, block=block, nearby=nearby)
    mask, scales = project.chosen.mask.T, xp.astype(copied(project.scales.T), xp.float64)
    spread = grid.spread(scales, problem.shape[1])
    damped = problem.double
    damped = damped.damped(used * (float(xp.mean(damped.diagonal)) or 1.0))
    codes, rounded = (
        xp.where(mask, grid.nearest(xp.astype(each.T, xp.float64), spread), xp.zeros_like(spread)) for each in (columns, start)
    )
    if rounds:
        codes = descended(damped, better_rows(damped, codes, rounded, spread), spread, grid, mask, rounds)
    codes = codes + 0.0  # no zero has a sign
    weights = xp.astype(codes * spread, problem.anchor.dtype)
    certificate = certify_codes(damped, codes, scales, grid, mask)
    solution = Solution(
        weights,
        Status.DIRECT if used == damping else Status.DAMPED,
        certify(problem, Support(mask), weights),
        detail={"damping": used, "bytes": float(grid.bytes(problem.shape))},
    )
    stored = xp.astype(scales, problem.anchor.dtype)
    return Quantised(xp.astype(codes, xp.int8), stored, grid, copied(mask), solution, certificate)


def sparsegpt_quantised(
    problem: Quadratic,
    pattern: PatternLike = 0.0,
    *,
    bits: int = 4,
    group: int = 64,
    support: str = "sweep",
    damping: float = DAMPING,
    rounds: int = ROUNDS,
) -> Solution:
    """argmin f(V) over V = s c on a mask, as `quantise`, of which it returns the dequantised weights.

    Parameters
    ----------
    problem : Quadratic
        The loss.
    pattern : Pattern, str or float, default 0.0
        Zeros of the weights; none for 0.0.
    bits : int, default 4
        2 to 8.
    group : int, default 64
        Consecutive inputs of a row that share a scale.
    support : {"sweep", "l0", "magnitude", "wanda", "sparsegpt"}, default "sweep"
        What chooses the mask: the sweep itself, or a method beforehand.
    damping : float, default 0.01
        D = damping * mean(diag G) * I.
    rounds : int, default 10
        Turns of the descent on the codes.

    Returns
    -------
    Solution
        V = s c, exact in float32; detail has the bytes that codes and scales take.

    Raises
    ------
    ValueError
        As `quantise`.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import Quadratic, sparsegpt_quantised
    >>> rng = np.random.default_rng(0)
    >>> problem = Quadratic.from_data(rng.normal(size=(64, 8)), rng.normal(size=(4, 8)))
    >>> sparsegpt_quantised(problem, "2:4", group=8).detail["bytes"]
    24.0
    """
    return quantise(problem, pattern, bits=bits, group=group, support=support, damping=damping, rounds=rounds).solution


@dataclass
class HeldMask:
    """A mask (p, q) that is given, in place of one that is chosen on the way."""

    mask: Array

    def kept(self, part: Array, first: int, j: int) -> Array:
        """Return where column first + j is kept, (q,)."""
        return self.mask[first + j, :]

    def expected(self, part: Array, first: int, begin: int, end: int) -> Array:
        """Return the mask of columns of a block, (end - begin, q)."""
        return self.mask[first + begin : first + end, :]


@dataclass
class OnGrid:
    """The projection of a column on mask and grid.

    chosen: the mask. scales: (groups, q), filled as the sweep goes on, or before it where a group is longer than a block.
    costs: 1 / U_jj^2 (p,), what a squared error of column j costs when those on its right make up for it.
    """

    grid: Grid
    chosen: ChosenMask | HeldMask
    scales: Array
    costs: Array
    beforehand: bool

    @classmethod
    def of(cls, grid: Grid, chosen: ChosenMask | HeldMask, start: Array, factor: Array, block: int) -> OnGrid:
        """Make that of a sweep that starts from columns (p, q)."""
        xp = namespace(start)
        scales = xp.ones((grid.groups(start.shape[0]), start.shape[1]), dtype=start.dtype, device=start.device)
        pivots = xp.linalg.diagonal(factor)
        costs = (xp.min(pivots) / pivots) ** 2  # in (0, 1], for squares of pivots may overflow
        found = cls(grid, chosen, scales, costs, min(grid.group, start.shape[0]) > block)
        if found.beforehand:
            held = isinstance(chosen, HeldMask)
            kept = chosen.mask if held else xp.ones_like(chosen.mask)
            for number, begin in enumerate(range(0, start.shape[0], grid.group)):
                here = slice(begin, begin + grid.group)
                scales[number, :] = grid.scales_of(start[here, :], costs[here], kept[here, :])
        return found

    def steps(self, pattern: TopK | NM, block: int) -> tuple[int, int]:
        """Return how many columns are a block, and how many of those are updated one by one: groups of a pattern lie inside the
        latter, and a scale is chosen where they begin."""
        unit = pattern.group if isinstance(pattern, NM) else 1
        if self.beforehand or self.grid.group >= self.costs.shape[0]:
            return unit * max(1, block // unit), unit * max(1, NEARBY // unit)
        group = self.grid.group
        sizes = [size for size in range(unit, NEARBY + 1, unit) if group % size == 0]
        return group * max(1, block // group), sizes[-1] if sizes else group

    def __call__(self, part: Array, first: int, j: int) -> Array:
        """Return column first + j, rounded where it is kept and zero elsewhere."""
        kept = self.chosen.kept(part, first, j)
        group = (first + j) // self.grid.group
        if not self.beforehand and (first + j) % self.grid.group == 0:
            end = min(j + self.grid.group, part.shape[0])
            expected = self.chosen.expected(part, first, j, end)
            self.scales[group, :] = self.grid.scales_of(part[j:end, :], self.costs[first + j : first + end], expected)
        scale = self.scales[group, :]
        rounded = self.grid.nearest(part[j, :], scale) * scale
        return namespace(part).where(kept, rounded, namespace(part).zeros_like(rounded))
