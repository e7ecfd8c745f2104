"""What is written beside a saved model: `report.html`, which a person reads, and `gramian.json`, which holds the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gramian.adapters.files import PAGE, write_bytes, write_report
from gramian.adapters.pages.runs import page_of_run

__all__ = ["write_results"]


def write_results(draft: Path, document: Mapping[str, Any]) -> None:
    """Write the page of a run, if the document is one's, and `gramian.json` into a directory that is complete but for them."""
    if (text := page_of_run(document)) is not None:
        write_bytes(draft / PAGE, text.encode("utf-8", "replace"))
    write_report(draft, document)
