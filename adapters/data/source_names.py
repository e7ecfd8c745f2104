"""What a source of calibration text may be called. It is checked without torch, so that a mistake is reported at once."""

from __future__ import annotations

from pathlib import Path

__all__ = ["check_source", "has_labels"]

SOURCES = (
    "builtin, FILE.txt, FILE.safetensors, FILE.jsonl (texts with labels), self (sampled from the model) or "
    "hf:DATASET[:CONFIG][:SPLIT]"
)


def check_source(source: str) -> None:
    """Raise FileNotFoundError if a calibration source is neither a name nor a file."""
    if source not in ("builtin", "self") and not source.startswith("hf:") and not Path(source).expanduser().is_file():
        raise FileNotFoundError(f"no calibration text {source!r}: expected {SOURCES}")


def has_labels(source: str) -> bool:
    """Whether a source is a file of texts with labels."""
    return Path(source).suffix == ".jsonl" and not source.startswith("hf:")
