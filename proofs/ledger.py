"""Every claim by its id, and all of them checked: what `gramian verify` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from gramian.progress import progress as shown
from gramian.proofs import (
    alphapruning,
    armor,
    bases,
    cfsp,
    crossings,
    domains,
    evopress,
    factored,
    fistapruner,
    greedy_output,
    numerical_pruning,
    owl,
    quantised,
    slicegpt,
    tasp,
)
from gramian.proofs.kit.claims import Claim, Outcome, verify
from gramian.tables import table

__all__ = ["CLAIMS", "Verification", "verify_all"]

CLAIMS: Mapping[str, Claim] = {
    claim.id: claim
    for room in (
        *(numerical_pruning, fistapruner, greedy_output, tasp, evopress, alphapruning, owl, cfsp, armor),
        *(crossings, bases, factored, quantised, slicegpt, domains),
    )
    for claim in room.CLAIMS
}


@dataclass(frozen=True)
class Verification:
    """What running some claims gave. examples: how many every property was to be tried on."""

    outcomes: tuple[Outcome, ...]
    examples: int

    @property
    def failed(self) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.failures)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings and lists, for JSON."""
        return {
            "passed": not self.failed,
            "examples": self.examples,
            "seconds": sum(outcome.seconds for outcome in self.outcomes),
            "versions": {package: version(package) for package in ("gramian", "numpy", "hypothesis")},
            "claims": [
                {
                    "id": outcome.claim.id,
                    "source": outcome.claim.source,
                    "printed": outcome.claim.printed,
                    "verdict": outcome.claim.verdict.value,
                    "corrected": outcome.claim.corrected,
                    "examples": outcome.examples,
                    "mutants": outcome.mutants,
                    "caught": outcome.caught,
                    "seconds": outcome.seconds,
                    "failures": list(outcome.failures),
                }
                for outcome in self.outcomes
            ],
        }

    def __str__(self) -> str:
        """Return one row per claim, then what failed, then how many there are of each verdict."""
        head = ["claim", "verdict", "examples", "mutants", "s", ""]
        rows = [
            [
                f"{outcome.claim.id:4} {outcome.claim.source}",
                outcome.claim.verdict.value,
                str(outcome.examples),
                f"{outcome.caught}/{outcome.mutants}",
                f"{outcome.seconds:.1f}",
                "FAILED" if outcome.failures else "ok",
            ]
            for outcome in self.outcomes
        ]
        failures = [f"{outcome.claim.id}: {failure}" for outcome in self.failed for failure in outcome.failures]
        verdicts = [outcome.claim.verdict.value for outcome in self.outcomes]
        counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts))
        seconds = sum(outcome.seconds for outcome in self.outcomes)
        total = f"{len(self.outcomes)} claims ({counts}), {len(self.failed)} not as stated here, {seconds:.0f} s"
        return "\n\n".join([table(head, rows), *failures, total])


def verify_all(ids: Sequence[str] | None = None, examples: int = 100, progress: bool = True) -> Verification:
    """Check claims, all of them by default: `examples` instances of every property, every mutant, every counterexample.

    Raises ValueError, which names the claims there are, for an id that is none, and for examples below 1.
    """
    if examples < 1:
        raise ValueError(f"examples must be at least 1 but is {examples}")
    wanted = list(CLAIMS if ids is None else dict.fromkeys(ids))
    if unknown := [name for name in wanted if name not in CLAIMS]:
        raise ValueError(f"no claim {', '.join(unknown)}; there are {', '.join(CLAIMS)}")
    outcomes = (verify(CLAIMS[name], examples) for name in shown(wanted, "verify", "claim", progress))
    return Verification(tuple(outcomes), examples)
