"""Certificates beside rational arithmetic: nasty problems of one row, their exact objectives, and their exact optimum."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import product

import numpy as np

from gramian.proofs.kit.rational import dot, exact, matmul, solve
from gramian.solvers import L1, Quadratic
from gramian.solvers.backend._xp import namespace

KINDS = (
    "plain", "channel scales", "duplicates", "dead channel", "offset", "tiny or large inputs", "integers", "next to duplicates",
    "tiny or large weights", "powers of two", "wide", "few bits",
)  # fmt: skip


@dataclass(frozen=True)
class ElasticNet:
    """h(V) = sparse |V|_1 + ridge / 2 |V|^2, whose conjugate is sum_j max(|u_j| - sparse, 0)^2 / (2 ridge)."""

    sparse: float
    ridge: float

    def value(self, weights):
        xp = namespace(weights)
        return xp.sum(self.sparse * xp.abs(weights) + 0.5 * self.ridge * weights**2, axis=1)

    def prox(self, weights, step):
        return L1(self.sparse).prox(weights, step) / (1 + step * self.ridge)

    def conjugate(self, slope):
        xp = namespace(slope)
        beyond = xp.abs(slope) - self.sparse
        beyond = xp.where(beyond > 0, beyond, 0 * beyond)
        return xp.sum(beyond * (beyond / (2 * self.ridge)), axis=1)  # a square might underflow


def drawn(rng: np.random.Generator, kind: str) -> Quadratic:
    """Draw a problem of one row in float64, or in float32 one time out of five."""
    channels, tokens = int(rng.integers(1, 5)), 1 if kind == "wide" else int(rng.integers(1, 9))
    inputs, weight = rng.normal(size=(tokens, channels)), rng.normal(size=(1, channels))
    drift = 10.0 ** rng.integers(-9, 2) * rng.normal(size=inputs.shape) if rng.random() < 0.4 else None
    if kind == "channel scales":
        inputs = inputs * 10.0 ** rng.integers(-8, 9, size=channels)
    if kind == "duplicates":
        inputs[:, -1] = inputs[:, 0]
    if kind == "dead channel":
        inputs[:, rng.integers(channels)] = 0
    if kind == "offset":
        inputs = inputs + 1e6
    if kind == "tiny or large inputs":
        inputs = inputs * 10.0 ** rng.integers(-140, 75)
    if kind == "integers":
        inputs, weight = np.round(inputs), np.round(2 * weight)
    if kind == "next to duplicates":
        inputs[:, -1] = inputs[:, 0] * (1 + 1e-9 * rng.normal())
    if kind == "tiny or large weights":
        weight = weight * 10.0 ** rng.integers(-100, 60, size=channels)
    if kind == "powers of two":
        inputs = np.round(2 * inputs) * 2.0 ** rng.integers(-30, 30, size=channels)
        inputs[:, -1] = inputs[:, 0]
    if kind == "few bits":
        inputs = np.round(64 * inputs) / 64
        inputs[:, -1] = inputs[:, :-1].sum(axis=1)
    if kind in ("integers", "powers of two", "few bits"):  # moments without any rounding, so that they are exactly a Gram
        drift = None if drift is None else np.round(drift)
        weight = np.round(8 * weight) / 8
    dense = None if drift is None or kind == "tiny or large inputs" else inputs + drift * np.max(np.abs(inputs), axis=0)
    problem = Quadratic.from_data(inputs, weight, None if drift is None else dense)
    single = rng.random() < 0.2 and kind not in ("tiny or large inputs", "tiny or large weights")
    return problem.astype(np.float32) if single else problem


@dataclass(frozen=True)
class ExactRow:
    """f(v) = floor + <slope, v - w> + 1/2 (v - w) G (v - w), of a problem of one row, with ridge / 2 |v|^2; in Fractions."""

    gram: list[list[Fraction]]
    anchor: list[Fraction]
    slope: list[Fraction]
    floor: Fraction
    sparse: Fraction
    ridge: Fraction

    @classmethod
    def of(cls, problem: Quadratic, sparse: float, ridge: float = 0.0) -> ExactRow:
        double = problem.double
        nothing = np.zeros(double.shape[1])
        slope, floor = (nothing, 0.0) if double.slope is None else (double.slope[0], double.floor[0])
        return cls(*map(exact, (double.gram, double.anchor[0], slope, float(floor), sparse, ridge)))

    def loss(self, point: list[Fraction]) -> Fraction:
        change = [v - w for v, w in zip(point, self.anchor)]
        return self.floor + dot(self.slope, change) + dot(change, matmul(self.gram, change)) / 2

    def objective(self, point: list[Fraction]) -> Fraction:
        return self.loss(point) + sum(self.sparse * abs(v) + self.ridge * v * v / 2 for v in point)

    def stationary(self) -> Iterator[tuple[list[Fraction], bool]]:
        """Yield, for every choice of signs with G_AA nonsingular, v with g_A = -lambda s_A, and whether it is optimal."""
        size = len(self.anchor)
        ridged = [[self.gram[i][j] + (self.ridge if i == j else 0) for j in range(size)] for i in range(size)]
        right = [a - b for a, b in zip(matmul(self.gram, self.anchor), self.slope)]
        for signs in product((-1, 0, 1), repeat=size):
            active = [j for j in range(size) if signs[j]]
            point = [Fraction(0)] * size
            if active:
                try:
                    block = [[ridged[i][j] for j in active] for i in active]
                    found = solve(block, [right[j] - self.sparse * signs[j] for j in active])
                except ValueError:  # singular
                    continue
                for j, value in zip(active, found):
                    point[j] = value
            pull = [a - b for a, b in zip(right, matmul(ridged, point))]
            fits = all(point[j] * signs[j] >= 0 for j in active)
            yield point, fits and all(abs(pull[j]) <= self.sparse for j in range(size) if not signs[j])

    @property
    def semidefinite(self) -> bool:
        """Return whether G is positive semidefinite, exactly, by its Schur complements."""
        rest = [list(row) for row in self.gram]
        while rest:
            if rest[0][0] < 0 or (rest[0][0] == 0 and any(rest[0])):
                return False
            top = rest[0]
            rest = [[x - (row[0] * y / top[0] if top[0] else 0) for x, y in zip(row[1:], top[1:])] for row in rest[1:]]
        return True
