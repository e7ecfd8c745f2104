"""The result of a command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gramian.adapters.files import write_json

__all__ = ["emit"]


def emit(document: Any, text: str, json_path: Path | None) -> None:
    """Print the text, and write the document to `json_path` if there is one."""
    print(text)
    if json_path is not None:
        write_json(json_path, document)
