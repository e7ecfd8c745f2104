"""`gramian verify`: the ledger of published claims, checked."""

from __future__ import annotations

import argparse
from importlib.util import find_spec

from gramian.adapters.files import write_json

__all__ = ["verify_claims"]

NEEDED = ("hypothesis", "cvxpy")


def verify_claims(asked: argparse.Namespace) -> None:
    """Print a row per claim. Raises ImportError without the extra `proofs`, RuntimeError if a claim is not as stated, and ends
    with exit code 2 on an id that no claim has."""
    if missing := [package for package in NEEDED if find_spec(package) is None]:
        raise ImportError(f"gramian verify needs {' and '.join(missing)}: pip install 'gramian[proofs]'")
    from gramian.proofs.ledger import CLAIMS, verify_all

    if unknown := [name for name in asked.claims or () if name not in CLAIMS]:
        asked.usage_error(f"no claim {', '.join(unknown)}; there are {', '.join(CLAIMS)}")
    if asked.json is not None:
        from gramian.adapters.cli.commands import check_result

        check_result(asked.json)
    done = verify_all(asked.claims, asked.examples)
    print(done)
    if asked.json is not None:
        write_json(asked.json, done.to_dict())
    if done.failed:
        raise RuntimeError(f"not as the ledger states: {', '.join(outcome.claim.id for outcome in done.failed)}")
