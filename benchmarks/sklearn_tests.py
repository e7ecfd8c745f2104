"""scikit-learn's own tests of Lasso and elastic net, as its wheel ships them, run against ours.

    python benchmarks/sklearn_tests.py [--only EXPRESSION] [--out FILE]

In a process of its own, the names `Lasso`, `ElasticNet`, `LassoCV`, `ElasticNetCV`, `lasso_path` and `enet_path` of
`sklearn.linear_model` are replaced by ours before its module of tests is imported. Nothing of it is copied or changed. A case
counts if it made use of one of ours; the others, of multi-task estimators and of scikit-learn's internals, are only counted.
Every function of tests is kept with how many of its cases passed and with the first error of those that did not.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from common.results import RESULTS, save, text

TESTS = "sklearn.linear_model.tests.test_coordinate_descent"
INSIDE = "--inside"


class Record:
    """Notes the outcome of every case, and whether it made use of ours."""

    def __init__(self) -> None:
        self.tests: dict[str, dict[str, Any]] = {}

    def pytest_runtest_setup(self, item: Any) -> None:
        from common.sklearn_names import USED

        USED.clear()

    def pytest_runtest_makereport(self, item: Any, call: Any) -> None:
        from common.sklearn_names import USED

        if call.when != "call" or (call.excinfo is not None and call.excinfo.typename == "Skipped"):
            return
        row = self.tests.setdefault(item.originalname, {"cases": 0, "ours": 0, "passed": 0})
        row["cases"] += 1
        if not USED.total():
            return
        row["ours"] += 1
        row["passed"] += call.excinfo is None
        if call.excinfo is not None:
            row.setdefault("first error", f"{call.excinfo.typename}: {first_line(str(call.excinfo.value))}")


def first_line(message: str) -> str:
    """The first line of a message that says something, without addresses."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return re.sub(r"0x[0-9a-f]+", "0x...", lines[0] if lines else "")[:160]


def inside(out: Path, only: str) -> None:
    """Replace the names, run the tests, and write what came of them."""
    import pytest
    import sklearn.linear_model
    from common.sklearn_names import OURS

    for each in OURS:
        setattr(sklearn.linear_model, each.__name__, each)
    record = Record()
    settings = out.with_name("pytest.ini")
    settings.write_text("[pytest]\n", encoding="utf-8")
    options = ["-q", "-p", "no:cacheprovider", "-c", str(settings), "--rootdir", str(out.parent), "--tb", "no", "--no-summary"]
    pytest.main([*options, "--pyargs", TESTS, *(["-k", only] if only else [])], plugins=[record])
    save(out, record.tests)


def outcome(only: str = "") -> dict[str, dict[str, Any]]:
    """The tests by name: how many cases, how many of them made use of ours, and how many of those passed."""
    import json

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        command = [sys.executable, str(Path(__file__).resolve()), INSIDE, "--only", only, "--out", str(out)]
        done = subprocess.run(command, capture_output=True, text=True)
        if not out.exists():
            raise SystemExit(done.stdout + done.stderr)
        return dict(json.loads(out.read_text(encoding="utf-8")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", default="", metavar="EXPRESSION", help="of pytest -k; nothing is written then unless --out is given"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"default: {RESULTS.name}/sklearn_tests.json")
    parser.add_argument(INSIDE, action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        inside(arguments.out, arguments.only)
        return
    tests = outcome(arguments.only)
    versions = {"python": sys.version.split()[0], "numpy": np.__version__, "scikit-learn": version("scikit-learn")}
    found = {"versions": versions, "tests": tests}
    print(text(found))
    if arguments.out or not arguments.only:
        save(arguments.out or RESULTS / "sklearn_tests.json", found)


if __name__ == "__main__":
    main()
