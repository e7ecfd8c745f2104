"""Transformers as layer-wise problems: load, calibrate, prune, judge, save.

Everything named here is imported when first used, so that `gramian --help` need not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gramian.adapters.calibration import Tokens, builtin_text, calibration_tokens, text_windows
    from gramian.adapters.checkpoint import load_model, save_model
    from gramian.adapters.evaluate import Perplexity, paired_difference, perplexity
    from gramian.adapters.families import FAMILIES, Family
    from gramian.adapters.forecast import Plan, plan
    from gramian.adapters.hooks import capture
    from gramian.adapters.layers import Layer
    from gramian.adapters.methods import METHODS
    from gramian.adapters.pipeline import prune
    from gramian.adapters.problemfile import read_problem, write_problem
    from gramian.adapters.report import Report

HOMES = {
    "FAMILIES": "families",
    "Family": "families",
    "Layer": "layers",
    "METHODS": "methods",
    "Perplexity": "evaluate",
    "Plan": "forecast",
    "Report": "report",
    "Tokens": "calibration",
    "builtin_text": "calibration",
    "calibration_tokens": "calibration",
    "capture": "hooks",
    "load_model": "checkpoint",
    "paired_difference": "evaluate",
    "perplexity": "evaluate",
    "plan": "forecast",
    "prune": "pipeline",
    "read_problem": "problemfile",
    "save_model": "checkpoint",
    "text_windows": "calibration",
    "write_problem": "problemfile",
}

__all__ = [
    "FAMILIES",
    "METHODS",
    "Family",
    "Layer",
    "Perplexity",
    "Plan",
    "Report",
    "Tokens",
    "builtin_text",
    "calibration_tokens",
    "capture",
    "load_model",
    "paired_difference",
    "perplexity",
    "plan",
    "prune",
    "read_problem",
    "save_model",
    "text_windows",
    "write_problem",
]


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
