"""The ledger: what the papers state, what is true of it, and a check of each that anyone can run.

A claim carries properties (for what holds) and counterexamples (for what does not). A property is written around the one
formula it is about, so that the formula can be replaced by a wrong one; every such mutant has to be caught.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from hypothesis.strategies import SearchStrategy

from gramian.proofs.kit.falsify import falsify

__all__ = ["Claim", "Counterexample", "Outcome", "Property", "Verdict", "message", "verify"]

MUTANT_EXAMPLES = 100  # some mutants are caught on one instance in fifty


class Verdict(Enum):
    HOLDS = "holds"
    CONDITIONAL = "holds under hypotheses"
    REFUTED = "refuted"


@dataclass(frozen=True)
class Property:
    """For every instance that `given` draws, `holds(instance, formula)` raises no AssertionError.

    formula: what the property is about. mutants: wrong formulas by the defect each has, of which `holds` must refuse every
    one. slow: how many times fewer examples are drawn than are wanted, for properties that call an optimiser.
    """

    name: str
    given: SearchStrategy[Any]
    holds: Callable[[Any, Any], None]
    formula: Any
    mutants: Mapping[str, Any] = field(default_factory=dict)
    slow: int = 1

    def run(self, examples: int, formula: Any = None) -> int:
        """Return how many examples were run. Raises AssertionError, with the smallest failing instance in a note."""
        using = self.formula if formula is None else formula
        count = max(1, examples // self.slow)
        return falsify(self.given, lambda instance: self.holds(instance, using), count, shrink=formula is None)

    def catches(self, mutant: str, examples: int) -> bool:
        """Return whether some instance shows that this mutant is wrong."""
        try:
            self.run(examples, self.mutants[mutant])
        except AssertionError:
            return True
        return False


@dataclass(frozen=True)
class Counterexample:
    """One instance on which a printed statement fails: `check()` evaluates it, and raises AssertionError should it not fail.

    exact: whether it is evaluated in rational arithmetic (or integers), so that no rounding can be blamed.
    """

    name: str
    check: Callable[[], None]
    exact: bool = True


@dataclass(frozen=True)
class Claim:
    """One statement of a paper.

    id: a short and stable name. source: the paper, and its theorem or equation. printed: the statement as it stands there, in
    symbols with shapes. corrected: what is true instead, or the hypotheses it takes; empty where it holds as printed. Raises
    ValueError where a claim lacks the property, counterexample, mutant or correction that its verdict calls for.
    """

    id: str
    source: str
    printed: str
    verdict: Verdict
    corrected: str = ""
    properties: tuple[Property, ...] = ()
    counterexamples: tuple[Counterexample, ...] = ()

    def __post_init__(self) -> None:
        if self.verdict is Verdict.HOLDS and not self.properties:
            raise ValueError(f"{self.id} is said to hold, so it needs a property")
        if self.verdict is Verdict.REFUTED and not self.counterexamples:
            raise ValueError(f"{self.id} is said to be refuted, so it needs a counterexample")
        if self.verdict is not Verdict.HOLDS and not self.corrected:
            raise ValueError(f"{self.id} does not hold as printed, so it needs its corrected statement")
        if self.properties and not any(check.mutants for check in self.properties):
            raise ValueError(f"{self.id} has properties but no mutant, so nothing shows that they can fail")


@dataclass(frozen=True)
class Outcome:
    """What running one claim gave. failures: a sentence each, and none when everything is as the claim says."""

    claim: Claim
    examples: int
    caught: int
    mutants: int
    seconds: float
    failures: tuple[str, ...]


def verify(claim: Claim, examples: int = 100) -> Outcome:
    """Run every property on `examples` instances, every mutant until it is caught, and every counterexample.

    A mutant is looked for in MUTANT_EXAMPLES instances where `examples` are fewer. So a quick run is a less thorough one of
    what holds, and no weaker a test of whether it could fail.
    """
    started = time.perf_counter()
    failures: list[str] = []
    ran = caught = mutants = 0
    tried = max(examples, MUTANT_EXAMPLES)
    for check in claim.properties:
        try:
            ran += check.run(examples)
        except Exception as error:  # one that is no AssertionError comes from the code that the property is about
            failures.append("\n".join([f"{check.name}: {message(error)}", *getattr(error, "__notes__", ())]))
        for mutant in check.mutants:
            mutants += 1
            if check.catches(mutant, tried):
                caught += 1
            else:
                failures.append(f"{check.name}: the mutant '{mutant}' was not caught in {tried} examples")
    for example in claim.counterexamples:
        ran += 1
        try:
            example.check()
        except Exception as error:
            failures.append(f"{example.name}: the counterexample does not refute the statement: {message(error)}")
    return Outcome(claim, ran, caught, mutants, time.perf_counter() - started, tuple(failures))


def message(error: Exception) -> str:
    """Return what an exception says, and its kind unless it is a check that failed."""
    return str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
