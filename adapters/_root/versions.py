"""Versions that a result depends on."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

__all__ = ["versions"]


def versions() -> Mapping[str, str]:
    """Versions by package, `not installed` for one that is missing."""
    found = {"python": platform.python_version()}
    for package in ("gramian", "numpy", "torch", "transformers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
