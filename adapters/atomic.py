"""Files that appear complete or not at all: written beside their place under another name, then renamed."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

__all__ = ["write_bytes", "write_json"]


def write_bytes(path: Path, content: bytes) -> None:
    """Write or replace a file. OSError leaves what was there."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        draft.write_bytes(content)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_json(path: Path, document: Any) -> None:
    """The same for a document of plain numbers, strings, lists and dicts."""
    write_bytes(path, (json.dumps(document, indent=2) + "\n").encode())
