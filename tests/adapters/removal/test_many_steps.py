"""Many small steps in place of one: a loop of runs, each on what the one before has left."""

from __future__ import annotations

import pytest
from tiny import WINDOWS, tiny_model

import gramian
from gramian.adapters.models.shrink import count_parameters
from gramian.adapters.removal.amount import block_parameters


@pytest.mark.parametrize("method", ["cfsp", "wanda-sp", "numerical"])
def test_the_steps_of_a_loop_add_up(method):
    """The ratio is met by all steps together, to within a unit for each, and the parts that remain multiply."""
    model, steps = tiny_model("llama"), 4
    before, whole = block_parameters(model), count_parameters(model)
    left = 1.0
    for _ in range(steps):
        report = gramian.prune(model, WINDOWS, method, ratio=1 - (1 - 0.3) ** (1 / steps), allocation="score", progress=False)
        left *= 1 - report.ratio
    removed = whole - count_parameters(model)
    assert block_parameters(model) == before - removed
    assert removed / before == pytest.approx(1 - left, abs=1e-9)
    biggest = max(parameter.numel() for parameter in tiny_model("llama").model.layers.parameters())
    assert 0.3 * before <= removed < 0.3 * before + steps * biggest
    assert model(WINDOWS).logits.isfinite().all()
