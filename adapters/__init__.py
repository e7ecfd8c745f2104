"""Transformers as layer-wise problems: load, calibrate, prune, judge, save.

`shrink_model` and `mask_model` are `shrink` and `mask` of the module `shrink`, which a function of that name would hide.
Everything named here is imported when first used, so that `gramian --help` need not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gramian.adapters.attention_maps import head_distances
    from gramian.adapters.calibration import builtin_text, calibration_tokens, text_windows
    from gramian.adapters.checkpoint import load_model, save_model
    from gramian.adapters.embeddings import embed, mean_cosine
    from gramian.adapters.evaluate import Perplexity, paired_difference, perplexity
    from gramian.adapters.families import FAMILIES, Family
    from gramian.adapters.forecast import Plan, plan
    from gramian.adapters.head_graph import draw_heads
    from gramian.adapters.hooks import capture
    from gramian.adapters.layers import Layer
    from gramian.adapters.methods import METHODS
    from gramian.adapters.ntk import KernelChange, kernel_change
    from gramian.adapters.pipeline import prune
    from gramian.adapters.problemfile import read_problem, write_problem
    from gramian.adapters.report import Report
    from gramian.adapters.shrink import count_parameters
    from gramian.adapters.shrink import mask as mask_model
    from gramian.adapters.shrink import shrink as shrink_model
    from gramian.adapters.streaming import stream_model
    from gramian.adapters.structure import parts_of
    from gramian.adapters.structured import prune_structured
    from gramian.adapters.structured_checkpoint import load, save_structured
    from gramian.adapters.structured_forecast import plan_structured
    from gramian.adapters.structured_methods import STRUCTURED_METHODS
    from gramian.adapters.structured_report import StructuredReport
    from gramian.adapters.tokens import Tokens

HOMES = {  # where each name is; after a colon, what it is called there, if not the same
    "FAMILIES": "families",
    "Family": "families",
    "KernelChange": "ntk",
    "Layer": "layers",
    "METHODS": "methods",
    "Perplexity": "evaluate",
    "Plan": "forecast",
    "Report": "report",
    "STRUCTURED_METHODS": "structured_methods",
    "StructuredReport": "structured_report",
    "Tokens": "tokens",
    "builtin_text": "calibration",
    "calibration_tokens": "calibration",
    "capture": "hooks",
    "count_parameters": "shrink",
    "draw_heads": "head_graph",
    "embed": "embeddings",
    "head_distances": "attention_maps",
    "kernel_change": "ntk",
    "load": "structured_checkpoint",
    "load_model": "checkpoint",
    "mask_model": "shrink:mask",
    "mean_cosine": "embeddings",
    "paired_difference": "evaluate",
    "parts_of": "structure",
    "perplexity": "evaluate",
    "plan": "forecast",
    "plan_structured": "structured_forecast",
    "prune": "pipeline",
    "prune_structured": "structured",
    "read_problem": "problemfile",
    "save_model": "checkpoint",
    "save_structured": "structured_checkpoint",
    "shrink_model": "shrink:shrink",
    "stream_model": "streaming",
    "text_windows": "calibration",
    "write_problem": "problemfile",
}

__all__ = [
    "FAMILIES",
    "METHODS",
    "Family",
    "KernelChange",
    "Layer",
    "Perplexity",
    "Plan",
    "Report",
    "STRUCTURED_METHODS",
    "StructuredReport",
    "Tokens",
    "builtin_text",
    "calibration_tokens",
    "capture",
    "count_parameters",
    "draw_heads",
    "embed",
    "head_distances",
    "kernel_change",
    "load",
    "load_model",
    "mask_model",
    "mean_cosine",
    "paired_difference",
    "parts_of",
    "perplexity",
    "plan",
    "plan_structured",
    "prune",
    "prune_structured",
    "read_problem",
    "save_model",
    "save_structured",
    "shrink_model",
    "stream_model",
    "text_windows",
    "write_problem",
]


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, there = HOMES[name].partition(":")
    value = getattr(import_module(f"{__name__}.{module}"), there or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
