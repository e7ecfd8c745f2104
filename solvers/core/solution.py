"""What every solver returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from gramian.solvers.backend._xp import Array
from gramian.solvers.backend.printed import aligned, digits, extent, fraction_of_zeros, kind
from gramian.solvers.core.certificate import Certificate, measured

__all__ = ["NotSolved", "Solution", "Status"]


class Status(Enum):
    """Say how a solver ended; every value is a sentence, with what to do next where something is to be done.

    Attributes
    ----------
    CONVERGED : str
        The certificate met the tolerance.
    AT_ROUNDING : str
        The tolerance is met but for what rounding takes off the bound: more steps would not improve the certificate.
    STEP_LIMIT : str
        The step limit came before the tolerance; the certificate is honest.
    TIME_LIMIT : str
        The time limit came before the solver's own end; the certificate is honest.
    STOPPED : str
        The callback ended the solver; the certificate is honest.
    DIRECT : str
        The answer was computed directly, not by iteration.
    SEARCHED : str
        The answer is the best of the candidates that a search visited.
    SWAP_OPTIMAL : str
        A search ended at a support where no exchange of a kept weight for a pruned one lowers the loss.
    DAMPED : str
        The Gram matrix was not positive definite enough, so more damping was used than was requested.
    SINGULAR : str
        The Gram matrix is singular on some supports; there the answer is the minimiser that changes the weights least.
    UNREACHABLE : str
        The requested sparsity cannot be distinguished from the natural zeros of the unpenalised solution.
    BROKEN : str
        NaN or Inf came up, or a loss below zero, which no data has; the last finite point is returned.

    Examples
    --------
    >>> from gramian.solvers import Status
    >>> Status.CONVERGED.value
    'the certificate met the tolerance'
    """

    CONVERGED = "the certificate met the tolerance"
    AT_ROUNDING = (
        "the tolerance is met but for what rounding takes off the bound: a larger one can be proven, and in float64 no better "
        "weights"
    )
    STEP_LIMIT = (
        "the step limit came before the tolerance, and the certificate is what was reached: raise the limit or the tolerance, "
        "or go on from these weights"
    )
    TIME_LIMIT = (
        "the time limit came first, and the certificate is what was reached: raise time_limit, or go on from these weights"
    )
    STOPPED = "the callback ended it, and the certificate is what was reached: go on from these weights for more"
    DIRECT = "computed directly, not by iteration"
    SEARCHED = "best of the candidates that a search visited: a longer search, or another start, may find better ones"
    SWAP_OPTIMAL = "no exchange of a kept weight for a pruned one, all others refitted, lowers the loss: only another start can"
    DAMPED = (
        "the Gram matrix was not positive definite enough and more damping than requested was used, which detail states: "
        "request as much, or calibrate on more tokens"
    )
    SINGULAR = (
        "the Gram matrix is singular on some supports; there it is the minimiser that changes the weights least: damp the "
        "problem, or calibrate on more tokens, for a unique one"
    )
    UNREACHABLE = (
        "the requested sparsity cannot be distinguished from the natural zeros of the unpenalised solution: request at "
        "least as many zeros as these weights have"
    )
    BROKEN = (
        "NaN or Inf, or a loss below zero, which no data has; the last finite point is returned: see that Gram, slope and "
        "floor are moments of the same tokens, in float64"
    )

    @property
    def label(self) -> str:
        """Return the name in words, as in `step limit`."""
        return self.name.lower().replace("_", " ")

    @property
    def failed(self) -> bool:
        """Return whether what was requested was not reached: STEP_LIMIT, TIME_LIMIT, UNREACHABLE and BROKEN."""
        return self in (Status.STEP_LIMIT, Status.TIME_LIMIT, Status.UNREACHABLE, Status.BROKEN)


@dataclass(frozen=True, eq=False)
class Solution:
    """Hold weights with the certificate of exactly these weights.

    Whatever the solver says, the status is BROKEN where the certificate is not sound, for a loss below zero is one of no data.

    Parameters
    ----------
    weights : array (q, p)
        V, in the dtype of the problem.
    status : Status
        How the solver ended.
    certificate : Certificate
        What is proven of these weights.
    steps : int, default 0
        Iterations spent.
    history : tuple of (int, float), default ()
        Pairs (step, measure of the certificate), or one pair per candidate of a search.
    detail : dict of str to float
        Named figures that a method adds, such as the LASSO gap before rounding, or the damping that was used.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import Quadratic, TopK, sparsegpt
    >>> rng = np.random.default_rng(0)
    >>> problem = Quadratic.from_data(rng.normal(size=(64, 8)), rng.normal(size=(4, 8)))
    >>> solution = sparsegpt(problem, TopK(0.5))
    >>> solution
    Solution(4x8, direct, KKT residual 0.031, 50 % zeros)
    >>> solution.status.value
    'computed directly, not by iteration'
    """

    weights: Array
    status: Status
    certificate: Certificate
    steps: int = 0
    history: tuple[tuple[int, float], ...] = ()
    detail: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.certificate.sound:
            object.__setattr__(self, "status", Status.BROKEN)

    def __repr__(self) -> str:
        proven = measured(self.certificate)
        return (
            f"{type(self).__name__}({extent(self.weights)}, {self.status.label}, {proven}, {fraction_of_zeros(self.weights)})"
        )

    def required(self) -> Solution:
        """Return this solution, or raise NotSolved with it where its status is a failure."""
        if self.status.failed:
            raise NotSolved(self)
        return self

    def summary(self) -> str:
        """Return what is known of the weights, a line for each, with units."""
        rows = [
            ("weights", f"{extent(self.weights)} ({kind(self.weights)}), {fraction_of_zeros(self.weights)}"),
            ("status", f"{self.status.label}: {self.status.value}"),
            ("steps", str(self.steps)),
            *self.certificate.rows(),
            *((name.replace("_", " "), digits(value)) for name, value in self.detail.items()),
        ]
        return aligned(rows)


class NotSolved(RuntimeError):
    """Say that a solver has not reached what was requested, and hold what it has.

    Solvers raise it where `throw` is True and the status is a failure, and `Solution.required` does.

    Parameters
    ----------
    solution : Solution
        What would have been returned; of `relaxed_mask` with the mask as its weights.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import FISTA, L1, NotSolved, Quadratic, solve
    >>> problem = Quadratic(np.diag([1.0, 1e-3]), np.array([[3.0, 0.5]]))
    >>> try:
    ...     solve(problem, L1(1e-4), FISTA(), max_steps=20, throw=True)
    ... except NotSolved as error:
    ...     error.solution.status.label, error.solution.steps
    ('step limit', 20)
    """

    def __init__(self, solution: Solution) -> None:
        super().__init__(solution)
        self.solution = solution

    def __str__(self) -> str:
        found = self.solution
        return f"{found.status.value} ({measured(found.certificate)} after {found.steps} steps)"
