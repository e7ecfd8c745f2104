"""The loop that runs a convex iterative solver until a certificate says that it is done."""

from __future__ import annotations

from typing import Any, Protocol

from gramian.solvers.backend._xp import Array, copied, namespace
from gramian.solvers.backend.computing import computation
from gramian.solvers.backend.options import number, shown, whole
from gramian.solvers.core.certificate import certify
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Solution, Status
from gramian.solvers.core.terms import Term, TermLike, term_of

__all__ = ["Solver", "solve"]


class Solver(Protocol):
    """Describe a solver that `solve` can run: a frozen set of hyper-parameters with three functions.

    All that changes lives in the state, which belongs to the solver.

    Methods
    -------
    init(problem, term, start)
        Return the state before the first step.
    step(problem, term, state)
        Return the state after one step.
    weights(state)
        Return the point that would be returned now, which is the one that is certified.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import L1, Quadratic, solve
    >>> class ProximalGradient:
    ...     def init(self, problem, term, start):
    ...         return start
    ...     def step(self, problem, term, state):
    ...         return term.prox(state - problem.gradient(state) / problem.lipschitz, 1 / problem.lipschitz)
    ...     def weights(self, state):
    ...         return state
    >>> problem = Quadratic(np.eye(2), np.array([[3.0, 0.5]]))
    >>> solve(problem, L1(1.0), ProximalGradient()).weights.round(4).tolist()
    [[2.0, 0.0]]
    """

    def init(self, problem: Quadratic, term: Term, start: Array) -> Any:
        """Return the state before the first step."""
        ...

    def step(self, problem: Quadratic, term: Term, state: Any) -> Any:
        """Return the state after one step."""
        ...

    def weights(self, state: Any) -> Array:
        """Return the point that would be returned now, which is the one that is certified."""
        ...


@computation
def solve(
    problem: Quadratic,
    term: TermLike,
    solver: Solver,
    *,
    start: Array | None = None,
    tol: float = 1e-6,
    max_steps: int = 10_000,
    check_every: int = 20,
) -> Solution:
    """argmin_V f(V) + h(V), to a relative duality gap (or KKT residual) of `tol`

    The certificate of the point that would be returned is computed in float64 every `check_every` steps and decides alone;
    it does not change when the problem is rescaled. Reaching `max_steps` is a status, not a failure. The device is waited for
    only at those checks.

    Parameters
    ----------
    problem : Quadratic
        f.
    term : L1, Support, Affine, or any object with `prox`
        h. A number is the lambda of an L1 term.
    solver : Solver
        For instance `FISTA()`.
    start : array (q, p), optional
        The first point. The default is the dense weights.
    tol : float, default 1e-6
        The relative gap, or the residual, at which the solver has converged.
    max_steps : int, default 10000
        The most steps.
    check_every : int, default 20
        Steps between two certificates.

    Returns
    -------
    Solution
        CONVERGED, STEP_LIMIT or BROKEN, with (step, measure) of every check as its history.

    Raises
    ------
    ValueError
        For numbers out of range, for a term that does not fit, and for a start of another shape, or with NaN or Inf.
    TypeError
        For what is no term, or no solver.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import FISTA, L1, Quadratic, solve
    >>> rng = np.random.default_rng(0)
    >>> problem = Quadratic.from_data(rng.normal(size=(64, 8)), rng.normal(size=(4, 8)))
    >>> solution = solve(problem, L1(20.0), FISTA(), tol=1e-8)
    >>> solution.status.name, solution.certificate.relative_gap <= 1e-8
    ('CONVERGED', True)
    """
    tol, max_steps = number("tol", tol), whole("max_steps", max_steps)
    check_every = whole("check_every", check_every)
    if isinstance(solver, type) or not all(hasattr(solver, name) for name in ("init", "step", "weights")):
        raise TypeError(f"a solver has init, step and weights, as FISTA() has, but got {shown(solver)}")
    term, start = term_of(term, problem.anchor), problem.starting_point(start)
    if not hasattr(term, "prox"):
        raise TypeError(f"a term has a proximal map `prox`, as L1(0.5) has, or is the lambda of one, but got {shown(term)}")
    xp = namespace(problem.anchor)
    state = solver.init(problem, term, start)
    weights, certificate = copied(start), certify(problem, term, start)
    history = [(0, certificate.measure)]
    done = 0
    status = Status.CONVERGED if certificate.measure <= tol and certificate.violation == 0 else Status.STEP_LIMIT
    while status is Status.STEP_LIMIT and done < max_steps:
        for _ in range(min(check_every, max_steps - done)):
            state = solver.step(problem, term, state)
            done += 1
        candidate = solver.weights(state)
        if not bool(xp.all(xp.isfinite(candidate))):
            status = Status.BROKEN
            continue
        weights, certificate = candidate, certify(problem, term, candidate)
        history.append((done, certificate.measure))
        if certificate.measure <= tol and certificate.violation == 0:
            status = Status.CONVERGED
    return Solution(weights, status, certificate, done, tuple(history))
