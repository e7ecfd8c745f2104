"""Where the seconds of a pruning run go: a clock that wraps the functions which its phases are made of."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from gramian.adapters.passes import row_parts, weights
from gramian.adapters.run import moments, walk
from gramian.solvers import Moments
from gramian.solvers.support import damped, growing_penalty, lasso_rounding, obs, shrinkage

PHASES: dict[str, list[tuple[Any, str]]] = {
    "forward passes": [(walk, "run_block")],
    "forward passes inside a block": [(moments.MomentCollector, "settle")],
    "moments": [(Moments, "update")],
    "factorisation": [(obs, "inverse_factor"), (growing_penalty, "pivots_of")],
    "damping, without refits": [(damped, "estimated")],
    "refits": [(damped, "refit"), (shrinkage, "refit"), (growing_penalty, "refit"), (row_parts, "refit")],
    "warm start": [(lasso_rounding, "starting_point")],
    "FISTA": [(lasso_rounding, "advanced")],
    "certificates and held-out errors": [(weights, "certify"), (obs, "certify"), (lasso_rounding, "certify")],
    "solver": [(weights.ZeroWeights, "begun"), (weights.ZeroWeights, "ended")],
}


class Clock:
    """Seconds by phase; of phases within each other the inner one counts."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.inside: list[float] = []

    def timing(self, phase: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, timed."""

        def timed(*args: Any, **keywords: Any) -> Any:
            started = time.perf_counter()
            self.inside.append(0.0)
            try:
                return work(*args, **keywords)
            finally:
                spent = time.perf_counter() - started
                self.seconds[phase] += spent - self.inside.pop()
                if self.inside:
                    self.inside[-1] += spent

        return timed


@contextmanager
def phases() -> Iterator[Counter[str]]:
    """Seconds by phase of what is run inside: those spent in it and not in another one inside of it, by the clock of the thread
    that walks. `solver` is what is left of the time of an operator, and `the rest` what no phase has."""
    clock, started = Clock(), time.perf_counter()
    with ExitStack() as stack:
        for phase, places in PHASES.items():
            for place, name in places:
                stack.enter_context(patch.object(place, name, clock.timing(phase, getattr(place, name))))
        yield clock.seconds
    clock.seconds["the rest"] = time.perf_counter() - started - clock.seconds.total()
