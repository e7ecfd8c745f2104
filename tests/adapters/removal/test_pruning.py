"""Structured pruning end to end on tiny models: how much is removed, what it depends on, what is refused."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from structured_models import GATED, TOKENS, in_blocks, logits, pruned
from tiny import FAMILIES, SHAPES, VOCABULARY, names_of, tiny_model
from transformers import AutoConfig, AutoModelForCausalLM

from gramian.adapters import prune
from gramian.adapters.methods.unit_methods import UNIT_METHODS
from gramian.adapters.models.unit_groups import unit_groups_of

# -- how much is removed ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", UNIT_METHODS)
@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_ratio_is_met_to_within_the_cheapest_unit(model_type, method):
    dense = tiny_model(model_type)
    ranking = UNIT_METHODS[method].settings.get("allocation", "score")  # equal widths are met as nearly as they allow
    model, report = pruned(copy.deepcopy(dense), method=method, allocation=ranking)
    before, after = in_blocks(dense), in_blocks(model)
    channel = 3 * 32 if model_type in GATED else 2 * 32 + 1  # rows and columns, with the bias of the producer
    assert 0 <= before - after - 0.3 * before < channel
    assert report.block_parameters == (before, after) and report.ratio == pytest.approx(1 - after / before)
    whole = [sum(tensor.numel() for tensor in {*each.parameters()}) for each in (dense, model)]
    assert report.parameters == tuple(whole)
    everything = UNIT_METHODS[method].modules == "all"
    assert [row.name for row in report.modules] == (list(unit_groups_of(dense)) if everything else names_of(dense, "channels"))
    for row in report.modules:
        old, new = (unit_groups_of(each)[row.name] for each in (dense, model))
        assert row.units == (old.units, new.units) and row.groups == (old.groups, new.groups) and new.units >= 1
        assert row.heldout_error is not None and math.isfinite(row.heldout_error) and row.name in str(report)


@pytest.mark.parametrize("allocation", ["per_type", "score", "loss"])
@pytest.mark.parametrize("score", ["newton", "box", "compensated"])
def test_every_module_keeps_one_removable_and_no_ratio_goes_further(score, allocation):
    model = tiny_model("qwen3")
    removable = (
        sum((count - 1) * cost for count, cost in [(2, (2 * 2 + 2) * 32 * 16), (48, 3 * 32)]) * model.config.num_hidden_layers
    )
    most = removable / in_blocks(model)
    options = {"options": {"score": score}, "allocation": allocation}
    with pytest.raises(ValueError, match=f"out of reach: {math.floor(1e4 * most) / 1e4:g} is the largest"):
        pruned(model, ratio=most + 1e-6, **options)
    assert all(unit_group.units == (4 if unit_group.size > 1 else 48) for unit_group in unit_groups_of(model).values())
    model, report = pruned(model, ratio=most, **options)
    assert {(unit_group.units, unit_group.groups) for unit_group in unit_groups_of(model).values()} == {(2, 1), (1, 1)}
    assert torch.isfinite(logits(model)).all() and report.ratio == pytest.approx(most)


@pytest.mark.parametrize(
    ("groups", "heads"), [(4, "groups"), (2, "groups"), (2, "per_kv_group"), (1, "groups"), (1, "per_kv_group")]
)
def test_what_is_removed_of_attention(groups, heads):
    shape = SHAPES["llama"] | {"num_key_value_heads": groups, "num_hidden_layers": 3}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **shape, vocab_size=VOCABULARY)).eval()
    reference = copy.deepcopy(model)
    model, report = pruned(model, include="o_proj", ratio=0.12, heads=heads, method="random")
    widths = [(row.units[1], row.groups[1]) for row in report.modules]
    if groups == 4:
        assert all(units == kept for units, kept in widths)
    elif groups == 2 and heads == "groups":
        assert all(units == 2 * kept for units, kept in widths)
    else:
        assert all(kept == groups and units % groups == 0 for units, kept in widths)  # keys and values are kept
    assert any(units < 4 for units, _ in widths) and model.model.layers[0].mlp.gate_proj.out_features == 48
    assert 0 <= report.ratio - 0.12 < 0.12
    assert (logits(model) - logits(reference)).abs().max() > 1e-4


def test_selected_modules_alone_are_touched():
    dense = tiny_model("gemma3_text")
    model, report = pruned(copy.deepcopy(dense), ratio=0.05, include="down_proj", exclude=r"\.1\.")
    assert [row.name for row in report.modules] == ["model.layers.0.mlp.down_proj", "model.layers.2.mlp.down_proj"]
    for name, tensor in model.state_dict().items():
        assert tensor.equal(dense.state_dict()[name]) == (".mlp." not in name or ".1." in name), name


# -- what it depends on ------------------------------------------------------------------------------------------------


def test_same_run_same_tensors():
    for options in ({"method": "numerical"}, {"method": "random", "options": {"seed": 3}}):
        one, two = (pruned(tiny_model("qwen2"), **options)[0].state_dict() for _ in range(2))
        assert one.keys() == two.keys() and all(one[name].equal(two[name]) for name in one)
    other = pruned(tiny_model("qwen2"), method="random", options={"seed": 4})[0].state_dict()
    assert any(one[name].shape != other[name].shape or not one[name].equal(other[name]) for name in one)


def test_held_out_windows_only_evaluate():
    one, evaluated = pruned(tiny_model("opt"))
    two, without = pruned(tiny_model("opt"), heldout=None)
    assert all(tensor.equal(two.state_dict()[name]) for name, tensor in one.state_dict().items())
    assert without.mean_heldout_error is None and all(row.heldout_error is None for row in without.modules)
    assert evaluated.mean_heldout_error is not None and [r.relative_error for r in evaluated.modules] == [
        r.relative_error for r in without.modules
    ]


def test_stored_weights_are_those_of_the_checkpoint_s_dtype():
    model = tiny_model("llama")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16())
    model.config.dtype = torch.bfloat16
    for method in ("numerical", "flap"):
        narrow, report = pruned(copy.deepcopy(model), method=method)
        assert narrow.dtype == torch.float32 and report.settings["dtype"] == "bfloat16"
        assert all(parameter.equal(parameter.bfloat16().float()) for parameter in narrow.parameters())


@pytest.mark.parametrize("damping", [0.0, None])
def test_fewer_tokens_than_channels_and_dead_and_duplicate_channels(damping):
    dense = tiny_model("llama")
    with torch.no_grad():
        for block in dense.model.layers:
            block.mlp.up_proj.weight[:5] = 0
            for operator in (block.mlp.up_proj, block.mlp.gate_proj):
                operator.weight[10:14] = operator.weight[20:24]
    for method, recipe in UNIT_METHODS.items():
        model = copy.deepcopy(dense)
        options = {"method": method, "ratio": 0.4, "compensate": True}
        if recipe.compensation == "weights":
            options["damping"] = damping
        report = prune(model, TOKENS[:1, :9], progress=False, **options)
        assert torch.isfinite(logits(model)).all(), method
        assert all(row.relative_error <= row.masked_error for row in report.modules), method
        assert method != "numerical" or all((row.residual or 0.0) < 1e-4 for row in report.modules)


def test_one_layer_one_window_one_head():
    shape = SHAPES["opt"] | {"num_hidden_layers": 1, "num_attention_heads": 1}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("opt", **shape, vocab_size=VOCABULARY)).eval()
    report = prune(model, TOKENS[:1, :2], "numerical", ratio=0.1, progress=False)
    assert [row.name for row in report.modules] == ["model.decoder.layers.0.fc2"]  # the one head is kept


def test_the_model_s_mode_and_gradients_are_kept():
    model = tiny_model("gpt2").train()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    narrow, _ = pruned(model, method="flap")
    assert narrow.training and not any(parameter.requires_grad for parameter in narrow.parameters())


def test_a_pruned_model_is_pruned_on():
    model, first = pruned(tiny_model("mistral"), ratio=0.2)
    widths = {name: unit_group.units for name, unit_group in unit_groups_of(model).items()}
    model, second = pruned(model, ratio=0.2)
    assert second.parameters[0] == first.parameters[1] > second.parameters[1]
    assert {row.name: row.units[0] for row in second.modules}.items() <= widths.items()


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 0.0}, "above 0 and below 1 but is 0.0"),
        ({"ratio": 1.0}, "above 0 and below 1"),
        ({"ratio": math.nan}, "above 0 and below 1"),
        ({"ratio": 0.9}, "out of reach: 0.78"),
        ({"method": "wanda"}, "ratio=0.3 does not go with 'wanda'"),
        (
            {"allocation": "even"},
            "allocation must be one of uniform, owl, alpha, angles, magnitude, search, equal, per_type, score, loss "
            "but is 'even'",
        ),
        ({"calibrate_on": "both"}, "calibrate_on must be one of dense, pruned"),
        ({"heads": "all"}, "heads must be one of groups, per_kv_group"),
        ({"damping": "auto"}, "damping='auto' does not go with 'numerical'"),
        (
            {"target_blend": 0},
            "target_blend must be a number above 0 and at most 1 but is 0",
        ),
        ({"target_blend": math.nan}, "target_blend must be a number above 0"),
        ({"target_blend": 0.5, "refit_producers": True}, "refit_producers=True needs target_blend=1 but it is 0.5"),
        ({"swap_search": True, "method": "flap"}, "the other weights to be solved for"),
        ({"damping": -1.0}, "damping must be a number of at least 0"),
        ({"options": {"scores": "box"}}, "numerical has no option 'scores' .*; it has score, penalty"),
        ({"options": {"score": "best"}}, "score must be one of compensated, box, newton but is 'best'"),
        ({"options": {"penalty": 2.0}}, "it goes with score='newton'"),
        ({"options": {"score": "newton", "penalty": -1.0}}, "is positive"),
        ({"options": {"score": "newton", "penalty": "much"}}, "options of numerical"),
        ({"include": "nothing"}, "no operator is left"),
        ({"include": "up_proj"}, "no module is left by include='up_proj'"),
        ({"include": "("}, "must be a regular expression"),
        ({"heldout": TOKENS + VOCABULARY}, "held-out windows hold token"),
    ],
)
def test_bad_arguments_change_nothing(options, message):
    model = tiny_model("llama")
    before = {name: (tensor, tensor.clone()) for name, tensor in model.named_parameters()}
    with pytest.raises(ValueError, match=message):
        pruned(model, **options)
    for name, tensor in model.named_parameters():
        assert tensor is before[name][0] and tensor.equal(before[name][1])


def test_bad_tokens_and_weights():
    with pytest.raises(ValueError, match="calibration windows hold token 300"):
        prune(tiny_model("llama"), torch.full((2, 8), 300), "numerical", progress=False)
    broken = tiny_model("llama")
    with torch.no_grad():
        broken.model.layers[1].mlp.up_proj.weight[0, 0] = math.nan
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.up_proj\.weight holds NaN"):
        prune(broken, TOKENS, "numerical", progress=False)
