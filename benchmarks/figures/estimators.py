"""scikit-learn's tests of Lasso and elastic net, run against ours: what passes, and why the rest does not."""

from __future__ import annotations

from common.results import read
from figures.markdown import noted, table

REASONS: dict[str, str] = {}


def sklearn_tests() -> str:
    """The tests of which a case does not pass."""
    results = read("sklearn_tests")
    ours = {name: row for name, row in results["tests"].items() if row["ours"]}
    rows = [
        [f"`{name}`", str(row["ours"]), str(row["passed"]), REASONS[name]]
        for name, row in ours.items()
        if row["passed"] < row["ours"]
    ]
    cases, passed = (sum(row[key] for row in ours.values()) for key in ("ours", "passed"))
    others = sum(row["cases"] - row["ours"] for row in results["tests"].values())
    whole = sum(row["passed"] == row["ours"] for row in ours.values())
    note = (
        f"With scikit-learn {results['versions']['scikit-learn']}, {passed} of {cases} cases that make use of ours pass, and "
        f"all cases of {whole} of {len(ours)} tests. A further {others} cases make no use of them: they are of multi-task "
        "estimators and of scikit-learn's internals."
    )
    return noted(table(["test", "cases", "passed", "why the others do not"], rows), note)
