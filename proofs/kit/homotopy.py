"""The whole LASSO path of one row, by the homotopy method: exact in rational arithmetic, and to rounding in floats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from gramian.proofs.kit.rational import exact, identity, solve

__all__ = ["LassoPath", "Segment", "lasso_homotopy", "positive_cone"]

Number = Any  # Fraction throughout, or float throughout
TOLERANCE = 1e-10  # floats only, of lambda_max: events closer than this are one knot
SINGULAR = 1e-12  # floats only: least eigenvalue of a unit-diagonal G_AA that counts as nonsingular


@dataclass(frozen=True)
class Segment:
    """Between the knots `upper` > lambda > `lower` the solution is v(lambda) = level - lambda slope, of constant signs."""

    upper: Number
    lower: Number
    signs: tuple[int, ...]  # of v: -1, 0 or 1
    level: tuple[Number, ...]
    slope: tuple[Number, ...]

    def at(self, weight: Number) -> tuple[Number, ...]:
        return tuple(level - weight * slope for level, slope in zip(self.level, self.slope))


@dataclass(frozen=True)
class LassoPath:
    """argmin_v 1/2 v G v^T - q v^T + lambda |v|_1 for every lambda >= 0, continuous, and linear between finitely many knots.

    width: p. segments: from lambda_max = max |q_j| down to 0, which the last one includes; there are none where q = 0.
    """

    width: int
    segments: tuple[Segment, ...]

    @property
    def knots(self) -> tuple[Number, ...]:
        """Return the lambdas > 0 at which the linear piece changes, the largest (lambda_max) first."""
        return tuple(segment.upper for segment in self.segments)

    @property
    def counts(self) -> tuple[int, ...]:
        """Return the zeros of v above lambda_max, then between each knot and the next, where their number is constant. The
        last is N(0+)."""
        return (self.width, *(segment.signs.count(0) for segment in self.segments))

    @property
    def jumps(self) -> tuple[int, ...]:
        """Return N(knot) - N(just below the knot) per knot: how many weights move away from zero there as lambda falls."""
        return tuple(self.zeros(segment.upper) - segment.signs.count(0) for segment in self.segments)

    def weights(self, weight: Number) -> tuple[Number, ...]:
        """Return v at lambda >= 0."""
        if weight < 0:
            raise ValueError(f"lambda must be at least 0 but is {weight}")
        for segment in self.segments:
            if segment.lower <= weight < segment.upper:
                return segment.at(weight)
        return (0 * weight,) * self.width

    def zeros(self, weight: Number) -> int:
        """Return N(lambda), the number of zeros of v; on a knot it is exact in rational arithmetic only. N on a knot is at
        least N on either side of it, since what is zero beside the knot is zero on it."""
        return sum(entry == 0 for entry in self.weights(weight))


def lasso_homotopy(gram: Sequence[Sequence[Any]], cross: Sequence[Any]) -> LassoPath:
    """The path of argmin_v 1/2 v G v^T - q v^T + lambda |v|_1 over lambda, followed down from lambda_max = max |q_j|.

    gram: G = X*^T X*, (p, p), positive semidefinite. cross: q = y^T X*, (p,), in the range of G. Integers and Fractions
    give Fractions; one float anywhere makes it all floats. Raises ValueError where the shapes do not fit, ArithmeticError
    where nothing satisfies the conditions below a knot: ties within rounding, or a q that is not in that range.

    With c = q - v G, the optimality conditions are c_j = lambda sign(v_j) where v_j != 0 and |c_j| <= lambda elsewhere.
    They fix v on the active set A: v_A = G_AA^-1 (q_A - lambda s_A). A knot is where an active weight reaches zero or an
    inactive |c_j| reaches lambda. Below it v moves by eps d, where of the weights T that are zero with |c_j| = lambda
    some subset S becomes active, such that

        (G d)_A = s_A,   s_j d_j > 0 on S,   s_j (G d)_j >= 1 on T \\ S,   A = support(v) + S, G_AA nonsingular.

    These say that d minimises a convex quadratic under sign constraints, so S exists, and where the minimiser is unique
    so is S. In general position T is one weight; the search tries all 2^|T| subsets, smallest first, so that ties,
    duplicate channels and fewer tokens than channels need no special case. Where the LASSO has many solutions this path
    is one of them, with independent active channels. (Osborne et al. 2000; Efron et al. 2004, which lacks T.)
    """
    matrix, right = convert(gram, cross)
    width = len(right)
    top = max((abs(entry) for entry in right), default=0)
    slack = TOLERANCE * top if isinstance(top, float) else 0
    segments: list[Segment] = []
    weight, point = top, [0 * top] * width
    while weight > slack:
        residual = [right[j] - inner(matrix[j], point) for j in range(width)]
        signs = [sign(entry) for entry in residual]
        active = [j for j in range(width) if point[j] != 0]
        tied = [j for j in range(width) if point[j] == 0 and abs(residual[j]) >= weight - slack]
        chosen, slope = direction(matrix, signs, active, tied)
        level = restricted(matrix, chosen, right)
        assert level is not None  # `direction` solved with the same matrix
        leaving = {j: level[j] / slope[j] for j in chosen if slope[j] != 0}  # an active weight reaches zero
        events = list(leaving.values())
        for j in set(range(width)).difference(chosen):  # c_j = start + lambda fall reaches lambda or -lambda
            start, fall = right[j] - inner(matrix[j], level), inner(matrix[j], slope)
            events += [start / (side - fall) for side in (1, -1) if side != fall]
        lower = max((event for event in events if slack < event < weight - slack), default=0 * top)
        kept = tuple(signs[j] if j in chosen else 0 for j in range(width))
        segments.append(Segment(weight, lower, kept, tuple(level), tuple(slope)))
        # In floats a weight that reaches zero is set to zero; exact arithmetic finds it there.
        point = [0 * top if abs(leaving.get(j, weight) - lower) <= slack else segments[-1].at(lower)[j] for j in range(width)]
        weight = lower
    return LassoPath(width, tuple(segments))


def positive_cone(gram: Sequence[Sequence[Any]]) -> bool:
    """Whether G^-1 is diagonally dominant, G positive definite: (G^-1)_jj >= sum_k!=j |(G^-1)_jk| for every j.

    That is the positive cone condition (S G_AA S)^-1 1 >= 0 for every set A of channels and every diagonal S of signs
    (Efron et al. 2004, Section 4): over signs its j-th entry is least at the diagonal less the row's other magnitudes,
    and G_AA^-1 is a Schur complement of G^-1, which inherits dominance. Under it no weight of a path ever returns to zero.
    """
    inverse = solve(exact(gram), identity(len(gram)))
    return all(2 * row[j] >= sum(abs(entry) for entry in row) for j, row in enumerate(inverse))


def convert(gram: Sequence[Sequence[Any]], cross: Sequence[Any]) -> tuple[list[list[Number]], list[Number]]:
    """Return both as lists: of Fractions, or of floats if any entry is one."""
    width = len(cross)
    if len(gram) != width or any(len(row) != width for row in gram):
        raise ValueError(f"cross has {width} entries, so gram must be {width} x {width}, but it has {len(gram)} rows")
    if any(isinstance(entry, float) for row in (*gram, cross) for entry in row):
        return [[float(entry) for entry in row] for row in gram], [float(entry) for entry in cross]
    return exact([list(row) for row in gram]), exact(list(cross))


def direction(
    matrix: list[list[Number]], signs: list[int], active: list[int], tied: list[int]
) -> tuple[list[int], list[Number]]:
    """Return the active set below a knot, and d there (p,)."""
    least = 1 - TOLERANCE**0.5 if isinstance(matrix[0][0], float) else 1
    for size in range(len(tied) + 1):
        for joining in combinations(tied, size):
            chosen = sorted([*active, *joining])
            slope = restricted(matrix, chosen, signs)
            if slope is None or any(signs[j] * slope[j] <= 0 for j in joining):
                continue
            if all(signs[j] * inner(matrix[j], slope) >= least for j in tied if j not in joining):
                return chosen, slope
    raise ArithmeticError("nothing satisfies the optimality conditions below a knot: ties within rounding, or q not in range G")


def restricted(matrix: list[list[Number]], chosen: list[int], right: Sequence[Number]) -> list[Number] | None:
    """Return the x (p,) with (G x)_A = b_A and zeros off A, or None where G_AA is singular."""
    filled = [0 * matrix[0][0]] * len(matrix)
    if not chosen:
        return filled
    block, values = [[matrix[i][j] for j in chosen] for i in chosen], [right[i] for i in chosen]
    if isinstance(matrix[0][0], float):
        scale = np.sqrt(np.diag(np.array(block)))
        if np.any(scale == 0) or np.linalg.eigvalsh(block / scale / scale[:, None])[0] < SINGULAR:
            return None
        found = np.linalg.solve(block, values).tolist()
    else:
        try:
            found = solve(block, values)
        except ValueError:  # singular
            return None
    for j, value in zip(chosen, found):
        filled[j] = value
    return filled


def inner(left: Sequence[Number], right: Sequence[Number]) -> Number:
    return sum(a * b for a, b in zip(left, right, strict=True))


def sign(value: Number) -> int:
    return int((value > 0) - (value < 0))
