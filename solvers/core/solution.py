"""What every solver returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from gramian.solvers.backend._xp import Array
from gramian.solvers.core.certificate import Certificate

__all__ = ["Solution", "Status"]


class Status(Enum):
    """How a solver ended, as a sentence."""

    CONVERGED = "the certificate met the tolerance"
    STEP_LIMIT = "the step limit came before the tolerance; the certificate is what was reached"
    DIRECT = "computed directly, not by iteration"
    SEARCHED = "best of the candidates that a search visited"
    DAMPED = "the Gram matrix was not positive definite enough and more damping than asked for was used"
    SINGULAR = "the Gram matrix is singular on some supports; there it is the minimiser that changes the weights least"
    UNREACHABLE = "the requested sparsity cannot be told apart from the natural zeros of the unpenalised solution"
    BROKEN = "NaN or Inf, or a loss below zero, which no data has; the last finite point is returned"


@dataclass(frozen=True, eq=False)
class Solution:
    """weights (q, p) with the certificate of exactly these weights.

    steps: iterations spent. history: (step, certificate measure) pairs, or one pair per candidate of a search.
    detail: named figures that a method adds (the LASSO gap before rounding, the damping used, ...).
    """

    weights: Array
    status: Status
    certificate: Certificate
    steps: int = 0
    history: tuple[tuple[int, float], ...] = ()
    detail: dict[str, float] = field(default_factory=dict)
