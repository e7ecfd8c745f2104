"""The LASSO at full speed: with a ridge or without, and of weights that may not be negative."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from gramian.solvers.backend._xp import Array, as_floating, namespace
from gramian.solvers.backend.computing import computation
from gramian.solvers.backend.options import is_number, number, shown, whole
from gramian.solvers.backend.printed import digits
from gramian.solvers.core.certificate import Certificate, certify
from gramian.solvers.core.prices import price_like
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Solution, Status
from gramian.solvers.core.terms import L1, term_of
from gramian.solvers.core.watch import Callback, Watch, watched
from gramian.solvers.l1.costs import Costs, Lift
from gramian.solvers.l1.search import Search
from gramian.solvers.l1.signs import evaluated, settled
from gramian.solvers.l1.splitting import Inverses, inverses
from gramian.solvers.terms.ranges import NonNegative
from gramian.solvers.terms.squares import ElasticNet

__all__ = ["Workspace", "lasso"]

Separable = L1 | ElasticNet | NonNegative

WATCH = 10  # steps of ADMM between two looks at the signs
FURTHER = 200  # of them, and as many as were taken, for rows whose gap here is met and that of the certificate is not


@computation
def lasso(
    problem: Quadratic,
    term: Separable | float,
    *,
    start: Array | None = None,
    tol: float = 1e-6,
    max_steps: int = 10_000,
    throw: bool = False,
    time_limit: float | None = None,
    callback: Callback | None = None,
    progress: bool = False,
) -> Solution:
    """argmin_V f(V) + sum_ij lambda_ij |V_ij| + mu_j / 2 V_ij^2, or over V >= 0, every row to a relative gap of `tol`

    A row v with support A, signs s and gradient g = grad f(v) is optimal, where mu = 0, if and only if

        g_A = -lambda_A s_A,   |g_j| <= lambda_j off A,

    so that once A and s are known v is the solution of one linear system. ADMM, with a factor that all rows share, finds
    them in float32. When the signs of a row have rested, its system is solved in float64. Weights that come out with the
    wrong sign are removed from the support, channels with |g_j| > lambda_j enter it, and a new system is solved; a row takes
    such a step only if its objective falls. One solve is enough for most rows. The others go on with ADMM. Those that fail
    again and again, as happens at a tiny lambda or on a singular Gram, are also followed from their best point, a few signs at
    a time, by a path of falling objectives that is finite. A row that is done is not touched again. The docstring of `search`
    has the cost of each part, from which follows when it runs.

    Over V >= 0 all signs are positive, and -g_j <= lambda_j off A; with lambda = 0 that is non-negative least squares. A ridge
    mu is added to the Gram: the elastic net of G is the LASSO of G + diag(mu). What comes out is in practice exact to rounding.

    Parameters
    ----------
    problem : Quadratic
        f. A float32 problem is solved in float64 and its answer rounded, which the certificate includes.
    term : L1, ElasticNet, NonNegative or float
        lambda, mu and whether no weight may be negative; a number is the lambda of an L1 term. Rows share the ridge, which is a
        number or one for every channel.
    start : array (q, p), optional
        The first point. The default is the dense weights; negative ones count as zero where none may be.
    tol : float, default 1e-6
        The relative duality gap of every row.
    max_steps : int, default 10000
        The most steps of ADMM, after which the best weights found so far are returned.
    throw, time_limit, callback, progress : optional
        As of `solve`; a check is where rows are solved exactly.

    Returns
    -------
    Solution
        CONVERGED; STEP_LIMIT, TIME_LIMIT or STOPPED; or DIRECT, where all rows satisfy the conditions to rounding and the gap
        is still above `tol`. Its detail: `solves`, linear systems solved; `open_rows`, rows that are neither at `tol` nor at
        rounding.

    Raises
    ------
    ValueError
        For a lambda or a start of another shape, or not finite, for tol < 0 or max_steps < 1, and for rows of different ridges.
    TypeError
        For another term.

    References
    ----------
    Osborne et al. 2000 and Lee et al. 2007 for the exact steps, Boyd et al. 2011 for ADMM; Lawson and Hanson 1974 for
    non-negative least squares, Zou and Hastie 2005 for the elastic net.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import L1, ElasticNet, NonNegative, Quadratic, lasso
    >>> rng = np.random.default_rng(0)
    >>> problem = Quadratic.from_data(rng.normal(size=(64, 8)), rng.normal(size=(4, 8)))
    >>> solution = lasso(problem, L1(20.0), tol=1e-9)
    >>> solution.certificate.relative_gap <= 1e-9, int(solution.detail["open_rows"])
    (True, 0)
    >>> lasso(problem, ElasticNet(20.0, ridge=5.0), tol=1e-9).certificate.relative_gap <= 1e-9
    True
    >>> solution = lasso(problem, NonNegative(), tol=1e-9)
    >>> bool((solution.weights >= 0).all()), solution.certificate.relative_gap <= 1e-9
    (True, True)
    """
    tol, max_steps = number("tol", tol), whole("max_steps", max_steps)
    term, start = separable_of(term, problem.anchor), problem.double.starting_point(start)
    with watched("lasso", max_steps, "step", time_limit=time_limit, callback=callback, progress=progress) as watch:
        solution = Workspace.of(problem).lasso(term, watch, start=start, tol=tol, max_steps=max_steps)
    return solution.required() if throw else solution


def separable_of(term: Separable | float, weight: Array) -> Separable:
    """Return the term that fits a weight (q, p), of which a number is the lambda of an L1 term."""
    if not isinstance(term, Separable) and not is_number(term):
        raise TypeError(
            "lasso takes an L1 term, or its lambda as a number, an ElasticNet or a NonNegative, "
            f"but got {shown(term)}: `solve` takes any term"
        )
    found = term_of(term, weight)
    assert isinstance(found, Separable)
    return found


@dataclass(frozen=True, eq=False)
class Workspace:
    """Hold what the LASSOs of one problem share.

    exact: the problem in unit-diagonal coordinates v_j scale_j and float64, with `ridge` on its weights. inverse: the inverses
    of its Gram. ridge: a number or (p,), or None. ridged: the workspace of the last ridge that a term asked for.
    """

    problem: Quadratic
    exact: Quadratic
    scale: Array
    inverse: Inverses
    ridge: Array | float | None = None
    ridged: list[Workspace] = field(default_factory=list)

    @classmethod
    def of(cls, problem: Quadratic, ridge: Array | float | None = None) -> Workspace:
        """Prepare a problem."""
        exact, scale = (problem.double if ridge is None else problem.double.ridged(ridge)).rescaled()
        xp = namespace(scale)
        # The loss does not see the weights of a dead channel, so the anchor may as well be zero there.
        exact = replace(exact, anchor=xp.where(exact.diagonal == 0, xp.zeros_like(exact.anchor), exact.anchor), trusted=True)
        return cls(problem, exact, scale, inverses(exact.gram), ridge)

    def for_ridge(self, ridge: Array | float | None) -> Workspace:
        """Return the workspace of the problem with this ridge, which is this one, or the last one, if that has it."""
        for known in (self, *self.ridged):
            if known.ridge is ridge or (ridge is not None and known.ridge is not None and equal(known.ridge, ridge)):
                return known
        self.ridged[:] = [Workspace.of(self.problem, ridge)]
        return self.ridged[0]

    @cached_property
    def lift(self) -> Lift | None:
        """Return the lift of the problem in unit-diagonal coordinates."""
        if self.ridge is not None:
            return Lift.of(self.exact)
        found = Lift.of(self.problem.double)  # which its certificates need too
        return None if found is None else replace(found, slope=found.slope / self.scale)

    def lasso(
        self, term: Separable, watch: Watch, *, start: Array | None = None, tol: float = 1e-6, max_steps: int = 10_000
    ) -> Solution:
        """Solve the LASSO at this term, as the function `lasso` does, whose options are checked already, beside a watch."""
        here = self.for_ridge(shared_ridge(term))
        exact, scale = here.exact, here.scale
        start = as_floating(self.problem.anchor if start is None else start, like=exact.anchor)
        xp = namespace(exact.anchor, start)
        positive = isinstance(term, NonNegative)
        costs = Costs(price_like(term.weight, start) / scale + xp.zeros_like(start), positive, here.lift if positive else None)
        dead, idle = (xp.broadcast_to(each.diagonal == 0, start.shape) for each in (self.exact, exact))
        costly = dead & ((costs.limit > 0) | ~idle)  # a dead channel has nothing to do but cost
        start = xp.where(costly, xp.zeros_like(start), costs.nearest(start))
        best = evaluated(exact, costs, xp.where(idle, xp.zeros_like(start), start * scale))
        demanded = 0.5 * tol  # the other half is for what rounding takes off the bound
        history, steps, solves, last = [(0, best.measure)], 0, 0, max_steps

        def reached() -> tuple[Array, Certificate]:
            """Return the best weights so far, as they would be returned."""
            still = idle | (best.weights == start * scale)  # then to the last bit
            weights = as_floating(xp.where(still, start, best.weights / scale), like=self.problem.anchor)
            return weights, certify(self.problem, term, weights)

        ended = watch.verdict(0, reached, f"gap {digits(best.measure)}")
        while True:
            search = Search.at(exact, costs, best, np.flatnonzero(~settled(exact, costs, best, demanded)), here.inverse)
            while search.rows.size and steps < last and not ended:
                count = min(WATCH, last - steps)
                search, steps = search.advanced(here.inverse, count), steps + count
                due = search.due() if steps < last else np.arange(search.rows.size)
                if due.size:
                    done, solved = search.tried(exact, costs, best, due, demanded)
                    search, solves = search.after(due, done), solves + solved
                    history.append((steps, best.measure))
                    ended = watch.verdict(steps, reached, f"gap {digits(best.measure)}")
                elif watch.late():
                    ended = Status.TIME_LIMIT
            weights, certificate = reached()
            if certificate.measure <= tol or demanded == 0 or steps == max_steps or ended:
                break
            last, demanded = min(max_steps, 2 * steps + FURTHER), 0.0  # the certificate's dual points may be worse: to rounding
        left = int(np.sum(~settled(exact, costs, best, tol)))
        status = (ended or Status.STEP_LIMIT) if left else Status.DIRECT
        status = Status.CONVERGED if certificate.measure <= tol else status
        if status is Status.DIRECT and certificate.bound == float("-inf"):  # every row says so, and of what is no loss
            status = Status.BROKEN
        detail = {"solves": float(solves), "open_rows": float(left)}
        return Solution(weights, status, certificate, steps, tuple(history), detail)


def shared_ridge(term: Separable) -> Array | float | None:
    """Return the ridge of a term, a number or (p,), or None if it has none.

    ValueError is raised where rows have different ones: their Grams would not be the same.
    """
    ridge = getattr(term, "ridge", 0.0)
    if isinstance(ridge, int | float):
        return float(ridge) if ridge else None
    xp = namespace(ridge)
    if ridge.ndim == 2:
        if bool(xp.any(ridge != ridge[:1, :])):
            raise ValueError(
                f"the rows of a problem share one Gram if they share the ridge, but {term} has one for every row: "
                "solve the rows of each ridge by themselves, or use solve(problem, term, FISTA(scaled=True))"
            )
        ridge = ridge[0, :]
    return ridge


def equal(one: Array | float, other: Array | float) -> bool:
    """Return whether two ridges are the same."""
    difference = one != other
    return not (difference if isinstance(difference, bool) else bool(namespace(difference).any(difference)))
