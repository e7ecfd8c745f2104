"""Where a search begins: the answers of the direct methods, by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from gramian.solvers.core.patterns import Pattern
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Solution
from gramian.solvers.support.baselines import magnitude, wanda
from gramian.solvers.support.obs import sparsegpt

__all__ = ["STARTS", "Start", "check_choice"]


class Start(Protocol):
    """A method that needs no options."""

    def __call__(self, problem: Quadratic, pattern: Pattern, /) -> Solution:
        """Return weights that satisfy the pattern."""
        ...


STARTS: Mapping[str, Start] = {"magnitude": magnitude, "wanda": wanda, "sparsegpt": sparsegpt}


def check_choice(option: str, value: str, choices: Collection[str]) -> None:
    """Raise ValueError for a value that is none of the choices of an option."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{option} must be one of {', '.join(choices)} but is {value!r}")
