"""Tables of layer errors in other bases."""

from __future__ import annotations

from typing import Any

from common.results import read
from figures.markdown import figure, geometric_mean, noted, table

PLAIN = "as it is"


def rotations() -> str:
    """Errors of `l0` in every basis, beside those of the operator as it is."""
    results = read("rotations")
    before = {case_of(row): row for row in results["rows"] if row["basis"] == PLAIN}
    rows = [
        [
            f"{row['layer']}.{row['operator']}, {row['pattern'].replace('%', ' %')}",
            row["basis"],
            figure(row["error"], 5),
            figure(row["test_error"], 5),
            "-" if row["basis"] == PLAIN else f"{row['error'] / before[case_of(row)]['error']:.2f}",
            "-" if row["basis"] == PLAIN else f"{row['test_error'] / before[case_of(row)]['test_error']:.2f}",
            "-" if row["basis"] == PLAIN else f"{row['seconds']:.1f}",
        ]
        for row in sorted(results["rows"], key=place_of)
    ]
    both = [row for row in results["rows"] if row["basis"].startswith("turned for both")]
    mean = geometric_mean([row["test_error"] / before[case_of(row)]["test_error"] for row in both])
    return noted(
        table(["operator, zeros", "basis", "error", "on test text", "of before", "on test text", "s"], rows),
        f"Heads that are turned for both have {mean:.2f} of the errors on test text, in the geometric mean. Seconds are "
        "what the choice of the basis takes. Query heads, and heads of keys and values: "
        f"{results['heads']} and {results['groups']}.",
    )


def case_of(row: dict[str, Any]) -> tuple[str, str, str]:
    """What is measured in several bases."""
    return row["layer"], row["operator"], row["pattern"]


def place_of(row: dict[str, Any]) -> tuple[int, bool, bool, bool]:
    """The place of a row: by layer, and there operator by operator and pattern by pattern."""
    return int(row["layer"]), row["operator"] == "down_proj", row["operator"] == "v_proj", row["pattern"] != "50%"
