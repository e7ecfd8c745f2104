"""Result files: JSON summaries in filled lines, which a person can read."""

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
    """JSON whose lines are filled up to WIDTH: a list has an item a line where it needs several, and fields of an object stand
    on one line as far as they fit."""
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
    """Write the file, which appears complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".partial")
    draft.write_text(text(value) + "\n", encoding="utf-8")
    draft.replace(path)


def summary(report: Mapping[str, Any], parts: str) -> dict[str, Any]:
    """A report without its rows, one for every part of the model: in their place it has how many there are, how many ended in
    which status, the mean, the median and the largest of every figure that they have, and of every flag how many have it set.
    Left out are the numbers of kept units, and versions among the settings, which the cell has. parts: the key of the rows."""
    rows: Sequence[Mapping[str, Any]] = report[parts]
    flat = [{**row, **row["detail"]} for row in rows]
    figures: dict[str, list[float]] = {}
    flags: Counter[str] = Counter()
    for row in flat:
        for name, value in row.items():
            if isinstance(value, bool):
                flags[name] += value
            elif isinstance(value, int | float):
                figures.setdefault(name, []).append(value)
    about: dict[str, Any] = {"count": len(rows), "status": dict(Counter(row["status"] for row in rows))}
    for name, values in figures.items():
        about[name] = {"mean": statistics.mean(values), "median": statistics.median(values), "max": max(values)}
    about |= flags
    settings = {name: value for name, value in report["settings"].items() if name != "versions"}
    return {**{name: value for name, value in report.items() if name != "kept"}, "settings": settings, parts: about}
