"""Types of models: what is pruned, saved and loaded again."""

from __future__ import annotations

from common.results import read
from figures.markdown import noted, table

TRIES = ("unstructured", "2:4", "streamed", "units", "experts")


def outcome(model_type: str, row: dict[str, object] | None) -> str:
    """`works`, or the first clause of the reason without the name of the type; a dash where there was nothing to try."""
    if row is None:
        return "-"
    if row["works"]:
        return "works"
    reason = str(row["reason"]).partition("; ")[0].partition(", so ")[0]
    return reason.replace(f" for model type '{model_type}'", "").replace("|", "/")


def tried() -> str:
    """A row for all types of the same outcomes."""
    results = read("model_types")
    rows: dict[tuple[str, ...], list[str]] = {}
    for model_type, tries in results["types"].items():
        rows.setdefault(tuple(outcome(model_type, tries.get(name)) for name in TRIES), []).append(model_type)
    lines = [[", ".join(names), str(len(names)), *outcomes] for outcomes, names in rows.items()]
    count = len(results["types"])
    working = [sum(name in tries and tries[name]["works"] for tries in results["types"].values()) for name in TRIES]
    errors = [tries[name]["error"] for tries in results["types"].values() for name in TRIES if "error" in tries.get(name, {})]
    parts = [f"{name} {number}" for name, number in zip(TRIES, working)]
    return noted(
        table(("types", "number", *TRIES), lines),
        f"Of {count} types work: {', '.join(parts)}. Errors recomputed by hooks differ from those in reports by "
        f"{max(errors):.0e} at most. With transformers {results['versions']['transformers']}.",
    )
