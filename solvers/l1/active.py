"""The LASSO at full speed: ADMM until the signs of a row rest, then its optimality conditions solved exactly.

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

from gramian.solvers.backend._xp import Array, as_floating, device, namespace, to_numpy
from gramian.solvers.backend.precision import full_precision
from gramian.solvers.backend.threads import crew
from gramian.solvers.core.certificate import certify
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Solution, Status
from gramian.solvers.core.terms import L1
from gramian.solvers.l1.signs import Points, evaluated, finished, settled, support_sizes
from gramian.solvers.l1.splitting import Inverses, Splitting, balanced, inverses, split

__all__ = ["Workspace", "lasso"]

WATCH = 10  # steps of ADMM between two looks at the signs
REST = 20  # steps, at least, for which they must have been the same
STAGE = 60  # steps of ADMM, at least, between two changes of its penalty
HALVINGS = 4  # penalties in a cycle, each half of the one before
LATEST = 15  # times the rest that is waited for, after which a row is tried all the same
ROUNDS = 4  # of exact solves in one trial, while each changes few signs
STUBBORN = 2  # failed trials, from which on a row is also followed from the best point that is known of it


def lasso(problem: Quadratic, term: L1, *, start: Array | None = None, tol: float = 1e-6, max_steps: int = 10_000) -> Solution:
    """argmin_V f(V) + sum_ij lambda_ij |V_ij|, every row to a relative duality gap of `tol`, in practice to rounding

    A row v with support A, signs s and gradient g = grad f(v) is optimal if and only if

        g_A = -lambda_A s_A,   |g_j| <= lambda_j off A,

    so that once A and s are known v is the solution of one linear system. ADMM, with a factor that all rows share, finds
    them in float32. When the signs of a row have rested, its system is solved in float64. Weights that come out with the
    wrong sign are removed from the support, channels with |g_j| > lambda_j enter it, and a new system is solved; a row takes
    such a step only if its objective falls. One solve is enough for most rows. The others go on with ADMM. Those that fail
    again and again, as happens at a tiny lambda or on a singular Gram, are also followed from their best point, a few signs at
    a time, by a path of falling objectives that is finite. A row that is done is not touched again. The docstring of the module
    has the cost of each part, from which follows when it runs.

    Parameters
    ----------
    problem : Quadratic
        f. A float32 problem is solved in float64 and its answer rounded, which the certificate includes.
    term : L1
        lambda. A row with unpenalised weights (lambda_ij = 0) is solved like the others, but its certificate has no lower bound
        except zero.
    start : array (q, p), optional
        The first point. The default is the dense weights.
    tol : float, default 1e-6
        The relative duality gap of every row.
    max_steps : int, default 10000
        The most steps of ADMM, after which the best weights found so far are returned.

    Returns
    -------
    Solution
        CONVERGED; STEP_LIMIT; or DIRECT, where all rows satisfy the conditions to rounding and the gap is still above `tol`.
        Its detail: `solves`, linear systems solved; `open_rows`, rows that are neither at `tol` nor at rounding.

    Raises
    ------
    ValueError
        For a start of another shape, or not finite, and for tol < 0 or max_steps < 1.

    References
    ----------
    Osborne et al. 2000 and Lee et al. 2007 for the exact steps, Boyd et al. 2011 for ADMM.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import L1, Quadratic, lasso
    >>> rng = np.random.default_rng(0)
    >>> problem = Quadratic.from_data(rng.normal(size=(64, 8)), rng.normal(size=(4, 8)))
    >>> solution = lasso(problem, L1(20.0), tol=1e-9)
    >>> solution.certificate.relative_gap <= 1e-9, int(solution.detail["open_rows"])
    (True, 0)
    """
    return Workspace.of(problem).lasso(term, start=start, tol=tol, max_steps=max_steps)


@dataclass(frozen=True, eq=False)
class Workspace:
    """Hold what the LASSOs of one problem share.

    exact: the problem in unit-diagonal coordinates v_j scale_j and float64. inverse: the inverses of its Gram.
    """

    problem: Quadratic
    exact: Quadratic
    scale: Array
    inverse: Inverses

    @classmethod
    def of(cls, problem: Quadratic) -> Workspace:
        """Prepare a problem."""
        exact, scale = problem.double.rescaled()
        xp = namespace(scale)
        # The loss does not see the weights of a dead channel, so the anchor may as well be zero there.
        exact = replace(exact, anchor=xp.where(exact.diagonal == 0, xp.zeros_like(exact.anchor), exact.anchor), trusted=True)
        return cls(problem, exact, scale, inverses(exact.gram))

    @full_precision()
    def lasso(self, term: L1, *, start: Array | None = None, tol: float = 1e-6, max_steps: int = 10_000) -> Solution:
        """Solve the LASSO at this term, as the function `lasso` does."""
        exact, scale = self.exact, self.scale
        if not tol >= 0 or max_steps < 1:
            raise ValueError(f"need tol >= 0 and max_steps >= 1 but got {tol} and {max_steps}")
        start = as_floating(self.problem.anchor if start is None else start, like=exact.anchor)
        if tuple(start.shape) != self.problem.shape:
            raise ValueError(f"start is {tuple(start.shape)} but the problem's weight is {self.problem.shape}")
        xp = namespace(exact.anchor, start)
        if not bool(xp.all(xp.isfinite(start))):
            raise ValueError("start holds NaN or Inf")
        weight = term.weight_like(start) / scale + xp.zeros_like(start)
        dead = xp.broadcast_to(exact.diagonal == 0, start.shape)
        start = xp.where(dead & (weight > 0), xp.zeros_like(start), start)  # a dead channel has nothing to do but cost
        best = evaluated(exact, L1(weight), start * scale)
        half = 0.5 * tol  # the other half is for what rounding takes off the bound
        search = Search.at(exact, weight, best, np.flatnonzero(~settled(exact, L1(weight), best, half)), self.inverse)
        history, steps, solves = [(0, best.measure)], 0, 0
        while search.rows.size and steps < max_steps:
            count = min(WATCH, max_steps - steps)
            search, steps = search.advanced(self.inverse, count), steps + count
            due = search.due() if steps < max_steps else np.arange(search.rows.size)
            if due.size:
                done, solved = search.tried(exact, weight, best, due, half)
                search, solves = search.after(due, done), solves + solved
                history.append((steps, best.measure))
        still = dead | (best.weights == start * scale)  # then to the last bit
        weights = xp.where(still, start, best.weights / scale)
        weights = as_floating(weights, like=self.problem.anchor)
        certificate = certify(self.problem, term, weights)
        status = Status.STEP_LIMIT if search.rows.size else Status.DIRECT
        status = Status.CONVERGED if certificate.measure <= tol else status
        if status is Status.DIRECT and certificate.bound == float("-inf"):  # every row says so, and of what is no loss
            status = Status.BROKEN
        detail = {"solves": float(solves), "open_rows": float(search.rows.size)}
        return Solution(weights, status, certificate, steps, tuple(history), detail)


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
    def at(cls, exact: Quadratic, weight: Array, best: Points, rows: np.ndarray, inverse: Inverses) -> Search:
        """Return the search before the first step."""
        xp = namespace(weight)
        chosen, first = xp.asarray(rows, device=device(weight)), best.rows(rows)
        part, term = exact.rows(chosen), L1(xp.take(weight, chosen, axis=0))
        penalty = balanced(term.weight_like(weight), part.anchor)
        state = split(part, term, first.weights, first.gradient, penalty, inverse)
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
            state = state.penalised(balanced(state.weight, state.sparse, halvings=stage % HALVINGS), inverse)
        state = state.advanced(steps)
        signs = xp.astype(xp.sign(state.sparse), xp.int8)
        rest = to_numpy(xp.all(signs == self.signs, axis=1))
        rested, waited = np.where(rest, self.rested + steps, 0), self.waited + steps
        return replace(self, state=state, signs=signs, rested=rested, waited=waited, stage=stage, age=age + steps)

    def due(self) -> np.ndarray:
        """Return which rows, as positions in `rows`, it is time to try."""
        rest = np.maximum(REST, support_sizes(self.signs) ** 3 / (6 * self.signs.shape[1] ** 2)) * 2.0**self.failures
        return np.flatnonzero((self.rested >= rest) | (self.waited >= LATEST * rest))

    def tried(self, exact: Quadratic, weight: Array, best: Points, due: np.ndarray, tol: float) -> tuple[np.ndarray, int]:
        """Solve these rows exactly from where ADMM has brought them, some on every thread, and keep in `best` what is better.

        Return which of them are done, and the number of solves.
        """
        with crew(weight, due.size * weight.shape[1] ** 2) as every:
            parts = [part for part in np.array_split(due, every.size) if part.size]
            found = every(lambda part: self.tried_alone(exact, weight, best, part, tol), parts)
        return np.concatenate([done for done, _ in found]), sum(solves for _, solves in found)

    def tried_alone(self, exact: Quadratic, weight: Array, best: Points, due: np.ndarray, tol: float) -> tuple[np.ndarray, int]:
        """Do the same on one thread."""
        xp = namespace(weight)
        rows = self.rows[due]
        chosen, place = (xp.asarray(index, device=device(weight)) for index in (rows, due))
        part, term = exact.rows(chosen), L1(xp.take(weight, chosen, axis=0))
        found = evaluated(part, term, xp.astype(xp.take(self.state.sparse, place, axis=0), xp.float64))
        found, done, solves = finished(part, term, found, tol, ROUNDS)
        best.improve(rows, found, anyway=done)
        failures = self.failures[due]
        stubborn = np.flatnonzero(~done & (failures >= STUBBORN))
        if stubborn.size:  # the better they are known to resist, the longer
            place = xp.asarray(stubborn, device=device(weight))
            part, term = part.rows(place), L1(xp.take(term.weight_like(weight), place, axis=0))
            rounds = 2 ** int(failures[stubborn].min())
            found, done[stubborn], more = finished(part, term, best.rows(rows[stubborn]), tol, rounds, patient=True)
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
