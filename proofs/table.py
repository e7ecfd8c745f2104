"""The ledger as tables of `proofs/README.md`, written in the repository that this is run in:

    python -m gramian.proofs.table            # writes them
    python -m gramian.proofs.table --check    # writes nothing, and exits with 1 if they are not what the ledger says

What stands between `<!-- table: NAME -->` and `<!-- end -->` is replaced, and the rest of the file stays as it is.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from gramian.proofs.kit.claims import Claim, Verdict
from gramian.proofs.ledger import CLAIMS

__all__ = ["claims", "file_of", "verdicts", "written"]

HERE = Path(__file__).parent
README = Path("proofs/README.md")
BLOCK = re.compile(r"(<!-- table: (.+?) -->\n)(?:(?!<!-- table: ).)*?(<!-- end -->)", re.DOTALL)


def file_of(claim: Claim) -> str:
    """Return the file that states a claim, relative to this folder. Raises LookupError unless exactly one does."""
    stated = re.compile(rf'\bClaim\(\s*"{claim.id}",')
    found = [file for file in sorted(HERE.rglob("*.py")) if stated.search(file.read_text(encoding="utf-8"))]
    if len(found) != 1:
        raise LookupError(f"{claim.id} is stated by {len(found)} files of {HERE}, and should be by one")
    return found[0].relative_to(HERE).as_posix()


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def claims() -> str:
    """Return a row per claim: its id, its source, its verdict, and the file that states and checks it."""
    rows = []
    for claim in CLAIMS.values():
        file = file_of(claim)
        rows.append([claim.id, claim.source, claim.verdict.value, f"[{Path(file).name}]({file})"])
    return markdown(["claim", "source", "verdict", "checked in"], rows)


def verdicts() -> str:
    """Return a row per room, with how many of its claims have each verdict, and a row for all of them."""
    rooms = {claim.id: file_of(claim).partition("/")[0] for claim in CLAIMS.values()}
    rows = []
    for room in [*dict.fromkeys(rooms.values()), "all"]:
        found = [claim.verdict for claim in CLAIMS.values() if room in (rooms[claim.id], "all")]
        rows.append([room, *(str(found.count(verdict)) for verdict in Verdict), str(len(found))])
    return markdown(["claims of", *(verdict.value for verdict in Verdict), "all"], rows)


TABLES = {"claims": claims, "verdicts": verdicts}


def written(text: str) -> str:
    """Return a text with its tables as they have to be. Raises SystemExit unless it has a place for each and for no other."""
    places = [found[2] for found in BLOCK.finditer(text)]
    if sorted(places) != sorted(TABLES):
        raise SystemExit(f"{README} has places for the tables {places}, and needs one for each of {list(TABLES)}")
    return BLOCK.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}\n{found[3]}", text)


def main(args: Sequence[str] | None = None) -> None:
    """Write or check the tables. Exits with 1 where they are not what the ledger says, and where there is no such file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the tables would change")
    check = parser.parse_args(args).check
    if not README.exists():
        raise SystemExit(f"there is no {README} in {Path.cwd()}: run this at the top of the repository")
    before = README.read_text(encoding="utf-8")
    after = written(before)
    if after != before and check:
        raise SystemExit(f"{README} is not what the ledger says: python -m gramian.proofs.table writes it")
    if after != before:
        README.write_text(after, encoding="utf-8")
        print(f"{README}: written")


if __name__ == "__main__":
    main()
