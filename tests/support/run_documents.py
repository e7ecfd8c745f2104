"""What `gramian.json` says of runs: of weights, of units and of experts, small, large, odd."""

from __future__ import annotations

from random import Random
from typing import Any

KINDS = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
    "mlp.down_proj",
)  # fmt: skip
STATUS = "computed directly, not by iteration"
PERPLEXITY = {
    "dense": 20.31, "pruned": 24.24, "difference_nats": 0.1765, "standard_error": 0.0175, "source": "held out of builtin",
    "windows": 4, "context": 513, "sha256": "text", "nats_by_window": {"dense": [3.0, 3.1, 2.9], "pruned": [3.2, 3.3, 3.1]},
}  # fmt: skip


def settings(**more: Any) -> dict[str, Any]:
    """Settings as a run records them."""
    return {
        "method": "l0", "pattern": "50%", "windows": [16, 513], "options": {"steps": 160}, "device": "cpu", "refit": "none",
        "calibration": {"source": "builtin", "seed": 0, "sha256": "abc"}, "heldout": {"windows": [4, 513], "sha256": "def"},
        "recipe": {"sparsity": 0.5}, "versions": {"gramian": "0.1.0", "numpy": "2"}, **more,
    }  # fmt: skip


def weights_document(blocks: int = 3, experts: int = 0, **more: Any) -> dict[str, Any]:
    """A run that zeroed weights in blocks of seven operators, and in so many experts of each."""
    draw, rows = Random(blocks), []
    for block in range(blocks):
        for kind in (*KINDS, *(f"mlp.experts.down_proj.{number}" for number in range(experts))):
            error = draw.lognormvariate(-4.5, 1.0)
            rows.append(
                {
                    "name": f"model.layers.{block}.{kind}", "shape": [1024, 640], "pattern": "50%", "sparsity": 0.5,
                    "relative_error": error, "heldout_error": error * draw.lognormvariate(0.2, 0.2), "residual": 1e-9,
                    "status": STATUS, "seconds": draw.random(), "detail": {},
                }
            )  # fmt: skip
    whole = {"model": "org/model", "settings": settings(), "seconds": 100.0, "sparsity": 0.5, "operators": rows}
    return {**whole, "perplexity": PERPLEXITY, "fingerprint": {"weights": "f" * 64}, **more}


def units_document(blocks: int = 3, **more: Any) -> dict[str, Any]:
    """A run that removed heads and channels: of 6 heads number 1, and in block 0 number 4 as well, stay out."""
    rows, kept = [], {}
    for block in range(blocks):
        heads, channels = f"model.layers.{block}.self_attn.o_proj", f"model.layers.{block}.mlp.down_proj"
        kept[heads] = [0, 2, 3, 4, 5] if block else [0, 2, 3, 5]
        for name, units in ((heads, [6, len(kept[heads])]), (channels, [2048, 1600 + block])):
            rows.append(
                {
                    "name": name, "units": units, "groups": units, "masked_error": 0.2, "relative_error": 0.01 + block / 100,
                    "heldout_error": 0.02 + block / 100, "residual": 1e-9, "status": STATUS, "seconds": 1.0, "detail": {},
                    "groups_of_heads": [[0, 2], [3]] if name == heads else [], "recovered": None, "unrecovered_error": None,
                }
            )  # fmt: skip
    whole = {"model": "org/model", "settings": settings(method="numerical", ratio=0.2), "seconds": 100.0, "ratio": 0.2}
    sizes = {"parameters": [3_000_000, 2_500_000], "block_parameters": [2_500_000, 2_000_000]}
    return {**whole, **sizes, "modules": rows, "kept": kept, "perplexity": PERPLEXITY, **more}


def experts_document() -> dict[str, Any]:
    """A run that removed experts number 2 and 5 of six from two mixtures."""
    kept = {f"model.layers.{block}.mlp.experts": [0, 1, 3, 4] for block in range(2)}
    rows = [
        {
            "name": name, "units": [6, 4], "groups": [1, 1], "masked_error": 0.8, "relative_error": 0.07, "heldout_error": None,
            "residual": 1e-15, "status": "removed one by one", "seconds": 0.1, "detail": {"exchanges": 0.0},
            "groups_of_heads": [], "recovered": None, "unrecovered_error": None,
        }
        for name in kept
    ]  # fmt: skip
    sizes = {"parameters": [66176, 47616], "block_parameters": [62048, 43488], "ratio": 0.3}
    return {"settings": settings(method="experts", experts=kept), "seconds": 0.2, **sizes, "modules": rows}


def blocks_document(blocks: int = 12) -> dict[str, Any]:
    """A run that removed blocks number 3 and 8."""
    rows = [
        {
            "name": f"model.layers.{block}", "units": [1, int(block not in (3, 8))], "groups": [1, 1], "masked_error": 0.02,
            "relative_error": 0.01, "heldout_error": 0.015, "residual": 1e-12 if block == 2 else None, "status": "kept",
            "seconds": 0.5, "detail": {"score": 0.1}, "groups_of_heads": [], "recovered": None, "unrecovered_error": None,
        }
        for block in range(blocks)
    ]  # fmt: skip
    sizes = {"parameters": [3_000_000, 2_600_000], "block_parameters": [2_400_000, 2_000_000], "ratio": 1 / 6}
    more = {"removed_blocks": [8, 3], "output": {"measure": "output", "removed": 0.4, "refitted": 0.3}}
    return {"model": "org/model", "settings": settings(method="depth", **more), "seconds": 9.0, **sizes, "modules": rows}
