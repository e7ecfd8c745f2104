"""What weights are made of, where they are a sum or a product: carried from a solution to what saves it."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from gramian.adapters.models.factored_weights import Factors
from gramian.adapters.models.wrapped_weights import Wrapped
from gramian.solvers import FactoredSolution, Quadratic, Solution, WrappedSolution

__all__ = ["KINDS", "Parts", "parts_in"]

KINDS: tuple[type, ...] = (Factors, Wrapped)


class Parts(Protocol):
    """S + B A, or A S B, in the memory of the host.

    merged: whether a model is run with the sum or product, rounded to its dtype, rather than with the parts as they are stored.
    has_zeros: whether one of the parts has the zeros of a pattern, which `mask` are.
    """

    @property
    def merged(self) -> bool: ...

    @property
    def has_zeros(self) -> bool: ...

    @property
    def weights(self) -> torch.Tensor:
        """The sum or product, in float64."""

    @property
    def mask(self) -> torch.Tensor:
        """Which weights of the sparse part are kept."""

    def rounded(self, dtype: torch.dtype) -> Parts:
        """The same as they are stored in a dtype."""

    def residual(self, problem: Quadratic, weights: Any) -> float:
        """That of the first-order conditions at the weights as they are stored."""


def parts_in(solution: Solution) -> Parts | None:
    """The parts of a solution that has some."""
    if isinstance(solution, FactoredSolution):
        return Factors.of(solution)
    if isinstance(solution, WrappedSolution) and solution.factors is not None:
        return Wrapped.of(solution.factors)
    return None
