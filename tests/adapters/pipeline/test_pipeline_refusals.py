"""What `prune` refuses: before any work, by name, and leaving the model as it was."""

from __future__ import annotations

import re

import pytest
import torch
from tiny import LENGTH, QUICK, VOCABULARY, parameters, run, same, tiny_model

pytestmark = pytest.mark.usefixtures("small_batches")
LONG = torch.zeros(1, 129, dtype=torch.int64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "nothing"}, "no method 'nothing'; there are fistapruner, fistapruner-printed, l0, sparsegpt, armor"),
        ({"calibrate_on": "sparse"}, "calibrate_on must be .* 'sparse'"),
        ({"target": "dense"}, "target must be .* 'dense'"),
        ({"target_blend": 0.0}, "target_blend must be a number above 0 and at most 1 but is 0.0"),
        ({"target_blend": 1.5}, "target_blend must be a number above 0 and at most 1 but is 1.5"),
        ({"jobs": 0}, "jobs must be a whole number of at least 1 but is 0"),
        ({"jobs": 2, "calibrate_on": "pruned"}, "jobs=2 needs calibrate_on='dense'"),
        ({"jobs": 2, "method": "wanda"}, "jobs=2 needs calibrate_on='dense'"),
        ({"options": {"damping": 0.1}}, "fistapruner has no option 'damping'; it has warm_start, "),
        ({"method": "wanda", "options": {"x": 1}}, "wanda has no option 'x'; it has none"),
        ({"options": {"warm_start": "none"}}, "warm_start must be one of"),
        ({"method": "sparsegpt", "options": {"damping": -1.0}}, "damping"),
        ({"sparsity": 1.0}, r"sparsity must be a sparsity in \[0, 1\)"),
        ({"sparsity": -0.1}, "sparsity"),
        ({"sparsity": float("nan")}, "sparsity"),
        ({"pattern": "2/4"}, "a pattern such as 2:4"),
        ({"pattern": "5:4"}, "5:4"),
        ({"pattern": "2:5"}, r"model\.layers\.0\.self_attn\.q_proj: pattern 2:5"),
        ({"pattern": "2:32"}, r"model\.layers\.0\.mlp\.down_proj: pattern 2:32"),
        ({"include": "nothing"}, "no operator is left"),
        ({"exclude": "["}, "must be a regular expression"),
        ({"tokens": torch.full((2, 8), VOCABULARY)}, f"token {VOCABULARY}"),
        ({"tokens": torch.full((2, 8), -1)}, "token -1"),
        ({"tokens": torch.zeros(0, 8, dtype=torch.int64)}, "calibration windows"),
        ({"tokens": torch.zeros(8, dtype=torch.int64)}, "calibration windows"),
        ({"tokens": torch.zeros(2, 0, dtype=torch.int64)}, "calibration windows"),
        ({"tokens": torch.zeros(2, 8)}, "expected integers"),
        ({"tokens": LONG}, "context has 128"),
        ({"heldout": LONG}, "held-out windows have 129"),
        ({"heldout": torch.zeros(0, LENGTH, dtype=torch.int64)}, "held-out windows"),
        ({"heldout": torch.full((1, LENGTH), VOCABULARY)}, "held-out windows hold token"),
    ],
)
def test_bad_arguments_change_nothing(arguments, message):
    model = tiny_model("llama")
    before = parameters(model)
    with pytest.raises(ValueError, match=message):
        run(model, **arguments)
    assert same(before, parameters(model))
    assert not any(module._forward_pre_hooks or "forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
@pytest.mark.parametrize(
    ("parameter", "named"),
    [
        ("model.layers.1.mlp.down_proj.weight", "model.layers.1.mlp.down_proj.weight holds NaN or Inf"),
        ("model.layers.1.self_attn.q_proj.bias", "model.layers.1.self_attn.q_proj.bias holds NaN or Inf"),
        ("model.embed_tokens.weight", "model.embed_tokens.weight holds NaN or Inf"),
    ],
)
def test_parameters_that_are_not_finite_are_named(parameter, named, value, jobs):
    model = tiny_model("qwen2")
    with torch.no_grad():
        model.get_parameter(parameter).view(-1)[:] = value
    before = parameters(model)
    with pytest.raises(ValueError, match=re.escape(named)):
        run(model, options=QUICK, jobs=jobs)
    assert same(before, parameters(model))


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(
    ("parameter", "reached"),
    [
        ("model.layers.0.input_layernorm.weight", "model.layers.0.self_attn.q_proj"),
        ("model.layers.1.post_attention_layernorm.weight", "model.layers.1.mlp.gate_proj"),
    ],
)
def test_activations_that_overflow_name_the_layer_they_reach(parameter, reached, jobs):
    model = tiny_model("qwen2")
    with torch.no_grad():
        model.get_parameter(parameter)[:] = 3e38  # finite, but what it multiplies is not
    with pytest.raises(ValueError, match=re.escape(reached) + ": .*NaN or Inf"):
        run(model, options=QUICK, jobs=jobs)


def test_a_family_without_a_row_is_pruned_like_any_other():
    assert run(tiny_model("gemma2"), method="wanda-sp", allocation="score", ratio=0.2).ratio > 0.199
    assert run(tiny_model("gemma2"), method="wanda").sparsity == 0.5
