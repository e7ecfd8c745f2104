"""`gramian verify` checks the ledger of published claims."""

from __future__ import annotations

import argparse

from gramian.adapters.cli.output import emit
from gramian.adapters.files import check_result
from gramian.extras import PROOFS, need

__all__ = ["verify_claims"]


def verify_claims(args: argparse.Namespace) -> None:
    """Print a row per claim. ImportError: the extra `proofs` is missing. RuntimeError: a claim is not as stated. An id that no
    claim has is bad usage, exit code 2."""
    need("proofs", PROOFS, "gramian verify")
    from gramian.proofs.ledger import CLAIMS, verify_all

    if unknown := [name for name in args.claims or () if name not in CLAIMS]:
        args.usage_error(f"no claim {', '.join(unknown)}; there are {', '.join(CLAIMS)}")
    check_result(args.json)
    done = verify_all(args.claims, args.examples)
    emit(done.to_dict(), str(done), args.json)
    if done.failed:
        raise RuntimeError(f"not as the ledger states: {', '.join(outcome.claim.id for outcome in done.failed)}")
