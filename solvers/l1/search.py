"""ADMM until the signs of a row rest, then its optimality conditions solved exactly.

This is what a row costs, in multiply-adds, with p channels of which k end up nonzero, in a problem of q rows:

    one step of ADMM        p^2, in float32, all rows in one matrix product
    one exact solve         k^3 / 3, in float64, each row on its own
    a penalty of ADMM       p^3 / q, in float64: one inverse that all rows, and all lambdas, share

A solve runs at about a quarter of the speed of a step, so that it costs as much as 4/3 k^3 / p^2 steps: at half of the
weights nonzero 107 steps for p = 640 and 341 for p = 2048, at 30 % a fifth of that. Where few weights are nonzero the steps
are the cost, and solves are nearly free; where many are, it is the other way round. Solving early costs solves that fail,
and solving late costs steps. The rule is that a row is tried when its signs have rested for max(20, k^3 / 6 p^2) steps, an
eighth of what a solve costs, and after twice that each time that it failed. A penalty is changed no sooner than the steps
since the last change have cost as much as the inverse. On layers of 640 to 2048 inputs with 50 or 70 % zeros, a row takes 40
to 100 steps and 1 to 2.4 solves on average.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gramian.solvers.backend._xp import Array, clip, device, namespace, to_numpy
from gramian.solvers.backend.threads import crew
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.l1.costs import Costs
from gramian.solvers.l1.signs import Points, evaluated, finished, support_sizes
from gramian.solvers.l1.splitting import Inverses, Splitting, balanced, split

__all__ = ["Search"]

REST = 20  # steps, at least, for which they must have been the same
STAGE = 60  # steps of ADMM, at least, between two changes of its penalty
HALVINGS = 4  # penalties in a cycle, each half of the one before
LATEST = 15  # times the rest that is waited for, after which a row is tried all the same
ROUNDS = 4  # of exact solves in one trial, while each changes few signs
STUBBORN = 2  # failed trials, from which on a row is also followed from the best point that is known of it


@dataclass(frozen=True, eq=False)
class Search:
    """Hold the rows that are not done, with the state of each.

    state: of ADMM. signs: of its sparse point. rested: steps for which they have rested. waited: steps since the row was last
    tried. failures: trials that failed. stage: changes of the penalty so far. age: steps since the last one.
    """

    rows: np.ndarray
    state: Splitting
    signs: Array
    rested: np.ndarray
    waited: np.ndarray
    failures: np.ndarray
    stage: int = 0
    age: int = 0

    @classmethod
    def at(cls, exact: Quadratic, costs: Costs, best: Points, rows: np.ndarray, inverse: Inverses) -> Search:
        """Return the search before the first step."""
        xp = namespace(exact.anchor)
        chosen, first = xp.asarray(rows, device=device(exact.anchor)), best.rows(rows)
        part, own = exact.rows(chosen), costs.rows(chosen)
        penalty = balanced(own, part.anchor, clip(-first.gradient, own.lower, own.limit))
        state = split(part, own, first.weights, first.gradient, penalty, inverse)
        nothing = np.zeros(rows.size)
        return cls(rows, state, xp.astype(xp.sign(first.weights), xp.int8), nothing, nothing, nothing)

    def advanced(self, inverse: Inverses, steps: int) -> Search:
        """Return the search after so many steps of ADMM.

        Before them the penalty is changed where that is due: after a stage, if its steps have cost as much as an inverse, p^3
        in float64.
        """
        xp = namespace(self.signs)
        state, age, stage = self.state, self.age, self.stage
        if age >= max(STAGE, 2 * self.signs.shape[1] / self.rows.size):
            age, stage = 0, stage + 1
            multipliers = state.dual * state.penalty
            penalty = balanced(state.costs, state.sparse, multipliers, halvings=stage % HALVINGS)
            state = state.penalised(penalty, inverse)
        state = state.advanced(steps)
        signs = xp.astype(xp.sign(state.sparse), xp.int8)
        rest = to_numpy(xp.all(signs == self.signs, axis=1))
        rested, waited = np.where(rest, self.rested + steps, 0), self.waited + steps
        return replace(self, state=state, signs=signs, rested=rested, waited=waited, stage=stage, age=age + steps)

    def due(self) -> np.ndarray:
        """Return which rows, as positions in `rows`, it is time to try."""
        rest = np.maximum(REST, support_sizes(self.signs) ** 3 / (6 * self.signs.shape[1] ** 2)) * 2.0**self.failures
        return np.flatnonzero((self.rested >= rest) | (self.waited >= LATEST * rest))

    def tried(self, exact: Quadratic, costs: Costs, best: Points, due: np.ndarray, tol: float) -> tuple[np.ndarray, int]:
        """Solve these rows exactly from where ADMM has brought them, some on every thread, and keep in `best` what is better.

        Return which of them are done, and the number of solves.
        """
        with crew(exact.anchor, due.size * exact.shape[1] ** 2) as every:
            parts = [part for part in np.array_split(due, every.size) if part.size]
            found = every(lambda part: self.tried_alone(exact, costs, best, part, tol), parts)
        return np.concatenate([done for done, _ in found]), sum(solves for _, solves in found)

    def tried_alone(self, exact: Quadratic, costs: Costs, best: Points, due: np.ndarray, tol: float) -> tuple[np.ndarray, int]:
        """Do the same on one thread."""
        xp = namespace(exact.anchor)
        rows = self.rows[due]
        chosen, place = (xp.asarray(index, device=device(exact.anchor)) for index in (rows, due))
        part, own = exact.rows(chosen), costs.rows(chosen)
        found = evaluated(part, own, xp.astype(xp.take(self.state.sparse, place, axis=0), xp.float64))
        found, done, solves = finished(part, own, found, tol, ROUNDS)
        best.improve(rows, found, anyway=done)
        failures = self.failures[due]
        stubborn = np.flatnonzero(~done & (failures >= STUBBORN))
        if stubborn.size:  # the better they are known to resist, the longer
            place = xp.asarray(stubborn, device=device(exact.anchor))
            part, own = part.rows(place), own.rows(place)
            rounds = 2 ** int(failures[stubborn].min())
            found, done[stubborn], more = finished(part, own, best.rows(rows[stubborn]), tol, rounds, patient=True)
            best.improve(rows[stubborn], found, anyway=done[stubborn])
            solves += more
        return done, solves

    def after(self, due: np.ndarray, done: np.ndarray) -> Search:
        """Return the search without the rows that are done; the others of those that were tried wait longer."""
        xp = namespace(self.signs)
        rested, waited, failures = self.rested.copy(), self.waited.copy(), self.failures.copy()
        rested[due], waited[due] = 0, 0
        failures[due] += 1
        going = np.ones(self.rows.size, dtype=bool)
        going[due[done]] = False
        kept = xp.asarray(np.flatnonzero(going), device=device(self.signs))
        return replace(
            self,
            rows=self.rows[going],
            state=self.state.rows(kept),
            signs=xp.take(self.signs, kept, axis=0),
            rested=rested[going],
            waited=waited[going],
            failures=failures[going],
        )
