"""Shrunk models against the dense model with units silenced by hooks, which knows nothing of rows and columns."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from rounding import rounding_of
from shrunk_models import GROUPED, IDS, changed, channels, generated, logits, silenced, uneven, uniform
from tiny import FAMILIES, SHAPES, VOCABULARY, names_of, tiny_model
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from gramian.adapters.models.families import FAMILIES as ROWS
from gramian.adapters.models.own_classes import stock_config, stock_type
from gramian.adapters.models.shrink import count_parameters, mask_model, shrink_model
from gramian.adapters.models.unit_groups import unit_groups_of


def test_every_row_says_where_its_units_are():
    assert all(row.structures for row in ROWS.values())


@pytest.mark.parametrize("model_type", FAMILIES)
def test_parts_are_read_from_the_tensors(model_type):
    model = tiny_model(model_type)
    unit_groups = unit_groups_of(model)
    layers = model.config.num_hidden_layers
    assert len(unit_groups) == 2 * layers
    for kind, widths in (("heads", (4, 2 if model_type in GROUPED else 4)), ("channels", (48, 48))):
        names = names_of(model, kind)
        assert len(names) == layers
        assert {(unit_groups[name].units, unit_groups[name].groups) for name in names} == {widths}
    assert {unit_group.name for unit_group in unit_groups.values()} == set(unit_groups)
    assert {unit_group.size for unit_group in unit_groups.values()} == {1, getattr(model.config, "head_dim", 32 // 4)}


@pytest.mark.parametrize("choose", [uniform, uneven])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_shrunk_and_masked_models_compute_what_the_silenced_model_does(model_type, choose):
    dense = tiny_model(model_type)
    keep = choose(dense)
    reference = silenced(dense, keep)
    expected, (tokens, scores) = logits(reference), generated(reference)
    slack = rounding_of(reference, logits)
    assert (expected - logits(dense)).abs().max() > 1e-2
    for function in (mask_model, shrink_model):
        model = changed(function, dense, keep)
        assert isinstance(model, type(dense))
        torch.testing.assert_close(logits(model), expected, rtol=0, atol=slack)
        for options in ({}, {"use_cache": False}) if function is shrink_model else ({},):
            ours = generated(model, **options)
            assert ours[0].equal(tokens)
            torch.testing.assert_close(ours[1], scores, rtol=0, atol=slack)
    for name, unit_group in unit_groups_of(model).items():
        assert unit_group.units == len(keep.get(name, range(unit_groups_of(dense)[name].units)))


@pytest.mark.parametrize("model_type", ["llama", "opt", "gpt2"])
def test_exact_in_float64(model_type):
    dense = tiny_model(model_type).double()
    dense.set_attn_implementation("eager" if model_type != "llama" else "sdpa")
    for choose in (uniform, uneven):
        keep = choose(dense)
        reference = silenced(dense, keep)
        expected, slack = logits(reference), rounding_of(reference, logits)
        assert slack < 1e-10
        for function in (mask_model, shrink_model):
            assert (logits(changed(function, dense, keep)) - expected).abs().max() <= slack


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_every_choice_of_heads_is_exact_or_refused(implementation):
    """Eight query heads in two groups: a choice is fit when groups keep equally many, or none."""
    shape = SHAPES["llama"] | {"num_attention_heads": 8, "num_hidden_layers": 1}
    config = AutoConfig.for_model("llama", **shape, vocab_size=20)
    torch.manual_seed(0)
    dense = AutoModelForCausalLM.from_config(config, attn_implementation=implementation).eval()
    name = "model.layers.0.self_attn.o_proj"
    refused = 0
    for heads in [np.flatnonzero(flags) for flags in itertools.product([0, 1], repeat=8) if any(flags)][::3]:
        of_groups = {int((heads < 4).sum()), int((heads >= 4).sum())} - {0}
        if len(of_groups) > 1:
            refused += 1
            with pytest.raises(ValueError, match="keep equally many"):
                shrink_model(dense, {name: heads})
            continue
        model = changed(shrink_model, dense, {name: heads})
        unit_group = unit_groups_of(model)[name]
        assert unit_group.members == of_groups.pop() and unit_group.groups == len(set(heads // 4))
        with torch.no_grad():
            ours, theirs = (m(input_ids=IDS % 20).logits for m in (model, silenced(dense, {name: heads})))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert 20 < refused < 60


@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("llama", {"num_key_value_heads": 4}),
        ("llama", {"num_key_value_heads": 1}),
        ("opt", {"enable_bias": False, "do_layer_norm_before": False}),
        ("opt", {"activation_function": "sigmoid"}),  # not zero at zero: columns of the consumer have to be removed
        ("gpt2", {"n_inner": None, "scale_attn_by_inverse_layer_idx": True}),
        ("gemma3_text", {"attention_bias": True, "use_bidirectional_attention": True}),
    ],
)
def test_other_shapes_of_a_family(model_type, options):
    torch.manual_seed(1)
    config = AutoConfig.for_model(model_type, **SHAPES[model_type] | options, vocab_size=VOCABULARY)
    dense = AutoModelForCausalLM.from_config(config).eval()
    for parameter in dense.parameters():
        nn.init.normal_(parameter, std=0.2)
    keep = {}
    for name, unit_group in unit_groups_of(dense).items():
        keep[name] = (
            list(unit_group.of_groups(np.arange(unit_group.groups))[-unit_group.members :])
            if unit_group.size > 1
            else channels(3, 20)
        )
    expected = logits(silenced(dense, keep))
    torch.testing.assert_close(logits(changed(mask_model, dense, keep)), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits(changed(shrink_model, dense, keep)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_what_is_not_named_stays_the_very_same_tensor(model_type):
    model = tiny_model(model_type).requires_grad_(False)
    before = dict(model.named_parameters())
    name = names_of(model, "channels")[1]
    unit_group = unit_groups_of(model)[name]
    touched = {f"{unit_group.block}.{path}" for path, _ in unit_group.structure.producers} | {name}
    shrink_model(model, {name: range(40)})
    for label, parameter in model.named_parameters():
        operator, _, which = label.rpartition(".")
        same = operator not in touched or (operator == name and which == "bias")
        assert (parameter is before[label]) == same, label
        assert not parameter.requires_grad and parameter.is_contiguous()
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert tied == model.config.tie_word_embeddings


@pytest.mark.parametrize("choose", [uniform, uneven])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_parameters_are_counted_before_and_after(model_type, choose):
    model = tiny_model(model_type)
    keep = choose(model)
    dense = sum({id(p): p.numel() for p in model.parameters()}.values())
    assert count_parameters(model) == count_parameters(model, {}) == dense
    promised = count_parameters(model, keep)
    assert count_parameters(model) == dense  # counting changes nothing
    shrink_model(model, keep)
    assert promised == count_parameters(model) == sum({id(p): p.numel() for p in model.parameters()}.values()) < dense


def test_a_key_value_group_of_grouped_attention_costs_its_own_size():
    model = tiny_model("mistral")  # hidden size 32, heads of 16, two query heads per group
    name = names_of(model, "heads")[0]
    saved = count_parameters(model) - count_parameters(model, {name: [0, 1]})
    assert saved == (2 * 2 + 2) * 32 * 16
    assert count_parameters(model) - count_parameters(model, {name: [0, 2]}) == 2 * (2 * 32 * 16)  # two query heads


@pytest.mark.parametrize("model_type", FAMILIES)
def test_twice_is_once(model_type):
    once, twice = tiny_model(model_type), tiny_model(model_type)
    mlp, heads = names_of(once, "channels")[0], names_of(once, "heads")[0]
    shrink_model(twice, {mlp: range(10, 40), heads: [0, 2]})
    shrink_model(twice, {mlp: range(5, 9), heads: [1]})
    shrink_model(once, {mlp: range(15, 19), heads: [2]})
    ours, theirs = once.state_dict(), twice.state_dict()
    assert ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in ours)
    assert once.config.to_dict() == twice.config.to_dict()


def test_forms_of_the_same_choice():
    chosen = [5, 2, 11]
    flags = np.isin(np.arange(48), chosen)
    forms = [chosen, np.array(chosen), torch.tensor(chosen), sorted(chosen), flags, flags.tolist(), torch.from_numpy(flags)]
    results = []
    for form in forms:
        model = tiny_model("qwen2")
        shrink_model(model, {names_of(model, "channels")[0]: form})
        results.append(model.model.layers[0].mlp.down_proj.weight)
    assert results[0].equal(tiny_model("qwen2").model.layers[0].mlp.down_proj.weight[:, [2, 5, 11]])
    assert all(result.equal(results[0]) for result in results)


def test_half_precision_is_moved_bit_by_bit():
    model = tiny_model("qwen3").bfloat16()
    before = model.model.layers[0].self_attn.k_proj.weight.clone()
    shrink_model(model, {names_of(model, "heads")[0]: [2, 3]})
    after = model.model.layers[0].self_attn.k_proj.weight
    assert after.dtype == torch.bfloat16 and after.equal(before[16:])


def test_a_shrunk_model_can_be_trained():
    model = tiny_model("gpt2")
    shrink_model(model, uneven(model))
    model(input_ids=IDS, labels=IDS).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


# What the configuration says


@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_configuration_states_what_the_stock_class_can_build(model_type):
    model = tiny_model(model_type)
    state = torch.get_rng_state()
    shrink_model(model, uniform(model))
    assert torch.get_rng_state().equal(state)
    built = stock_type(type(model))(stock_config(model.config, {}))
    here, there = unit_groups_of(model), unit_groups_of(built)
    for name in here:
        stated = model.config.model_type in GROUPED or here[name].size == 1
        assert (there[name] == here[name]) == stated, name


def test_the_configuration_stays_where_it_cannot_say_it():
    model = tiny_model("llama")
    before = model.config.to_dict()
    heads, mlp = names_of(model, "heads"), names_of(model, "channels")
    shrink_model(model, {mlp[0]: range(40)})  # another width in one block
    assert stock_config(model.config, {}).to_dict() == before and model.config.is_heterogeneous
    shrink_model(model, {mlp[1]: range(40)})
    assert model.config.to_dict() == before | {"intermediate_size": 40}
    model = changed(shrink_model, tiny_model("qwen2"), {})
    assert model.config.to_dict() == tiny_model("qwen2").config.to_dict()
    # three heads do not divide a hidden size of 32, and stock llama refuses that
    config = AutoConfig.for_model("llama", **SHAPES["llama"] | {"num_key_value_heads": 4}, vocab_size=VOCABULARY)
    model = AutoModelForCausalLM.from_config(config)
    shrink_model(model, {name: [0, 1, 3] for name in heads})
    assert model.config.num_attention_heads == 4 and model.model.layers[0].self_attn.q_proj.out_features == 24
    shrink_model(model, {name: [0, 2] for name in heads})
    config = model.config
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (2, 2, 8)


@pytest.mark.parametrize("model_type", ["gemma3_text", "opt"])
def test_static_caches(model_type):
    model = tiny_model(model_type)
    shrink_model(model, uneven(model))
    expected = generated(model)
    ours = generated(model, cache_implementation="static", disable_compile=True)
    assert ours[0].equal(expected[0])
    torch.testing.assert_close(ours[1], expected[1], rtol=0, atol=rounding_of(model, logits))
