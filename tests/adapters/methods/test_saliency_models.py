"""What saliency methods remove from a model, what they do not touch, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from saliency_by_hand import scores
from stacked_models import STACKED, WINDOWS, stacked_model
from structured_models import exact, pruned
from tiny import FAMILIES, names_of, tiny_model

from gramian.adapters.methods.gradients import UnitSums, averaged
from gramian.adapters.methods.unit_methods import UNIT_METHODS
from gramian.adapters.models.tasks import embedded_inputs, outputs_of, token_inputs
from gramian.adapters.models.unit_groups import unit_groups_of

METHODS = ("tasp", "snip", "grasp", "synflow", "ntk-sap", "px", "llm-pruner")


@pytest.mark.parametrize("name", METHODS)
def test_the_model_is_as_it_was(name, monkeypatch):
    model = tiny_model("llama").train()
    before = {name: (each, each.clone(), each.requires_grad) for name, each in model.named_parameters()}
    mine = torch.ones_like(model.model.layers[0].mlp.up_proj.weight)
    model.model.layers[0].mlp.up_proj.weight.grad = mine
    one, two = scores(name, model), scores(name, model)
    assert all(np.array_equal(a, b) for a, b in zip(one, two))
    monkeypatch.setattr(UnitSums, "add", lambda *_: (_ for _ in ()).throw(RuntimeError("stop")))
    with pytest.raises(RuntimeError, match="stop"):
        scores(name, model)
    for key, parameter in model.named_parameters():
        kept, value, required = before[key]
        assert parameter is kept and parameter.equal(value) and parameter.requires_grad == required
        assert parameter.grad is (mine if "layers.0.mlp.up_proj" in key else None)
        assert not parameter._backward_hooks and not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("name", METHODS)
def test_dead_and_duplicate_units(name):
    model = tiny_model("llama")
    for block in model.model.layers:
        with torch.no_grad():
            block.mlp.down_proj.weight[:, :3] = 0
            for weight in (block.mlp.up_proj.weight, block.mlp.gate_proj.weight):
                weight[:3] = 0
                weight[10:14] = weight[20:24]
            block.mlp.down_proj.weight[:, 10:14] = block.mlp.down_proj.weight[:, 20:24]
    for unit_group, found in zip(unit_groups_of(model).values(), scores(name, model)):
        assert np.isfinite(found).all()
        if unit_group.size == 1:
            if name != "ntk-sap":  # noise distinguishes duplicates
                np.testing.assert_allclose(found[10:14], found[20:24], rtol=1e-3, atol=1e-5 * np.abs(found).max())
                assert not found[:3].any()


@pytest.mark.parametrize("name", [*FAMILIES, *STACKED])
def test_embeddings_in_place_of_tokens_are_read_as_the_tokens_are(name):
    model = stacked_model(name) if name in STACKED else tiny_model(name)
    read = token_inputs(model, WINDOWS[:2, :15])
    with torch.no_grad():
        vectors = embedded_inputs(model, read, lambda embeddings: embeddings)
        torch.testing.assert_close(outputs_of(model(**vectors)), outputs_of(model(**read)), rtol=1e-5, atol=1e-5)
    assert not any(key.endswith("input_ids") for key in vectors) and len(vectors) == len(read)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("stacked", ["t5", "gated t5"])
def test_windows_of_odd_length(stacked, name):
    found = scores(name, stacked_model(stacked), windows=WINDOWS[:2, :15])
    assert all(np.isfinite(each).all() and each.any() for each in found)


def test_sums_over_many_windows_outgrow_half_precision():
    """In bfloat16, 256 + 1 is 256."""
    leaves = {"weight": torch.ones(3, dtype=torch.bfloat16, requires_grad=True)}
    first, second = averaged((0.5 * leaves["weight"].sum() for _ in range(1000)), leaves, (1, 2))
    assert first["weight"].tolist() == [0.5] * 3 and second["weight"].tolist() == [0.25] * 3


def test_a_sum_of_outputs_that_is_constant_ranks_nothing():
    model = stacked_model("bert")
    scores("synflow", model)
    model.encoder.layer[-1].output.LayerNorm.weight.fill_(1.0)
    with pytest.raises(ValueError, match="sum that does not depend on its weights"):
        scores("synflow", model)


@pytest.mark.parametrize("portion", [0.0625, 0.25, 0.5, 0.9])
def test_a_portion_of_all_units_is_removed_and_attention_is_kept(portion):
    """h - ceil(r h) units of all modules together are kept, with the same rows of producers and columns of the consumer."""
    model = exact("opt")
    inside = sum(each.numel() for each in model.model.decoder.layers.parameters())
    ratio = portion * 2 * 48 * (2 * 32 + 1) / inside
    for allocation in ("score", "equal"):
        step = 1 if allocation == "equal" else None
        model, report = pruned(exact("opt"), method="tasp", ratio=ratio, allocation=allocation, round_to=step)
        assert [row.name for row in report.modules] == names_of(model, "channels")
        kept = [row.units[1] for row in report.modules]
        assert allocation == "equal" or sum(kept) == 96 - math.ceil(portion * 96)
        assert all(each.residual is None for each in report.modules)
        for block, width in zip(model.model.decoder.layers, kept):
            assert block.fc1.weight.shape == (width, 32) and block.fc2.weight.shape == (32, width)
            assert block.self_attn.q_proj.weight.shape == (32, 32)
        if allocation == "equal":
            assert kept == [kept[0]] * 2 and abs(96 - sum(kept) - portion * 96) <= 1
    _, report = pruned(exact("opt"), method="tasp", include=".")
    assert [row.name for row in report.modules] == list(unit_groups_of(model))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tasp", {"output": "entropy"}, "output must be one of logit, logprob, loss but is 'entropy'"),
        ("tasp", {"samples": "some"}, "samples must be one of each, batch but is 'some'"),
        ("snip", {"output": "loss"}, "snip has no option 'output'; it has samples"),
        ("llm-pruner", {"order": 3}, "order must be 1 or 2 but is 3"),
        ("llm-pruner", {"group": "mean"}, "group must be one of sum, product, max, last but is 'mean'"),
        ("llm-pruner", {"importance": "matrix"}, "importance must be one of element, vector but is 'matrix'"),
        ("ntk-sap", {"epsilon": 0.0}, "epsilon must be a positive number"),
        ("ntk-sap", {"draws": 0}, "draws must be a whole number of at least 1"),
        ("ntk-sap", {"seed": -1}, "seed must be a whole number of at least 0"),
        ("grasp", {"damping": 1.0}, "grasp has no option 'damping'; it has none"),
    ],
)
def test_bad_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        UNIT_METHODS[name].tried(options)


def test_gradients_that_are_not_finite_name_their_operator():
    model = tiny_model("llama")
    model.model.norm.weight.data.fill_(math.inf)
    with pytest.raises(ValueError, match=r"model\.layers\.\d\.[\w.]+: its gradients hold NaN or Inf"):
        scores("tasp", model)
