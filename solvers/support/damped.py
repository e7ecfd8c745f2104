"""What happens around any method: how far its Gram matrix is trusted before, and exact weights on its support after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gramian.solvers.backend.options import is_number
from gramian.solvers.core.patterns import Pattern, counted_pattern
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Solution
from gramian.solvers.direct.restricted import refit
from gramian.solvers.support.growing_penalty import Peers
from gramian.solvers.support.shrinkage import LOCAL, STRENGTHS, Pilots, estimated

__all__ = ["CalibrationSplit", "DampedMethod", "check_damping"]

MARGIN = 1.5  # text set aside is of the same source: what a model will read differs more from what calibrates


@dataclass(frozen=True)
class CalibrationSplit:
    """Describe what the problem of a layer was made of.

    tokens: how many. split: the same layer's problems from two disjoint parts of those tokens, one to fit and one to choose by,
    of its `pilot_rows` at least, and the tokens of the first; None where there is no such split.
    """

    tokens: int
    split: tuple[Quadratic, Quadratic, int] | None = None


@dataclass(frozen=True)
class DampedMethod:
    """Run a method on a damped problem, and refit its answer where that is wanted.

    solve: argmin over a pattern, a method with its options. together: the same for parts of the rows, which ask
    `peers` for what concerns all, where the method has such a form. damping: d for the ridge `d G_jj` on the change of
    channel j; "auto" for the empirical Bayes ridge, MARGIN times the strength that is best on the held-out split, if there is
    one; 0 for none. refit: solve for the best weights on the method's support, which never raises the loss.
    """

    solve: Callable[[Quadratic, Pattern], Solution]
    damping: float | str = 0.0
    refit: bool = False
    together: Callable[[Sequence[Quadratic], Peers], list[Solution]] | None = None

    def __call__(self, problem: Quadratic, pattern: Pattern, calibration: CalibrationSplit) -> Solution:
        """Return the answer of the method; its certificate is that of the damped problem, which is the one that was solved."""
        damped, detail = self.damped(problem, pattern, calibration)
        return self.polished(damped, self.solve(damped, pattern), detail)

    def on_parts(
        self,
        problem: Quadratic,
        pattern: Pattern,
        calibration: CalibrationSplit,
        rows: Sequence[slice],
        peers: Peers,
        pilots: Pilots = LOCAL,
    ) -> list[Solution]:
        """Return the answers for some ranges of rows, of a method that has a form for them. peers: what they need of the other
        rows. pilots: how these are refitted."""
        assert self.together is not None
        damped, detail = self.damped(problem, pattern, calibration, pilots)
        parts = damped.parts(rows)
        return [self.polished(*each, detail) for each in zip(parts, self.together(parts, peers))]

    def polished(self, damped: Quadratic, solution: Solution, detail: dict[str, float]) -> Solution:
        """Return an answer as it is reported, with the best weights on its support where that is wanted."""
        if self.refit:
            exact = refit(damped, solution.weights != 0, start=solution.weights)
            solution = replace(solution, weights=exact.weights, certificate=exact.certificate)
        return replace(solution, detail={**solution.detail, **detail})

    def damped(
        self, problem: Quadratic, pattern: Pattern, calibration: CalibrationSplit, pilots: Pilots = LOCAL
    ) -> tuple[Quadratic, dict[str, float]]:
        """Return the damped problem, and what its damping was."""
        if self.damping == "auto":
            fitted, other, tokens = calibration.split or (problem, None, calibration.tokens)
            found = estimated(
                fitted, counted_pattern(pattern, problem.shape, "empirical_ridge"), tokens, other, STRENGTHS, pilots
            )
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
