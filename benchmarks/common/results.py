"""Result files: JSON summaries that a person can read, lines filled."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"
WIDTH = 128


def text(value: Any) -> str:
    """JSON whose lines are filled up to WIDTH: a list has an item a line where it needs several, and an object's fields share
    lines as far as they fit."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) <= WIDTH or not isinstance(value, dict | list):
        return line
    if isinstance(value, list):
        return "[\n" + ",\n".join(indented(text(item)) for item in value) + "\n]"
    lines: list[str] = []
    for name, item in value.items():
        field = indented(f"{json.dumps(name)}: {text(item)}")
        if lines and "\n" not in lines[-1] + field and len(lines[-1]) + len(field) < WIDTH:
            lines[-1] += f", {field.strip()}"
        else:
            lines.append(field)
    return "{\n" + ",\n".join(lines) + "\n}"


def indented(lines: str) -> str:
    return " " + lines.replace("\n", "\n ")


def read(name: str) -> Any:
    """What a file of `results` holds."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def save(path: Path, value: Any) -> None:
    """The file appears complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".partial")
    draft.write_text(text(value) + "\n", encoding="utf-8")
    draft.replace(path)


def summary(report: Mapping[str, Any], parts: str) -> dict[str, Any]:
    """A report whose rows, one for every part of the model, are replaced by how many there are, how many ended in which
    status, and the mean, the median and the largest of every figure that they have; versions stand in the cell. parts: the
    key of the rows."""
    rows: Sequence[Mapping[str, Any]] = report[parts]
    flat = [{**row, **row["detail"]} for row in rows]
    figures: dict[str, list[float]] = {}
    for row in flat:
        for name, value in row.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                figures.setdefault(name, []).append(value)
    about: dict[str, Any] = {"count": len(rows), "status": dict(Counter(row["status"] for row in rows))}
    for name, values in figures.items():
        about[name] = {"mean": statistics.mean(values), "median": statistics.median(values), "max": max(values)}
    if any(row.get("recovered") is not None for row in rows):
        about["recovered"] = sum(row["recovered"] is True for row in rows)
    settings = {name: value for name, value in report["settings"].items() if name != "versions"}
    return {**report, "settings": settings, parts: about}
