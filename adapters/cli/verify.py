"""`gramian verify` checks the ledger of published claims."""

from __future__ import annotations

import argparse

from gramian.adapters.cli.arguments import MakeCommand, add_json
from gramian.adapters.cli.output import emit
from gramian.adapters.cli.types import positive
from gramian.adapters.files import check_result
from gramian.extras import PROOFS, need

__all__ = ["add_verify"]


def add_verify(command: MakeCommand) -> None:
    """Add the command."""
    parser = command(
        "verify",
        "check what the papers claim",
        "Check the ledger of published claims: which hold on drawn instances, which hold under further hypotheses, and\n"
        "which a counterexample refutes, in exact arithmetic. Wrong versions of every formula (mutants) have to be caught.\n"
        "All of them take a minute or two. The extra `proofs` is needed.",
        "  gramian verify\n  gramian verify --claims N15 F7 --examples 1000 --json claims.json",
    )
    parser.add_argument("--claims", nargs="+", metavar="ID", help="only these, such as N15 F7 (default: all)")
    parser.add_argument(
        "--examples", type=positive, default=100, metavar="N",
        help="instances of every property; mutants get 100 at least (default %(default)s)",
    )  # fmt: skip
    add_json(parser)
    parser.set_defaults(run=verify_claims, needs_models=False)


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
