"""Units of families without a row: removed, saved, loaded, against models with units silenced by hooks; or refused."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from found_models import FOUND, REFUSED, STATED, found_model
from rounding import rounding_of
from shrunk_models import IDS, generated, silenced
from stacked_models import stacked_model
from tiny import FAMILIES, tiny_model
from tiny_models import GROUPED
from torch import nn

import gramian
from gramian.adapters.methods.unit_moments import unit_moments
from gramian.adapters.methods.unit_sets import magnitudes, unit_set_of
from gramian.adapters.models.block_lists import block_lists
from gramian.adapters.models.families import FAMILIES as FAMILY_ROWS
from gramian.adapters.models.families import Family, Structure
from gramian.adapters.models.model_copies import Stage
from gramian.adapters.models.own_classes import CODE
from gramian.adapters.models.rehearsal import rehearsed, tried
from gramian.adapters.models.shrink import mask_model, shrink_model
from gramian.adapters.models.unit_groups import refused_of, remember, structures_of, unit_groups_of


def proven(model):
    return rehearsed(model, {path: model.get_submodule(path) for path in block_lists(model)})


@torch.no_grad()
def answer(model):
    if model.config.is_encoder_decoder:
        return model(input_ids=IDS, decoder_input_ids=IDS[:, :12]).logits
    found = model(input_ids=IDS)
    return found.logits if hasattr(found, "logits") else found.last_hidden_state


def chosen(model, uniform):
    """Half of the channels and one head less of every group, or half of them; else other numbers in every module."""
    keep = {}
    for place, (name, group) in enumerate(unit_groups_of(model).items()):
        random = np.random.default_rng(place)
        if not uniform and place % 4 == 0:
            keep[name] = group.of_groups(random.permutation(group.groups)[:1]).tolist()
        elif group.size == 1:
            keep[name] = random.permutation(group.units)[: 30 if uniform else 20 + 3 * place].tolist()
        elif group.members == 1 and uniform:
            keep[name] = random.permutation(group.units)[: group.units // 2].tolist()
        elif uniform:
            keep[name] = [k * group.members + int(random.integers(group.members)) for k in range(group.groups)]
    return keep


LIKE_OTHERS = ("gemma", "granite", "olmo", "smollm3", "cohere", "exaone4", "persimmon", "falcon, heads alone", "distilbert")


@pytest.mark.parametrize(
    ("name", "uniform"),
    [(name, uniform) for name in FOUND for uniform in (True, False) if not uniform or name not in LIKE_OTHERS],
)
def test_found_units_are_removed_saved_and_loaded(name, uniform, tmp_path):
    dense = found_model(*FOUND[name][:2])
    keep = chosen(dense, uniform)
    reference, model = silenced(dense, keep), copy.deepcopy(dense)
    expected, slack = answer(reference), rounding_of(reference, answer)
    assert (expected - answer(dense)).abs().max() > 1e-2
    remember(model, dense)
    shrink_model(model, keep)
    torch.testing.assert_close(answer(model), expected, rtol=0, atol=slack)
    assert {name: group.units for name, group in unit_groups_of(model).items() if name in keep} == {
        name: len(kept) for name, kept in keep.items()
    }
    if model.can_generate() and not uniform:
        tokens, scores = generated(reference)
        for options in ({}, {"use_cache": False}):
            ours = generated(model, **options)
            assert ours[0].equal(tokens)
            torch.testing.assert_close(ours[1], scores, rtol=0, atol=10 * slack)
    out = gramian.save(model, None, tmp_path / "model")
    kinds = {"heads" if group.size > 1 else "channels" for group in unit_groups_of(dense).values()}
    stated = uniform and all(kind in STATED[name] for kind in kinds)
    assert (out / CODE).exists() != stated
    loaded = [gramian.load(out)[0]] + ([type(model).from_pretrained(out).eval()] if stated else [])
    for each in loaded:
        assert type(each) is type(model) and answer(each).equal(answer(model))
    if uniform and name != "phi, a norm in each head":
        return
    wide = type(model).from_pretrained(gramian.save(model, None, tmp_path / "wide", pad=True)).eval()
    assert not (tmp_path / "wide" / CODE).exists()
    torch.testing.assert_close(answer(wide), expected, rtol=0, atol=slack)


@pytest.mark.parametrize("name", ["phi3", "gpt_neox", "falcon, grouped", "bart"])
def test_zeroing_is_the_same_in_place(name):
    dense = found_model(*FOUND[name][:2])
    keep = chosen(dense, uniform=False)
    model = copy.deepcopy(dense)
    mask_model(model, keep)
    assert answer(model).equal(answer(silenced(dense, keep)))


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_removed_is_refused_by_name(name):
    model_type, shape, consumer, reason = REFUSED[name]
    model = found_model(model_type, shape)
    refused = refused_of(model)
    names = [each for each in refused if each.endswith(consumer)]
    assert len(names) == 2 and not set(names) & set(unit_groups_of(model))
    for each in names:
        with pytest.raises(ValueError, match="consumes no units"):
            shrink_model(model, {each: [0]})
    windows = IDS[:, :12]
    with pytest.raises(ValueError, match=f"{names[0]}.*{reason}"):
        gramian.prune(model, windows, "wanda-sp", allocation="score", ratio=0.1, include=f"{consumer}$", progress=False)
    before = answer(model)
    report = gramian.prune(model, windows, "wanda-sp", allocation="score", ratio=0.1, progress=False)
    assert set(report.settings["refused"]) == set(names) and report.ratio >= 0.1
    assert (answer(model) - before).isfinite().all()


@pytest.mark.parametrize("model_type", [*FAMILIES, "t5", "gated t5", "bert"])
def test_proposals_are_what_the_tables_say(model_type):
    model = tiny_model(model_type) if model_type in FAMILIES else stacked_model(model_type)
    assert dict(proven(model).structures) == dict(structures_of(model))


SECTIONS = (("self_attn.qkv_proj", ("unit", "group", "group")),)
ROWS = {
    "olmo2": FAMILY_ROWS["llama"],
    "phi3": Family(
        structures=(
            Structure("self_attn", SECTIONS, "self_attn.o_proj", "head_dim"),
            Structure("mlp", (("mlp.gate_up_proj", ("unit", "unit")),), "mlp.down_proj", keys=("intermediate_size",)),
        )
    ),
    "granite": FAMILY_ROWS["llama"],
}


@pytest.mark.parametrize("model_type", ROWS)
def test_a_row_of_the_user_s_own_is_proven_before_it_is_used(model_type, monkeypatch, tmp_path):
    monkeypatch.setitem(FAMILY_ROWS, model_type, ROWS[model_type])
    model = found_model(model_type, FOUND["granite"][1])
    heads = {f"model.layers.{layer}.self_attn.o_proj" for layer in range(2)}
    assert set(refused_of(model)) == (set() if model_type == "granite" else heads)
    report = gramian.prune(model, IDS[:, :12], "wanda-sp", allocation="score", ratio=0.1, progress=False)
    assert {row.name for row in report.modules} >= {f"model.layers.{layer}.mlp.down_proj" for layer in range(2)}
    out = gramian.save(model, None, tmp_path / "model")
    monkeypatch.undo()
    assert answer(gramian.load(out)[0]).equal(answer(model))


def stage_of(model):
    names = [f"{path}.0" for path in block_lists(model)]
    blocks = {f"{path}.{k}": f"{path}.0" for path in block_lists(model) for k in range(len(model.get_submodule(path)))}
    return Stage(model, names, blocks), names[0]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("gpt_neox", {"interleaved": False}),  # rows of other heads
        ("phi3", {"counts": None}),  # the configuration's number of heads
        ("falcon, grouped", {"interleaved": False}),
        ("codegen", {"groups": "", "counts": None}),
    ],
)
def test_a_wrong_guess_of_heads_is_not_proven(name, changes):
    model = found_model(*FOUND[name][:2])
    stage, block = stage_of(model)
    stage.stages()
    form = next(each for each in structures_of(model)[block] if each.unit_size)
    with torch.no_grad():
        assert tried(stage, block, form, stage.agrees_with_cache()) is None
        assert tried(stage, block, dataclasses.replace(form, **changes), False)


def test_a_wrong_guess_of_channels_is_not_proven():
    model = found_model(*FOUND["glm4"][:2])
    stage, block = stage_of(model)
    stage.stages()
    form = next(each for each in structures_of(model)[block] if not each.unit_size)
    with torch.no_grad():
        assert tried(stage, block, form, True) is None
        assert "differ" in tried(stage, block, dataclasses.replace(form, interleaved=True), True)


class Centred(nn.Module):
    """An activation after which hidden channels are no longer independent, though nothing in its shapes says so."""

    def forward(self, states):
        return torch.relu(states) - torch.relu(states).mean(dim=-1, keepdim=True)


def test_channels_that_depend_on_each_other_are_refused():
    model = found_model("granite", FOUND["granite"][1])
    for block in model.model.layers:
        block.mlp.act_fn = Centred()
    assert set(refused_of(model)) == {f"model.layers.{k}.mlp.down_proj" for k in range(2)}
    assert all(group.size > 1 for group in unit_groups_of(model).values())


def test_weights_that_are_used_twice_are_not_cut():
    model = found_model("granite", FOUND["granite"][1])
    first, second = model.model.layers
    second.mlp.down_proj.weight = first.mlp.down_proj.weight
    assert all("used elsewhere" in refused_of(model)[f"model.layers.{k}.mlp.down_proj"] for k in range(2))
    assert all(group.size > 1 for group in unit_groups_of(model).values())


def test_a_model_without_units_says_why():
    model = found_model("granite", FOUND["granite"][1])
    for block in model.model.layers:
        block.mlp.act_fn, block.self_attn.o_proj.weight = Centred(), block.self_attn.q_proj.weight
    with pytest.raises(ValueError, match=r"no units of GraniteForCausalLM can be removed: .*self_attn\.o_proj: heads cannot"):
        shrink_model(model, {"model.layers.0.mlp.down_proj": [0]})


def test_a_rehearsal_leaves_the_model_as_it_was():
    model = found_model(*FOUND["phi3"][:2]).train()
    before = {name: (each, each.clone()) for name, each in model.state_dict(keep_vars=True).items()}
    config, random = copy.deepcopy(model.config), torch.get_rng_state()
    proven(model)
    after = model.state_dict(keep_vars=True)
    assert all(after[name] is each and each.equal(copied) for name, (each, copied) in before.items()) and len(after) == len(
        before
    )
    assert model.config == config and torch.get_rng_state().equal(random) and model.training
    assert all(
        "forward" not in vars(each) and not each._forward_pre_hooks and not each._forward_hooks for each in model.modules()
    )


def test_zeroed_weights_prove_nothing_and_hide_nothing():
    """The rehearsal draws weights of its own: a model of zeros has the units, and the refusals, of any other."""
    for name, expected in (("phi3", 4), ("olmo2", 2)):
        model_type, shape = (FOUND.get(name) or REFUSED[name])[:2]
        model = found_model(model_type, shape)
        for parameter in model.parameters():
            parameter.zero_()
        assert len(unit_groups_of(model)) == expected
        assert dict(proven(model).structures) == dict(proven(found_model(model_type, shape)).structures)


def test_a_narrow_module_sees_the_shared_configuration():
    model = found_model(*FOUND["phi3"][:2])
    name = "model.layers.0.self_attn.o_proj"
    shrink_model(model, {name: [0, 1]})
    seen, expected = model.model.layers[0].self_attn.config, answer(model)
    assert (seen.num_attention_heads, seen.num_key_value_heads, model.config.num_attention_heads) == (2, 1, 4)
    assert seen.hidden_size == 32 and not hasattr(seen, "nothing")
    model.set_attn_implementation("eager")
    assert seen._attn_implementation == "eager"
    torch.testing.assert_close(answer(model), expected, rtol=1e-4, atol=1e-4)
    twice = copy.deepcopy(model)
    assert answer(twice).equal(answer(model)) and twice.model.layers[0].self_attn.config is not seen
    shrink_model(twice, {name: [1]})  # an index into what is left
    assert twice.model.layers[0].self_attn.config.num_attention_heads == 1 and seen.num_attention_heads == 2


def test_removed_layers_are_noticed():
    model = found_model(*FOUND["granite"][:2])
    assert len(unit_groups_of(model)) == 4
    del model.model.layers[1]
    assert len(unit_groups_of(model)) == 2


@pytest.mark.parametrize("name", ["phi3", "gpt_neox"])
def test_block_by_block_from_files_it_is_the_same(name, tmp_path):
    model = found_model(*FOUND[name][:2])
    source, windows = gramian.save(model, None, tmp_path / "dense"), IDS[:, :12]
    settings = {"method": "wanda-sp", "allocation": "score", "ratio": 0.2, "progress": False}
    report = gramian.prune(model, windows, **settings)
    streamed = gramian.prune(source, windows, **settings, out=tmp_path / "streamed")
    assert [row.units for row in streamed.modules] == [row.units for row in report.modules]
    assert answer(gramian.load(tmp_path / "streamed")[0]).equal(answer(model))
    again = gramian.load(tmp_path / "streamed")[0]  # what was cut can be cut once more
    gramian.prune(again, windows, "numerical", ratio=0.2, progress=False)
    out = gramian.save(again, None, tmp_path / "again")
    assert answer(gramian.load(out)[0]).equal(answer(again))


@pytest.mark.parametrize("moment", ["gaussian", "identity", "product"])
def test_moments_of_fused_channels_are_those_of_channels_apart(moment):
    """phi3's gate and up are rows of one operator; llama's are two: the same weights have the same moments."""
    fused, apart = found_model(*FOUND["phi3"][:2]), tiny_model("llama").requires_grad_(False)
    for here, there in zip(fused.model.layers, apart.model.layers):
        gate, up = here.mlp.gate_up_proj.weight.chunk(2)
        there.mlp.gate_proj.weight.copy_(gate)
        there.mlp.up_proj.weight.copy_(up)
        there.mlp.down_proj.weight.copy_(here.mlp.down_proj.weight)
        query, key, value = here.self_attn.qkv_proj.weight.split([32, 16, 16])
        for name, weight in zip("qkv", (query, key, value)):
            getattr(there.self_attn, f"{name}_proj").weight.copy_(weight)
        there.self_attn.o_proj.weight.copy_(here.self_attn.o_proj.weight)
        there.input_layernorm.weight.copy_(here.input_layernorm.weight)
        there.post_attention_layernorm.weight.copy_(here.post_attention_layernorm.weight)
    apart.model.embed_tokens.weight.copy_(fused.model.embed_tokens.weight)
    sets = [[unit_set_of(model, group) for group in unit_groups_of(model).values()] for model in (fused, apart)]
    found = [unit_moments(model, IDS, each, moment) for model, each in zip((fused, apart), sets)]
    for one, other in zip(*found, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_allclose(one, other, rtol=1e-3)
    magnitude = [np.concatenate([magnitudes(model, each, 2) for each in sets[k]]) for k, model in enumerate((fused, apart))]
    np.testing.assert_allclose(*magnitude, rtol=1e-6)


def test_widths_that_other_modules_share_are_not_stated(tmp_path):
    """The number of heads of recurrent_gemma is also that of blocks of its recurrences."""
    model = found_model("recurrent_gemma", GROUPED | {"num_hidden_layers": 3, "lru_width": 32, "head_dim": 8})
    keep = {name: group.of_groups(np.array([0])) for name, group in unit_groups_of(model).items() if group.size > 1}
    assert len(keep) == 1
    before = model.config.num_attention_heads
    shrink_model(model, keep)
    out = gramian.save(model, None, tmp_path / "model")
    assert model.config.num_attention_heads == before and (out / CODE).exists()
    assert answer(gramian.load(out)[0]).equal(answer(model))
