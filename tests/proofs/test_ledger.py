"""Every claim is as its entry says, and every mutant of what it checks is caught."""

from __future__ import annotations

import pytest

from gramian.proofs.kit.claims import Claim, verify
from gramian.proofs.ledger import CLAIMS


def test_the_identities_between_the_papers_are_there():
    assert [name for name in CLAIMS if name.startswith("X")] == [f"X{number}" for number in range(1, 6 + 1)]


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_claim(claim: Claim):
    outcome = verify(claim, examples=60)
    assert not outcome.failures, "\n\n".join(outcome.failures)
    assert outcome.caught == outcome.mutants and outcome.examples > 0
