"""Cells of a benchmark, which resume from its result file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from common.results import save

from gramian.versions import versions


def resumed(
    cells: Mapping[str, Mapping[str, Any]], chosen: str, out: Path, run: Callable[[str, Mapping[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    """Results by cell: those that the file `out` holds, and of the cells that the expression `chosen` finds those that it holds
    with other keywords or not at all. These are run, and the file is written after each."""
    results: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    for name, keywords in cells.items():
        if not re.search(chosen, name) or results.get(name, {}).get("keywords") == keywords:
            continue
        print(f"== {name}", flush=True)
        results[name] = {"keywords": keywords, **run(name, keywords), "versions": dict(versions())}
        save(out, results)
    return results
