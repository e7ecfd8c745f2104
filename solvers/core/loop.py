"""The loop that runs a convex iterative solver until a certificate says that it is done."""

from __future__ import annotations

from typing import Any, Protocol

from gramian.solvers.backend._xp import Array, as_floating, namespace
from gramian.solvers.backend.precision import full_precision
from gramian.solvers.core.certificate import Certificate, certify
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Solution, Status
from gramian.solvers.core.terms import Term

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


@full_precision()
def solve(
    problem: Quadratic,
    term: Term,
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
    term : L1, Support or Affine
        h.
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
        CONVERGED, AT_ROUNDING, STEP_LIMIT or BROKEN, with (step, measure) of every check as its history.

    Raises
    ------
    ValueError
        For numbers out of range, and for a start of another shape, or with NaN or Inf.

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
    if not tol >= 0 or max_steps < 1 or check_every < 1:
        raise ValueError(f"need tol >= 0, max_steps >= 1, check_every >= 1 but got {tol}, {max_steps}, {check_every}")
    start = problem.anchor if start is None else as_floating(start, like=problem.anchor)
    if tuple(start.shape) != problem.shape:
        raise ValueError(f"start is {tuple(start.shape)} but the problem's weight is {problem.shape}")
    xp = namespace(problem.anchor)
    if not bool(xp.all(xp.isfinite(start))):
        raise ValueError("start holds NaN or Inf")
    state = solver.init(problem, term, start)
    weights, certificate = xp.asarray(start, copy=True), certify(problem, term, start)
    history = [(0, certificate.measure)]
    done = 0
    status = ending(certificate, tol)
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
        status = ending(certificate, tol)
    return Solution(weights, status, certificate, done, tuple(history))


def ending(certificate: Certificate, tol: float) -> Status:
    """Return how a solver ends at this certificate, or STEP_LIMIT where it goes on."""
    if not certificate.sound:
        return Status.BROKEN
    if certificate.violation != 0:
        return Status.STEP_LIMIT
    if certificate.measure <= tol:
        return Status.CONVERGED
    return Status.AT_ROUNDING if certificate.met_but_for_rounding(tol) else Status.STEP_LIMIT
