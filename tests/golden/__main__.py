"""The command, see the package. Exit code 0: no difference; 1: some; 2: bad usage or no comparison."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
sys.path[0] = str(TESTS)  # where the package is, instead of its inside

from golden.cases import CASES  # noqa: E402
from golden.compare import Difference, differences, flat  # noqa: E402
from golden.installs import baseline_source, install, present_source  # noqa: E402
from golden.renamed import RENAMED, Renamed  # noqa: E402

BASELINE = "a88662081d7fc4c5f17d7806248c1daff80cfad7"
SHOWN = 12  # differences of one case
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
SETTLED = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/golden", description=__doc__)
    parser.add_argument("--baseline", default=BASELINE, metavar="COMMIT", help="what is compared with (default %(default)s)")
    parser.add_argument("--only", default="", metavar="REGEX", help="cases whose names match somewhere")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave installs, logs and results there, an empty directory")
    parser.add_argument("--same", action="store_true", help="the baseline on both sides, to test the comparison itself")
    parser.add_argument("--list", action="store_true", help="print the names of the cases, run nothing")
    args = parser.parse_args()
    names = [case.name for case in CASES if re.search(args.only, case.name)]
    if not names:
        parser.error(f"no case matches {args.only!r}")
    if args.list:
        print("\n".join(names))
        return 0
    if args.keep is not None and args.keep.exists() and any(args.keep.iterdir()):
        parser.error(f"{args.keep} is not empty")
    started = time.perf_counter()
    with TemporaryDirectory(prefix="golden.") as draft:
        home = (args.keep or Path(draft)).absolute()
        home.mkdir(exist_ok=True)
        try:
            before, after = both(home, args.baseline, names, args.same)
        except RuntimeError as error:
            print(f"golden: {error}", file=sys.stderr)
            return 2
    found = differences(before, after, Renamed() if args.same else RENAMED, names)
    print(report(found, before, time.perf_counter() - started))
    return 1 if found else 0


def both(home: Path, commit: str, names: list[str], same: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the cases left on either version, run at the same time."""

    def left(version: str) -> dict[str, Any]:
        place = home / version
        source, target = place / "source", place / "install"
        source.mkdir(parents=True)
        if same or version == "baseline":
            baseline_source(commit, source)
        else:
            present_source(source)
        install(source, target)
        how = "baseline" if same else version
        return run_side(how, place, target, names)

    with ThreadPoolExecutor(2) as pool:
        before, after = pool.map(left, ("baseline", "present"))
    return before, after


def run_side(how: str, place: Path, target: Path, names: list[str]) -> dict[str, Any]:
    """What the cases left on an installed version, called as `how` says. RuntimeError if its process fails."""
    path = os.pathsep.join([str(target), str(TESTS), str(TESTS / "support")])
    environment = os.environ | SETTLED | dict.fromkeys(THREADS, "1") | {"PYTHONPATH": path}
    result, log = place / "result.json", place / "log.txt"
    command = [sys.executable, "-P", "-m", "golden.side", how, str(target), str(result), json.dumps(names)]
    with log.open("w", encoding="utf-8") as written:
        done = subprocess.run(command, cwd=place, env=environment, stdout=written, stderr=subprocess.STDOUT)
    if done.returncode:
        tail = "\n".join(log.read_text(encoding="utf-8").splitlines()[-15:])
        raise RuntimeError(f"the side {place.name} failed:\n{tail}")
    return json.loads(result.read_text(encoding="utf-8"))


def report(found: list[Difference], before: dict[str, Any], seconds: float) -> str:
    """Every case with a difference, and the places; then what was compared."""
    lines = []
    for case, some in groupby(found, key=lambda each: each.case):
        listed = list(some)
        lines.append(f"{case}: {len(listed)} differences")
        lines += [f"    {each.place}\n        {each.before}\n        {each.after}" for each in listed[:SHOWN]]
        if len(listed) > SHOWN:
            lines.append(f"    and {len(listed) - SHOWN} more")
    kinds = Counter(place.endswith("/sha256") for case in before.values() for place in flat(case))
    differing = len({each.case for each in found})
    lines.append(
        f"{len(before)} cases, {kinds[True]} tensors, {kinds[False]} figures and words, {seconds:.0f} s: "
        + (f"{differing} cases differ" if differing else "no difference")
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
