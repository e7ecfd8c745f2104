"""Budgets by the tails of spectra, against numpy's singular values and the rule by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import WINDOWS, tiny_model

import gramian


def exponent(weight: torch.Tensor) -> float:
    """The definition, as a loop."""
    values = np.linalg.svd(weight.detach().double().numpy(), compute_uv=False) ** 2
    k = len(values) // 2
    return 1 + k / sum(np.log(values[i] / values[k]) for i in range(k))


def test_blocks_with_heavier_tails_remain_denser():
    model = tiny_model("gemma3_text")
    spikes = torch.Generator().manual_seed(0)
    with torch.no_grad():  # one block is given a heavy tail
        for module in model.model.layers[1].modules():
            if isinstance(module, torch.nn.Linear):
                left, right = (torch.randn(size, 3, generator=spikes) for size in module.weight.shape)
                module.weight += 4 * module.weight.std() * left @ right.T
    alphas = []
    for layer in model.model.layers:
        alphas.append(np.mean([exponent(each.weight) for each in layer.modules() if isinstance(each, torch.nn.Linear)]))
    assert min(alphas) == alphas[1]
    report = gramian.prune(model, WINDOWS, "wanda", sparsity=0.5, per_row=False, allocation="alpha", progress=False)
    share = 0.7 + 0.6 * (np.array(alphas) - min(alphas)) / (max(alphas) - min(alphas))
    for number, expected in enumerate(0.5 * share / share.mean()):
        some = [row for row in report.operators if f"layers.{number}." in row.name]
        found = sum(row.sparsity * np.prod(row.shape) for row in some) / sum(np.prod(row.shape) for row in some)
        assert found == pytest.approx(expected, abs=2e-3)
    assert report.sparsity == pytest.approx(0.5, abs=1e-3) and report.settings["allocation"] == "alpha"
    assert gramian.estimate(tiny_model("gemma3_text"), (7, 24), "wanda", sparsity=0.5, allocation="alpha").duration > 0


def test_units_and_patterns_are_refused():
    with pytest.raises(ValueError, match="does not go with 'numerical'"):
        gramian.prune(tiny_model("llama"), WINDOWS, "numerical", ratio=0.2, allocation="alpha")
    with pytest.raises(ValueError, match="moves zeros from operator to operator"):
        gramian.prune(tiny_model("llama"), WINDOWS, "wanda", sparsity="2:4", allocation="alpha")
