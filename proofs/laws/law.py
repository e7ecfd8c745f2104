"""One law, and holding an object to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis.errors import FlakyFailure
from hypothesis.strategies import SearchStrategy

from gramian.proofs.kit.claims import message
from gramian.proofs.kit.falsify import falsify
from gramian.proofs.kit.reproduction import snippet

__all__ = ["Law", "hold"]


@dataclass(frozen=True)
class Law:
    """For every case that `given(candidate)` draws, `holds(*case)` raises nothing.

    holds: a function at the top level of a module, whose name says what holds. Cases are tuples of its arguments, so that a
    failing call can be printed as code. slow: how many times fewer cases are drawn than are wanted.
    """

    holds: Callable[..., None]
    given: Callable[[Any], SearchStrategy[tuple[Any, ...]]]
    slow: int = 1

    def check(self, candidate: Any, examples: int = 40) -> int:
        """Return how many cases were tried. Raises AssertionError with the smallest failing call, ready to be run again."""
        case: tuple[Any, ...] = ()

        def once(drawn: tuple[Any, ...]) -> None:
            nonlocal case
            try:
                self.holds(*drawn)
            except Exception:
                case = drawn
                raise

        try:
            return falsify(self.given(candidate), once, max(1, examples // self.slow))
        except Exception as error:
            flaky = isinstance(error, FlakyFailure)  # it failed, and did not when called again
            cause = error.exceptions[0] if isinstance(error, FlakyFailure) else error
            found = "A case that fails, though not every time" if flaky else "The smallest case found, to run again"
            raise AssertionError(f"{self}: {message(cause)}\n\n{found}:\n\n{snippet(self.holds, case)}\n") from cause

    def __str__(self) -> str:
        return self.holds.__name__.replace("_", " ")


def hold(candidate: Any, laws: Sequence[Law], examples: int) -> None:
    """Hold one object to some laws. Raises AssertionError at the first that fails."""
    for law in laws:
        law.check(candidate, examples)
