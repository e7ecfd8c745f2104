"""Packages that come with the extras of `gramian`, and one sentence for each that is missing."""

from __future__ import annotations

from importlib.util import find_spec

__all__ = ["MODELS", "need"]

MODELS = ("torch", "transformers", "safetensors", "tqdm")  # what loading and pruning a model needs


def need(extra: str, packages: tuple[str, ...], what: str) -> None:
    """ImportError that names the packages missing of those that `what` needs, and the command that adds them."""
    if missing := [package for package in packages if find_spec(package) is None]:
        raise ImportError(f"{what} needs {' and '.join(missing)}: pip install 'gramian[{extra}]'")
