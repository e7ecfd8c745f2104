"""What is called otherwise in the working tree than at the baseline.

When a name changes, it is entered here once: `present` then calls the working tree by the new name, and `compare` expects it in
reports.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["RENAMED", "Renamed"]


@dataclass(frozen=True)
class Renamed:
    """settings: keywords, options of methods and keys of reports, old to new, such as {"share": "target_blend"}; flags of the
    command line follow (`--share` to `--target-blend`). choices: by old setting, its values, old to new. flags: flags that do
    not follow from settings; None for one that is gone. forms: what stands
    now in the place of old flags, and of their value `{}`.

    paths: regular expressions for places in what a case leaves, such as `gramian.json/modules/0 layers.1.o_proj/residual`,
    and what replaces what they match. words: by expression for new places, values there, old to new. dropped: expressions
    for old places, and added: for new ones, that the other version does not have."""

    settings: Mapping[str, str] = field(default_factory=dict)
    choices: Mapping[str, Mapping[Any, str]] = field(default_factory=dict)
    flags: Mapping[str, str | None] = field(default_factory=dict)
    forms: Mapping[str, str] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)
    words: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    added: tuple[str, ...] = ()


RENAMED = Renamed(
    settings={
        "inputs": "calibrate_on",
        "correction": "target",
        "share": "target_blend",
        "recover": "refit_producers",
        "exchange": "swap_search",
        "visits": "max_lambdas",
    },
    choices={
        "correction": {"none": "own", "layer": "block"},
        "allocation": {"kinds": "per_type", "numerical": "score", "global": "loss"},
        "heads": {"even": "per_kv_group"},
        "refit": {True: "support", False: "none"},
    },
    forms={
        "--pattern": "--sparsity {}",
        "--option": "--set {}",
        "--visits": "--set max_lambdas={}",
        "--inner-steps": "--set inner_steps={}",
        "--whole-matrix": "--no-per-row",
        "--stream": "--memory stream",
        "--offload": "--memory offload",
        "--refit": "--refit support",
    },
    dropped=(r"/settings/(blocks|refit)(/|$)",),
    added=(
        r"/settings/(recipe|blocks|refit|sparsity|per_row|compensate)(/|$)",
        r"(report|\.json)/(fingerprint|dense|files|kept|phases|refitted_blocks)(/|$)",
        r"/perplexity/(sha256|nats_by_window)(/|$)",
        r"report\.html$",
    ),
)
