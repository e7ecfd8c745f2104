"""What every solver returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from gramian.solvers.backend._xp import Array
from gramian.solvers.backend.printed import extent, fraction_of_zeros
from gramian.solvers.core.certificate import Certificate, measured

__all__ = ["Solution", "Status"]


class Status(Enum):
    """Say how a solver ended; every value is a sentence.

    Attributes
    ----------
    CONVERGED : str
        The certificate met the tolerance.
    AT_ROUNDING : str
        The tolerance is met but for what rounding takes off the bound: more steps would not improve the certificate.
    STEP_LIMIT : str
        The step limit came before the tolerance; this is no failure, and the certificate is honest.
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
    AT_ROUNDING = "the tolerance is met but for what rounding takes off the bound"
    STEP_LIMIT = "the step limit came before the tolerance; the certificate is what was reached"
    DIRECT = "computed directly, not by iteration"
    SEARCHED = "best of the candidates that a search visited"
    SWAP_OPTIMAL = "no exchange of a kept weight for a pruned one, all others refitted, lowers the loss"
    DAMPED = "the Gram matrix was not positive definite enough and more damping than requested was used"
    SINGULAR = "the Gram matrix is singular on some supports; there it is the minimiser that changes the weights least"
    UNREACHABLE = "the requested sparsity cannot be distinguished from the natural zeros of the unpenalised solution"
    BROKEN = "NaN or Inf, or a loss below zero, which no data has; the last finite point is returned"

    @property
    def label(self) -> str:
        """Return the name in words, as in `step limit`."""
        return self.name.lower().replace("_", " ")


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
        return f"Solution({extent(self.weights)}, {self.status.label}, {proven}, {fraction_of_zeros(self.weights)})"
