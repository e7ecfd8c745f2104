"""Global magnitude pruning: one threshold for the whole model, against a sort of all weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import WINDOWS, parameters, tiny_model

import gramian
from gramian.adapters.passes.magnitudes import Magnitudes, zeros_below


def scaled_model():
    """A model in bfloat16's numbers whose blocks differ in size."""
    model = tiny_model("llama")
    with torch.no_grad():
        for place, block in enumerate(model.model.layers):
            for weight in block.parameters():
                weight.mul_(3.0**place).copy_(weight.bfloat16().float())
    return model


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9])
def test_the_smallest_weights_of_all_operators_go(sparsity):
    model = scaled_model()
    before = parameters(model)
    report = gramian.prune(
        model, WINDOWS, "magnitude", sparsity=sparsity, per_row=False, allocation="magnitude", progress=False
    )
    names = [f"{row.name}.weight" for row in report.operators]
    sizes = torch.cat([before[name].abs().flatten() for name in names])
    after = torch.cat([parameters(model)[name].flatten() for name in names])
    threshold = sizes.sort().values[round(sparsity * len(sizes)) - 1]
    assert (after[sizes < threshold] == 0).all() and (after[sizes > threshold] != 0).all()
    assert abs(int((after == 0).sum()) - sparsity * len(sizes)) <= len(names)
    found = [float((parameters(model)[name] == 0).double().mean()) for name in names]
    assert max(found) > min(found) + 0.1


def test_a_method_of_ones_own_amounts_takes_them():
    model = scaled_model()
    report = gramian.prune(model, WINDOWS, "wanda", sparsity=0.5, per_row=False, allocation="magnitude", progress=False)
    first, last = ([row.sparsity for row in report.operators if f"layers.{place}." in row.name] for place in (0, 1))
    assert report.sparsity == pytest.approx(0.5, abs=1e-3) and min(first) > max(last)
    assert gramian.estimate(tiny_model("llama"), (7, 24), "wanda", sparsity=0.5, allocation="magnitude").duration > 0


@pytest.mark.parametrize("seed", range(5))
def test_the_total_is_exact_under_ties(seed):
    rng = np.random.default_rng(seed)
    drawn = {str(place): rng.integers(0, 4, size=int(rng.integers(1, 40))) for place in range(4)}
    rows = [Magnitudes(name, *np.unique(each, return_counts=True)) for name, each in drawn.items()]
    every = np.sort(np.concatenate(list(drawn.values())))
    for zeros in range(len(every) + 1):
        found = zeros_below(rows, zeros)
        assert sum(found.values()) == zeros
        threshold = every[max(zeros - 1, 0)]
        for name, each in drawn.items():
            assert (each < threshold).sum() * (zeros > 0) <= found[name] <= (each <= threshold).sum()
