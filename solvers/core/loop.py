"""The loop that runs a convex iterative solver until a certificate says that it is done."""

from __future__ import annotations

from typing import Any, Protocol

from gramian.solvers.backend._xp import Array, as_floating, namespace
from gramian.solvers.backend.precision import full_precision
from gramian.solvers.core.certificate import certify
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Solution, Status
from gramian.solvers.core.terms import Term

__all__ = ["Solver", "solve"]


class Solver(Protocol):
    """A frozen set of hyper-parameters with three functions; all that changes lives in the state."""

    def init(self, problem: Quadratic, term: Term, start: Array) -> Any: ...

    def step(self, problem: Quadratic, term: Term, state: Any) -> Any: ...

    def weights(self, state: Any) -> Array:
        """The point that would be returned now, and so the one that is certified."""
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
    """argmin_V f(V) + h(V), to a relative duality gap (or KKT residual) of `tol`.

    start: (q, p), default the dense weights. The certificate of the point that would be returned is computed in float64
    every `check_every` steps and decides alone; it does not change when the problem is rescaled. Reaching `max_steps`
    is a status, not a failure. The device is waited for only at those checks.
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
