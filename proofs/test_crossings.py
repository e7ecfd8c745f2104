"""The identities between the papers."""

from __future__ import annotations

import pytest

from gramian.proofs.claims import Claim, verify
from gramian.proofs.crossings import CLAIMS


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_claim(claim: Claim):
    outcome = verify(claim, examples=60)
    assert not outcome.failures, "\n\n".join(outcome.failures)
    assert outcome.caught == outcome.mutants


def test_every_entry_is_there():
    assert [claim.id for claim in CLAIMS] == [f"X{number}" for number in range(1, 6 + 1)]
