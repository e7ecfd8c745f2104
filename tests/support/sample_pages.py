"""A page of every kind, made from documents of runs, of solved problems, of an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from run_documents import blocks_document, experts_document, units_document, weights_document

from gramian.adapters.pages.comparison import Compared, page_of_comparison
from gramian.adapters.pages.evaluated import page_of_evaluation
from gramian.adapters.pages.records import run_of
from gramian.adapters.pages.runs import page_of_run
from gramian.adapters.pages.solved import page_of_solved

SOLVED = [
    {
        "file": f"problems/model.layers.{block}.mlp.{kind}.safetensors", "method": method, "pattern": "50%", "sparsity": 0.5,
        "relative_error": 0.01 * (block + 1) * scale, "heldout_error": 0.02 * (block + 1), "seconds": 0.5,
        "status": "computed directly, not by iteration", "certificate": {"residual": 1e-9},
    }
    for block in range(2) for kind in ("up_proj", "down_proj") for method, scale in (("wanda", 2.0), ("l0", 1.0))
]  # fmt: skip


def compared_page() -> str:
    """Two runs, which differ in all."""
    runs = [run_of(document) for document in (weights_document(), units_document())]
    return page_of_comparison([Compared(name, run, None) for name, run in zip("ab", runs)])


def interval(value: float, spread: float) -> dict[str, float]:
    """An interval as `evaluate` states it."""
    return {"value": value, "low": round(value - spread, 6), "high": round(value + spread, 6)}


def figure(part: str, name: str, items: int, change: dict[str, float] | None, kind: str = "difference") -> dict[str, Any]:
    """A figure as `evaluate` states it."""
    dense = None if change is None else interval(20.3, 1.0)
    whole = {"part": part, "name": name, "items": items, "model": interval(24.2, 1.1)}
    return {**whole, "dense": dense, "change": change, "change_is": kind}


EVALUATION = {
    "model": "./sparse", "against": "org/model", "left_out": {"needle": "the model has no tokeniser"}, "seconds": 93.0,
    "settings": {"text": {"source": "held out of builtin", "windows": [16, 256], "seen_in_calibration": True}, "seed": 0},
    "figures": [
        figure("text", "perplexity", 16, interval(1.19, 0.02), "ratio"),
        figure("text", "KL(dense || model), nats per token", 16, None),
        figure("positions", "perplexity at 0-31", 16, interval(1.19, 0.02), "ratio"),
        figure("positions", "perplexity at 32-255", 16, interval(1.16, 0.02), "ratio"),
        figure("copying", "copying, 16 tokens", 20, interval(0.01, 0.03)),
        figure("copying", "copying, 64 tokens", 20, interval(-0.04, 0.06)),
    ],
}  # fmt: skip

PAGES: dict[str, Callable[[], str]] = {
    "weights": lambda: page_of_run(weights_document(blocks=18)) or "",
    "mixture": lambda: page_of_run(weights_document(blocks=40, experts=20)) or "",
    "units": lambda: page_of_run(units_document(blocks=12)) or "",
    "experts": lambda: page_of_run(experts_document()) or "",
    "blocks": lambda: page_of_run(blocks_document()) or "",
    "comparison": compared_page,
    "evaluated": lambda: page_of_evaluation(EVALUATION),
    "solved": lambda: page_of_solved(SOLVED),
}
