"""A sparse core between block-diagonal wrappers, V = A S B (claims A1 and A2): each update is an argmin, and no sweep loses.

The loss is 1/2 |X (A S B - W)^T|^2, its references are least squares of numpy on X with a column for every free number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from gramian.proofs.kit.backends import NUMPY
from gramian.proofs.kit.claims import Claim, Property, Verdict
from gramian.proofs.kit.strategies import Layer
from gramian.solvers import NM, Pattern, Quadratic, TopK
from gramian.solvers.support.block_products import identities
from gramian.solvers.support.factor_updates import Factors, Landscape, best_left, best_right
from gramian.solvers.support.wrapped import swept

__all__ = ["A1", "A2"]

SWEEPS = 4
ROUNDING = 1e-9  # of |X W^T|^2


class Wrapped(NamedTuple):
    """layer: X and W. pattern: of the core. start: factors whose core satisfies it."""

    layer: Layer
    pattern: Pattern
    start: Factors

    def loss(self, factors: Factors) -> float:
        return 0.5 * float(np.sum((self.layer.inputs @ whole(factors).T - self.layer.outputs) ** 2))

    @property
    def slack(self) -> float:
        return ROUNDING * (self.loss(self.start) + self.layer.energy)


def block_diagonal(blocks: np.ndarray, length: int) -> np.ndarray:
    """The matrix of a stack of blocks; the last one may reach past its end."""
    size = blocks.shape[1]
    found = np.zeros((len(blocks) * size, len(blocks) * size))
    for place, block in enumerate(blocks):
        own = slice(place * size, (place + 1) * size)
        found[own, own] = block
    return found[:length, :length]


def whole(factors: Factors) -> np.ndarray:
    """A S B by ordinary products."""
    rows, width = factors.core.shape
    return np.asarray(block_diagonal(factors.left, rows) @ factors.core @ block_diagonal(factors.right, width))


@st.composite
def wrapped(draw: st.DrawFn, near: float) -> Wrapped:
    """Draw a layer with fewer tokens than channels or more, some channels dead and some alike, a core that satisfies a pattern,
    and blocks that may not divide the sides. near: how far the wrappers are from the identity."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    rows, width, tokens = draw(st.integers(1, 5)), draw(st.sampled_from([4, 8])), draw(st.sampled_from([3, 12, 40]))
    inputs, weight = rng.normal(size=(tokens, width)), rng.normal(size=(rows, width))
    inputs[:, draw(st.integers(0, width - 1))] *= draw(st.sampled_from([0.0, 1.0, 30.0]))
    if draw(st.booleans()):
        inputs[:, 0] = inputs[:, width - 1]
    if draw(st.booleans()):
        weight[0] = 0
    patterns: list[Pattern] = [NM(2, 4), NM(1, 2), TopK(0.5), TopK(0.25, per_row=True)]
    pattern = draw(st.sampled_from(patterns))
    core = weight * pattern.select(np.abs(weight))
    sides = [identities(length, draw(st.integers(1, 4)), core) for length in (rows, width)]
    for side, length in zip(sides, (rows, width)):
        for place, block in enumerate(side):
            count = min(side.shape[1], length - place * side.shape[1])
            block[:count, :count] += near * rng.normal(size=(count, count))
    return Wrapped(Layer(inputs, weight), pattern, Factors(core, *sides))


# --- A1: no sweep loses ----------------------------------------------------------------------------------------------

Sweep = Callable[[Quadratic, Pattern, Factors, np.ndarray], tuple[Factors, np.ndarray]]


def never_loses(case: Wrapped, sweep: Sweep) -> None:
    """From A = B = I and a core of the pattern the loss, taken from the data, rises at no sweep, and the core satisfies the
    pattern after each."""
    problem, factors = case.layer.problem(NUMPY), case.start
    lengths, before = np.ones(len(factors.left)), case.loss(factors)
    for _ in range(SWEEPS):
        factors, lengths = sweep(problem, case.pattern, factors, lengths)
        after = case.loss(factors)
        assert after <= before + case.slack, f"the loss rises from {before} to {after}"
        assert case.pattern.admits(factors.core != 0), f"{factors.core} does not satisfy {case.pattern}"
        before = after


def diagonal_steps(problem: Quadratic, pattern: Pattern, factors: Factors, lengths: np.ndarray) -> tuple[Factors, np.ndarray]:
    """Every weight of the core goes to its own minimum at once, and the largest of them remain, whatever that loses."""
    land = Landscape.of(problem, factors)
    moved = factors.core - land.slope / np.where(land.diagonal > 0, land.diagonal, 1)
    core = np.where(pattern.select(land.diagonal * moved**2), moved, 0)
    return replace(factors, core=core), lengths


def without_a_pattern(
    problem: Quadratic, pattern: Pattern, factors: Factors, lengths: np.ndarray
) -> tuple[Factors, np.ndarray]:
    """All weights of the core are solved for."""
    land = Landscape.of(problem, factors)
    return replace(factors, core=factors.core + land.change_on(np.ones(factors.core.shape, bool), 8)), lengths


def side_by_side(problem: Quadratic, pattern: Pattern, factors: Factors, lengths: np.ndarray) -> tuple[Factors, np.ndarray]:
    """Every block of B as if the others stayed what they are."""
    blocks = np.array(factors.right)
    for place in range(len(blocks)):
        blocks[place] = alone(problem, factors, place)
    return replace(factors, right=blocks), lengths


def alone(problem: Quadratic, factors: Factors, place: int) -> np.ndarray:
    """One block of B in closed form, all others held."""
    size, width = factors.right.shape[1], factors.core.shape[1]
    own = slice(place * size, min((place + 1) * size, width))
    count = own.stop - own.start
    outer = block_diagonal(factors.left, len(factors.core)) @ factors.core
    slope = outer[:, own].T @ problem.gradient(whole(factors))[:, own]
    change = -np.linalg.pinv(outer[:, own].T @ outer[:, own]) @ slope @ np.linalg.pinv(problem.gram[own, own])
    found = np.array(factors.right[place])
    found[:count, :count] += change
    return found


A1 = Claim(
    "A1",
    "ARMOR, abstract (block coordinate descent)",
    "from A = B = I and the core that another method leaves, the loss of A S B never rises: it is at most that method's",
    Verdict.HOLDS,
    properties=(
        Property(
            "f(A' S' B') <= f(A S B) after a sweep over S on its support, its support, B and A",
            wrapped(0.0),
            never_loses,
            swept,
            {
                "supports without a guard": diagonal_steps,
                "no support": without_a_pattern,
                "all blocks of B at once": side_by_side,
            },
        ),
    ),
)


# --- A2: an update is an argmin --------------------------------------------------------------------------------------

Update = Callable[[Quadratic, Factors], Factors]


def updated(problem: Quadratic, factors: Factors) -> Factors:
    """B block after block, then A."""
    factors = replace(factors, right=best_right(problem, factors))
    return replace(factors, left=best_left(problem, factors))


def least(case: Wrapped, fixed: np.ndarray, units: list[np.ndarray]) -> float:
    """The least loss of fixed + any combination of unit matrices, (q, p) each, and the combination's matrix by numpy."""
    matrix = np.stack([(case.layer.inputs @ unit.T).ravel() for unit in units], axis=1)
    target = (case.layer.outputs - case.layer.inputs @ fixed.T).ravel()
    found = np.linalg.lstsq(matrix, target, rcond=1e-11)[0]
    return 0.5 * float(np.sum((matrix @ found - target) ** 2))


def units_of(length: int, first: int, last: int) -> list[np.ndarray]:
    """Every matrix of this size with a single 1 within a block."""
    found = []
    for place in np.ndindex(last - first, last - first):
        unit = np.zeros((length, length))
        unit[first + place[0], first + place[1]] = 1
        found.append(unit)
    return found


def is_least_squares(case: Wrapped, update: Update) -> None:
    """The last block of B is the best beside the others, and all of A together is the best beside S and B."""
    problem, start = case.layer.problem(NUMPY), case.start
    found = update(problem, start)
    (rows, width), (across, along) = start.core.shape, (start.left.shape[1], start.right.shape[1])
    left, core = block_diagonal(start.left, rows), start.core
    first = (len(start.right) - 1) * along
    others = block_diagonal(found.right, width)
    others[first:, first:] = 0
    units = [left @ core @ unit for unit in units_of(width, first, width)]
    best = least(case, left @ core @ others, units)
    reached = case.loss(replace(start, right=found.right))
    assert abs(reached - best) <= case.slack, f"the last block of B reaches {reached}, and {best} can be reached"
    inner = core @ block_diagonal(found.right, width)
    blocks = [(place, min(place + across, rows)) for place in range(0, rows, across)]
    best = least(case, 0 * core, [unit @ inner for block in blocks for unit in units_of(rows, *block)])
    reached = case.loss(found)
    assert abs(reached - best) <= case.slack, f"A reaches {reached}, and {best} can be reached"


def without_the_inputs(problem: Quadratic, factors: Factors) -> Factors:
    """As if the Gram matrix were the identity."""
    return updated(Quadratic(np.eye(problem.shape[1]), problem.anchor), factors)


def by_the_diagonal(problem: Quadratic, factors: Factors) -> Factors:
    return updated(Quadratic(np.diag(problem.diagonal), problem.anchor), factors)


def the_other_order(problem: Quadratic, factors: Factors) -> Factors:
    """A first, so that it is the best beside another B."""
    factors = replace(factors, left=best_left(problem, factors))
    return replace(factors, right=best_right(problem, factors))


A2 = Claim(
    "A2",
    "gramian, solvers/support/factor_updates.py",
    "A_r - (g_r M_r^T) (M_r G M_r^T)^+ minimises the loss over all blocks A_r at once, M = S B, and B_c - (N_c^T N_c)^+ "
    "(N_c^T g_c) G_cc^+ over one block of B, N = A S",
    Verdict.HOLDS,
    properties=(
        Property(
            "f at the blocks = the least squares of X on every free number",
            wrapped(0.4),
            is_least_squares,
            updated,
            {
                "without the inputs": without_the_inputs,
                "by the diagonal of G": by_the_diagonal,
                "A before B": the_other_order,
                "nothing changes": lambda problem, factors: factors,
            },
        ),
    ),
)
