"""What shrinking refuses: choices of units that make no sense, by name, and leaving the model as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import names_of, tiny_model
from torch import nn

from gramian.adapters.models.shrink import count_parameters, mask_model, shrink_model


@pytest.mark.parametrize(
    ("kind", "kept", "message"),
    [
        ("channels", [], "would keep none of its 48 units: keep at least one"),
        ("channels", [False] * 48, "would keep none"),
        ("heads", np.array([], dtype=int), "would keep none of its 4 units"),
        ("channels", [0, 48], r"holds 48, but units run from 0 to 47"),
        ("channels", [-1, 3], "holds -1"),
        ("heads", [0, 2, 4], "holds 4, but units run from 0 to 3"),
        ("channels", [3, 5, 3], "holds unit 3 more than once"),
        ("channels", [1.0, 2.0], "holds float64 numbers"),
        ("channels", [True, False], "mask of 2, but the module has 48"),
        ("channels", [[0, 1]], r"shape \(1, 2\)"),
        ("heads", [0, 1, 2], r"keep \[2, 1\] query heads of its 2 key/value groups: keep equally many"),
    ],
)
@pytest.mark.parametrize("function", [shrink_model, mask_model])
def test_bad_choices_change_nothing(function, kind, kept, message):
    model = tiny_model("llama")
    before = {name: (tensor, tensor.clone()) for name, tensor in model.named_parameters()}
    good, bad = names_of(model, "channels")[1], names_of(model, kind)[0]
    with pytest.raises(ValueError, match=message) as caught:
        function(model, {good: [0, 1], bad: kept})
    assert bad in str(caught.value)
    for name, tensor in model.named_parameters():
        assert tensor is before[name][0] and tensor.equal(before[name][1])


@pytest.mark.parametrize("name", ["model.layers.0.mlp.up_proj", "model.layers.9.mlp.down_proj", "mlp"])
def test_a_name_that_consumes_no_units(name):
    with pytest.raises(ValueError, match=r"which consumes no units.*model\.layers\.0\.self_attn\.o_proj"):
        shrink_model(tiny_model("llama"), {name: [0]})


class OverAllHeads(nn.Linear):
    """Queries of which no head's are independent of another's."""

    def forward(self, states):
        return super().forward(states).softmax(dim=-1)


@pytest.mark.parametrize("function", [shrink_model, mask_model, count_parameters])
def test_a_model_in_which_nothing_is_proven_says_why(function):
    model = tiny_model("gemma2")
    keep = {"model.layers.0.mlp.down_proj": [0]}
    for block in model.model.layers:
        block.mlp.act_fn = nn.Softmax(dim=-1)
        block.self_attn.q_proj.__class__ = OverAllHeads
    with pytest.raises(ValueError, match=r"no units of Gemma2ForCausalLM can be removed: .*mlp\.down_proj: channels cannot"):
        function(model, keep)


def test_modules_that_are_no_plain_matrices():
    model = tiny_model("llama")
    mlp = model.model.layers[0].mlp
    mlp.up_proj = nn.Sequential(mlp.up_proj)
    with pytest.raises(ValueError, match=r"model\.layers\.0\.mlp\.up_proj is a Sequential"):
        shrink_model(model, {})
    model = tiny_model("llama")
    model.model.layers[0].mlp.up_proj.weight = nn.Parameter(torch.zeros(768, 1))
    with pytest.raises(ValueError, match=r"a weight \(768, 1\) but states \(48, 32\)"):
        shrink_model(model, {})
    model = tiny_model("llama")
    model.model.layers[0].mlp.up_proj = nn.Linear(32, 47)
    with pytest.raises(ValueError, match=r"up_proj has 47 outputs, but model\.layers\.0\.mlp\.down_proj takes 48 units of 1"):
        shrink_model(model, {})
