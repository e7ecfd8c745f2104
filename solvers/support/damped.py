"""What happens around any method: how far its Gram matrix is trusted before, and exact weights on its support after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gramian.solvers.backend.options import is_number
from gramian.solvers.core.patterns import Pattern
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Solution
from gramian.solvers.direct.restricted import refit
from gramian.solvers.support.shrinkage import empirical_ridge

__all__ = ["CalibrationSplit", "DampedMethod", "check_damping"]

MARGIN = 1.5  # text set aside is of the same source: what a model will read differs more from what calibrates


@dataclass(frozen=True)
class CalibrationSplit:
    """Describe what the problem of a layer was made of.

    tokens: how many. split: the same layer's problems from two disjoint parts of those tokens, one to fit and one to choose by,
    and the tokens of the first; None where there is no such split.
    """

    tokens: int
    split: tuple[Quadratic, Quadratic, int] | None = None


@dataclass(frozen=True)
class DampedMethod:
    """Run a method on a damped problem, and refit its answer where that is wanted.

    solve: argmin over a pattern, a method with its options. damping: d for the ridge `d G_jj` on the change of
    channel j; "auto" for the empirical Bayes ridge, MARGIN times the strength that is best on the held-out split, if there is
    one; 0 for none. refit: solve for the best weights on the method's support, which never raises the loss.
    """

    solve: Callable[[Quadratic, Pattern], Solution]
    damping: float | str = 0.0
    refit: bool = False

    def __call__(self, problem: Quadratic, pattern: Pattern, calibration: CalibrationSplit) -> Solution:
        """Return the answer of the method; its certificate is that of the damped problem, which is the one that was solved."""
        return self.answer(*self.damped(problem, pattern, calibration), pattern)

    def on_parts(
        self, problem: Quadratic, pattern: Pattern, calibration: CalibrationSplit, rows: Sequence[slice]
    ) -> list[Solution]:
        """Return the answers for some ranges of rows, where the method and the pattern ask nothing of other rows."""
        damped, detail = self.damped(problem, pattern, calibration)
        return [self.answer(part, detail, pattern) for part in damped.parts(rows)]

    def answer(self, damped: Quadratic, detail: dict[str, float], pattern: Pattern) -> Solution:
        """Return the answer for a problem that is damped already."""
        solution = self.solve(damped, pattern)
        if self.refit:
            polished = refit(damped, solution.weights != 0, start=solution.weights)
            solution = replace(solution, weights=polished.weights, certificate=polished.certificate)
        return replace(solution, detail={**solution.detail, **detail})

    def damped(self, problem: Quadratic, pattern: Pattern, calibration: CalibrationSplit) -> tuple[Quadratic, dict[str, float]]:
        """Return the damped problem, and what its damping was."""
        if self.damping == "auto":
            fitted, other, tokens = calibration.split or (problem, None, calibration.tokens)
            found = empirical_ridge(fitted, pattern, tokens, heldout=other)
            factor = 1.0 if other is None else MARGIN
            # the ridge stands against a sum over tokens, so it is the same for a part of them and for all
            return problem.damped(factor * found.ridge), {"ridge_strength": factor * found.strength}
        if self.damping:
            return problem.damped(float(self.damping) * problem.diagonal), {}
        return problem, {}


def check_damping(damping: float | str) -> None:
    """Raise ValueError for what is neither "auto" nor a finite number of at least zero."""
    if damping != "auto" and not (is_number(damping) and 0 <= float(damping) < float("inf")):
        raise ValueError(f"damping must be a number of at least 0 or 'auto' but is {damping!r}")
