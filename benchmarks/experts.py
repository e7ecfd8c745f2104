"""Packed experts, each with the Gram matrix of the tokens routed to it, beside one for all tokens: loss on held-out text.

    python benchmarks/experts.py [--seeds 3] [--out FILE]

A small mixture of experts (qwen3_moe, three layers of sixteen experts, two for each token) is trained for a minute on bytes of
the text that ships with Python. Of the weights of its experts 70 % are zeroed, on few windows of calibration text and on many:
with `shared`, every expert is calibrated on all tokens, as if the router had sent it every one; with `routed`, on its own, and
on all tokens if there are none; with `borrowed`, the default, an expert with fewer tokens than inputs borrows what it lacks.
The figure is the mean loss per byte on windows that trained and calibrated nothing.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from common.byte_models import held_loss, train, windows_of
from common.results import RESULTS, save
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from gramian.adapters import builtin_text, prune
from gramian.adapters.run import expert_moments
from gramian.adapters.run.expert_moments import ExpertMoments
from gramian.tables import table
from gramian.versions import versions

WINDOWS = (2, 8, 32)  # of calibration, of LENGTH bytes
LENGTH, STEPS, SPARSITY = 128, 600, 0.7
BATCH = 8
METHODS = ("wanda", "sparsegpt")


class Shared(ExpertMoments):
    """What all tokens give outweighs the expert's own by far."""

    def borrowed(self, routed: int) -> int:
        return 10**9


class Routed(ExpertMoments):
    """Nothing is borrowed where there is a token."""

    def borrowed(self, routed: int) -> int:
        return 0 if routed else self.packed.width


GRAMS = {"shared": Shared, "routed": Routed, "borrowed": ExpertMoments}


def trained(windows: torch.Tensor, seed: int) -> Qwen3MoeForCausalLM:
    torch.manual_seed(seed)
    config = Qwen3MoeConfig(
        vocab_size=256, hidden_size=64, moe_intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, num_experts=16, num_experts_per_tok=2, max_position_embeddings=256,
        bos_token_id=None, eos_token_id=None, pad_token_id=None, router_aux_loss_coef=0.02, output_router_logits=True,
    )  # fmt: skip
    model = Qwen3MoeForCausalLM(config)
    train(model, windows, STEPS, batch=BATCH)
    model.config.output_router_logits = False  # the balance of experts is part of the loss in training only
    return model


def rows_of(seed: int) -> list[dict[str, Any]]:
    """A row for each method, amount of calibration and way of making Gram matrices, and for the dense model."""
    windows, apart = windows_of(builtin_text(), LENGTH), windows_of(builtin_text("heldout"), LENGTH)[:128]
    dense = trained(windows, seed)
    rows = [{"method": "dense", "windows": 0, "gram": "-", "seed": seed, "loss": held_loss(dense, apart), "borrowing": 0.0}]
    for method in METHODS:
        for count in WINDOWS:
            chosen = windows[torch.randperm(len(windows), generator=torch.Generator().manual_seed(seed))[:count]]
            for gram, collector in GRAMS.items():
                model = copy.deepcopy(dense)
                with patch.object(expert_moments, "ExpertMoments", collector):
                    report = prune(
                        model, chosen, method=method, sparsity=SPARSITY, include="experts", target="own", progress=False
                    )
                short = [row.detail["routed_tokens"] < row.shape[1] for row in report.operators]
                part = sum(short) / len(short)
                figures = {"loss": held_loss(model, apart), "borrowing": part, "seconds": report.seconds}
                rows.append({"method": method, "windows": count, "gram": gram, "seed": seed, **figures})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="how many models are trained")
    parser.add_argument("--out", type=Path, default=RESULTS / "experts.json", metavar="FILE", help="the result file")
    arguments = parser.parse_args()
    rows = [row for seed in range(arguments.seeds) for row in rows_of(seed)]
    settings = {"length": LENGTH, "steps": STEPS, "sparsity": SPARSITY}
    save(arguments.out, {"rows": rows, "settings": settings, "versions": dict(versions())})
    lines = {}
    for row in rows:
        lines.setdefault((row["method"], row["windows"], row["gram"]), []).append(row)
    shown = [
        [
            *map(str, key),
            f"{statistics.mean(row['loss'] for row in same):.4f}",
            f"{statistics.mean(r['borrowing'] for r in same):.2f}",
        ]
        for key, same in lines.items()
    ]
    print(table(["method", "windows", "Gram", "loss", "short"], shown, words=3))


if __name__ == "__main__":
    main()
