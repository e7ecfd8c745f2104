"""The loop that runs a convex iterative solver until a certificate says that it is done."""

from __future__ import annotations

from typing import Any, Protocol

from gramian.solvers.backend._xp import Array, copied, namespace
from gramian.solvers.backend.computing import computation
from gramian.solvers.backend.options import number, shown, whole
from gramian.solvers.core.certificate import Certificate, certify, measured
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Solution, Status
from gramian.solvers.core.terms import Term, TermLike, term_of
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
        CONVERGED, AT_ROUNDING, STEP_LIMIT, TIME_LIMIT, STOPPED or BROKEN, with (step, measure) of every check as its history.

    Raises
    ------
    ValueError
        For numbers out of range, for a term that does not fit, and for a start of another shape, or with NaN or Inf.
    TypeError
        For what is no term, or no solver, and for a callback that cannot be called.

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
    tol, max_steps = number("tol", tol), whole("max_steps", max_steps)
    check_every = whole("check_every", check_every)
    if isinstance(solver, type) or not all(hasattr(solver, name) for name in ("init", "step", "weights")):
        raise TypeError(f"a solver has init, step and weights, as FISTA() has, but got {shown(solver)}")
    term, start = term_of(term, problem.anchor), problem.starting_point(start)
    if not hasattr(term, "prox"):
        raise TypeError(f"a term has a proximal map `prox`, as L1(0.5) has, or is the lambda of one, but got {shown(term)}")
    with watched("solve", max_steps, "step", time_limit=time_limit, callback=callback, progress=progress) as watch:
        solution = watched_solve(
            problem, term, solver, watch, start=start, tol=tol, max_steps=max_steps, check_every=check_every
        )
    return solution.required() if throw else solution


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
    """Do what `solve` does, whose options are checked already, beside a watch that others may share."""
    start = problem.anchor if start is None else start
    xp = namespace(problem.anchor)
    state = solver.init(problem, term, start)
    weights, certificate = copied(start), certify(problem, term, start)
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
    if not certificate.sound:
        return Status.BROKEN
    if certificate.violation != 0:
        return Status.STEP_LIMIT
    if certificate.measure <= tol:
        return Status.CONVERGED
    return Status.AT_ROUNDING if certificate.met_but_for_rounding(tol) else Status.STEP_LIMIT
