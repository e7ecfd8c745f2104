"""The laws: what every loss, term, pattern, solver, method and layer plug-in has to satisfy, ours and anybody's.

One line in a test holds an object of your own to them; a failure shows the smallest case found, as code that runs:

    from hypothesis import strategies as st
    from gramian.proofs import laws

    def test_my_objects():
        laws.check_method(my_method)                                       # (problem, pattern) -> Solution
        laws.check_solver(MySolver())                                      # init, step, weights; or a function
        laws.check_pattern(MyPattern(0.5))                                 # select, admits, check
        laws.check_term(lambda shape: st.builds(MyTerm, st.floats(0, 9)))  # prox, and what else it has
        laws.check_layer(MyLayer)                                          # weight, problem, assign

Every one of them draws `examples` cases per law, the same ones each time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis.strategies import SearchStrategy

from gramian.proofs.claims import told
from gramian.proofs.falsify import falsify
from gramian.proofs.reproduction import snippet

__all__ = ["Law", "held"]


@dataclass(frozen=True)
class Law:
    """For every case that `given(subject)` draws, `holds(*case)` raises nothing.

    holds: a function at the top level of a module, whose name says what holds; cases are tuples of its arguments, so
    that a failing call can be told as code. slow: how many times fewer cases than asked for are drawn.
    """

    holds: Callable[..., None]
    given: Callable[[Any], SearchStrategy[tuple[Any, ...]]]
    slow: int = 1

    def check(self, subject: Any, examples: int = 40) -> int:
        """How many cases were tried. Raises AssertionError with the smallest failing call, ready to be run again."""
        case: tuple[Any, ...] = ()

        def once(drawn: tuple[Any, ...]) -> None:
            nonlocal case
            case = drawn
            self.holds(*drawn)

        try:
            return falsify(self.given(subject), once, max(1, examples // self.slow))
        except Exception as error:
            code = snippet(self.holds, case)
            raise AssertionError(f"{self}: {told(error)}\n\nThe smallest case found, to run again:\n\n{code}\n") from error

    def __str__(self) -> str:
        return self.holds.__name__.replace("_", " ")


def held(subject: Any, laws: Sequence[Law], examples: int) -> None:
    """Hold one subject to some laws; raises AssertionError at the first that fails."""
    for law in laws:
        law.check(subject, examples)
