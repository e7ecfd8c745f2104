"""Family rows against the models they describe: same inputs within a stage, data flow between stages, nothing forgotten."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tiny import FAMILIES, VOCABULARY, tiny_model
from torch import nn

from gramian.adapters.models.families import FAMILIES as ROWS
from gramian.adapters.models.families import blocks_of, family_of, operator_names

IDS = torch.arange(24).view(2, 12) * 7 % VOCABULARY


def flows(model: nn.Module, names: list[str]) -> dict[str, torch.Tensor]:
    """The very tensors that each module receives."""
    seen: dict[str, torch.Tensor] = {}
    handles = [
        model.get_submodule(name).register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args[0]}))
        for name in names
    ]
    with torch.no_grad():
        model(input_ids=IDS)
    for handle in handles:
        handle.remove()
    return seen


def test_every_row_has_a_tiny_model():
    assert set(FAMILIES) == set(ROWS)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_stage_shares_one_input_and_comes_after_what_it_depends_on(model_type):
    model = tiny_model(model_type)
    family = family_of(model)
    stages = [[f"{family.blocks}.0.{operator}" for operator in stage] for stage in family.stages]
    names = [name for stage in stages for name in stage]
    before = flows(model, names)
    for stage in stages:
        assert all(before[name] is before[stage[0]] for name in stage)
    assert len({id(before[stage[0]]) for stage in stages}) == len(stages)
    for place, stage in enumerate(stages):
        for name in stage:
            weight = model.get_submodule(name).weight
            kept = weight.detach().clone()
            with torch.no_grad():
                # not a multiple: rotations and norms may hide a scale; softmax hides a shift
                weight.copy_(kept.roll(1, 0))
            after = flows(model, names)
            with torch.no_grad():
                weight.copy_(kept)
            assert all(after[other[0]].equal(before[other[0]]) for other in stages[: place + 1]), name
            assert not any(after[other[0]].equal(before[other[0]]) for other in stages[place + 1 :]), name


@pytest.mark.parametrize("model_type", FAMILIES)
def test_names_are_all_linear_modules_of_the_blocks(model_type):
    model = tiny_model(model_type)
    path = family_of(model).blocks + "."
    linear = {
        name
        for name, module in model.named_modules()
        if name.startswith(path) and (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
    }
    names = operator_names(model)
    assert set(names) == linear and len(names) == len(linear)
    blocks = [int(name.removeprefix(path).split(".")[0]) for name in names]
    assert blocks == sorted(blocks) and set(blocks) == set(range(len(blocks_of(model))))


def test_include_and_exclude_search_anywhere_in_the_name():
    model = tiny_model("llama")
    everything = operator_names(model)
    assert operator_names(model, include=r"layers\.1\..*(up|down)_proj") == [
        "model.layers.1.mlp.up_proj",
        "model.layers.1.mlp.down_proj",
    ]
    assert operator_names(model, exclude="mlp") == [name for name in everything if ".self_attn." in name]
    assert operator_names(model, include="self_attn", exclude="[qk]_proj") == [
        f"model.layers.{block}.self_attn.{name}" for block in (0, 1) for name in ("v_proj", "o_proj")
    ]


@pytest.mark.parametrize(
    ("include", "exclude", "message"),
    [
        ("(", None, r"'\(' is not a regular expression"),
        (None, "[a", r"'\[a' is not a regular expression"),
        ("w_proj", None, r"no operator is left by include='w_proj'.*model\.layers\.0\.self_attn\.q_proj"),
        (None, "layers", "no operator is left"),
    ],
)
def test_bad_selections(include, exclude, message):
    with pytest.raises(ValueError, match=message):
        operator_names(tiny_model("llama"), include, exclude)


@pytest.mark.parametrize("model", [tiny_model("gemma2"), nn.Linear(2, 2), SimpleNamespace(config=SimpleNamespace())])
def test_unknown_family_names_the_known_ones_and_the_plug_in(model):
    with pytest.raises(ValueError) as error:
        operator_names(model)
    text = str(error.value)
    assert all(name in text for name in ROWS) and "gramian.adapters.capture" in text and "FAMILIES" in text
    assert ("'gemma2'" in text) == (getattr(getattr(model, "config", None), "model_type", None) == "gemma2")


def test_a_model_without_its_head_says_so():
    with pytest.raises(ValueError, match="causal language model"):
        blocks_of(tiny_model("llama").model)
