"""The loop that runs a convex iterative solver until a certificate says that it is done."""

from __future__ import annotations

from typing import Any, Protocol

from gramian.solvers.backend._xp import Array, as_floating, namespace
from gramian.solvers.backend.precision import full_precision
from gramian.solvers.core.certificate import Certificate, certify, measured
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Solution, Status
from gramian.solvers.core.terms import Term
from gramian.solvers.core.watch import Callback, Watch, watched

__all__ = ["Solver", "solve", "watched_solve"]


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


def solve(
    problem: Quadratic,
    term: Term,
    solver: Solver,
    *,
    start: Array | None = None,
    tol: float = 1e-6,
    max_steps: int = 10_000,
    check_every: int = 20,
    throw: bool = False,
    time_limit: float | None = None,
    callback: Callback | None = None,
    progress: bool = False,
) -> Solution:
    """argmin_V f(V) + h(V), to a relative duality gap (or KKT residual) of `tol`

    The certificate of the point that would be returned is computed in float64 every `check_every` steps and decides alone;
    it does not change when the problem is rescaled. Reaching a limit is a status, and an error only with `throw`. The device is
    waited for only at those checks.

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
    throw : bool, default False
        Whether NotSolved is raised, with the solution, where the status is a failure (`Status.failed`).
    time_limit : float, optional
        Seconds after which the solver ends with what it has. The clock is looked at between steps, and a step that has begun is
        finished; a GPU is waited for at checks alone. None is no limit, and then the clock decides nothing.
    callback : function of (step, weights, certificate), optional
        It is called at every check, the first point and the last included, with the weights that would be returned now, a copy
        that it may keep, and their certificate. The solver ends where it returns True.
    progress : bool, default False
        Whether steps and the measure of the certificate are shown on stderr: a bar on a terminal, if tqdm is installed, else
        lines.

    Returns
    -------
    Solution
        CONVERGED, STEP_LIMIT, TIME_LIMIT, STOPPED or BROKEN, with (step, measure) of every check as its history.

    Raises
    ------
    ValueError
        For numbers out of range, and for a start of another shape, or with NaN or Inf.
    TypeError
        For a callback that cannot be called.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import FISTA, L1, Quadratic, solve
    >>> rng = np.random.default_rng(0)
    >>> problem = Quadratic.from_data(rng.normal(size=(64, 8)), rng.normal(size=(4, 8)))
    >>> solution = solve(problem, L1(20.0), FISTA(), tol=1e-8)
    >>> solution.status.name, solution.certificate.relative_gap <= 1e-8
    ('CONVERGED', True)
    >>> enough = lambda step, weights, certificate: certificate.relative_gap < 0.01
    >>> solve(problem, L1(20.0), FISTA(), check_every=1, callback=enough).status.name
    'STOPPED'
    """
    with watched("solve", max_steps, "step", time_limit=time_limit, callback=callback, progress=progress) as watch:
        solution = watched_solve(
            problem, term, solver, watch, start=start, tol=tol, max_steps=max_steps, check_every=check_every
        )
    return solution.required() if throw else solution


@full_precision()
def watched_solve(
    problem: Quadratic,
    term: Term,
    solver: Solver,
    watch: Watch,
    *,
    start: Array | None,
    tol: float,
    max_steps: int,
    check_every: int = 20,
) -> Solution:
    """Do what `solve` does, beside a watch that others may share."""
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
    history: list[tuple[int, float]] = []
    done = 0

    def reached() -> tuple[Array, Certificate]:
        """Return the point that would be returned now."""
        return weights, certificate

    while True:
        history.append((done, certificate.measure))
        ended = watch.verdict(done, reached, measured(certificate))
        status = ending(certificate, tol)
        if status is Status.STEP_LIMIT:
            status = ended or status
        if status is not Status.STEP_LIMIT or done >= max_steps:
            break
        for _ in range(min(check_every, max_steps - done)):
            state = solver.step(problem, term, state)
            done += 1
            if watch.late():
                break
        candidate = solver.weights(state)
        if not bool(xp.all(xp.isfinite(candidate))):
            status = Status.BROKEN
            break
        weights, certificate = candidate, certify(problem, term, candidate)
    return Solution(weights, status, certificate, done, tuple(history))


def ending(certificate: Certificate, tol: float) -> Status:
    """Return how a solver ends at this certificate, or STEP_LIMIT where it goes on."""
    met = certificate.measure <= tol and certificate.violation == 0
    return Status.CONVERGED if met else Status.STEP_LIMIT
