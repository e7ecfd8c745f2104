"""What is found by running a model: same inputs within a stage, data flow between stages, nothing forgotten."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from stacked_models import stacked_model
from tiny import FAMILIES, VOCABULARY, tiny_model
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from gramian.adapters.models import families
from gramian.adapters.models.block_lists import blocks_of, blocks_path
from gramian.adapters.models.discovery import operator_names, short_window, stages_of
from gramian.adapters.models.families import Family

IDS = torch.arange(24).view(2, 12) * 7 % VOCABULARY
GATED = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)
KNOWN = {  # the blocks and stages of these families, written down before they were found by running
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma3_text", "gemma2"), ("model.layers", GATED)),
    "opt": (
        "model.decoder.layers",
        (
            ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            ("self_attn.out_proj",),
            ("fc1",),
            ("fc2",),
        ),
    ),
    "gpt2": ("transformer.h", (("attn.c_attn",), ("attn.c_proj",), ("mlp.c_fc",), ("mlp.c_proj",))),
}


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


@pytest.mark.parametrize("model_type", KNOWN)
def test_known_families_are_found_as_they_were_written_down(model_type):
    model = tiny_model(model_type)
    path, stages = KNOWN[model_type]
    assert blocks_path(model) == path and stages_of(model) == (stages,) * len(blocks_of(model))
    assert operator_names(model) == [
        f"{path}.{index}.{name}" for index in range(len(blocks_of(model))) for stage in stages for name in stage
    ]


@pytest.mark.parametrize("model_type", [*FAMILIES, "gemma2"])
def test_a_stage_shares_one_input_and_comes_after_what_it_depends_on(model_type):
    model = tiny_model(model_type)
    stages = [[f"{blocks_path(model)}.0.{operator}" for operator in stage] for stage in stages_of(model)[0]]
    check_flows(model, stages)


def check_flows(model: nn.Module, stages: list[list[str]]) -> None:
    """Stages of one input each, which changes with the weights of every stage before it and of none from it on."""
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
    path = blocks_path(model) + "."
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


@pytest.mark.parametrize("model", [nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)), SimpleNamespace(config=SimpleNamespace())])
def test_what_has_no_list_of_blocks_says_so_and_names_the_plug_in(model):
    with pytest.raises(ValueError, match=rf"{type(model).__name__} has no list of blocks.*gramian\.capture"):
        operator_names(model)


def test_a_model_without_its_head_and_one_with_another_are_found_too():
    causal = tiny_model("llama")
    assert operator_names(causal.model) == [name.removeprefix("model.") for name in operator_names(causal)]
    classifier = AutoModelForSequenceClassification.from_config(causal.config)
    assert hasattr(classifier, "score") and operator_names(classifier) == operator_names(causal)


def test_a_row_of_the_user_s_is_believed(monkeypatch):
    model = tiny_model("llama")
    monkeypatch.setitem(families.FAMILIES, "llama", Family("model.layers", (("mlp.down_proj",),)))
    assert operator_names(model) == ["model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"]
    for path, message in (("model.blocks", "has no 'model.blocks'"), ("model.embed_tokens", "is a Embedding, not a list")):
        monkeypatch.setitem(families.FAMILIES, "llama", Family(path))
        with pytest.raises(ValueError, match=message):
            operator_names(model)


@pytest.mark.parametrize("model_type", KNOWN)
def test_a_model_without_memory_is_found_alike_and_remains_without(model_type):
    model = tiny_model(model_type)
    with torch.device("meta"):
        without = AutoModelForCausalLM.from_config(model.config)
    assert stages_of(without) == stages_of(model)
    assert all(each.is_meta for each in [*without.parameters(), *without.buffers()])
    assert not any("forward" in vars(module) or module._forward_pre_hooks for module in without.modules())


def test_equal_numbers_are_not_one_tensor():
    """In OPT without biases and with k_proj reading a copy, the copy is a stage of its own."""
    model = tiny_model("opt")
    for block in blocks_of(model):
        block.self_attn.k_proj = nn.Sequential(nn.Dropout(0.5), nn.Identity(), Copying(block.self_attn.k_proj))
    assert stages_of(model)[0][:2] == (("self_attn.q_proj", "self_attn.v_proj"), ("self_attn.k_proj.2.inner",))


class Copying(nn.Module):
    """A layer behind a copy of its input."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.inner(inputs.clone())


def test_an_input_that_is_changed_in_place_is_another():
    model = tiny_model("opt")
    attention = blocks_of(model)[0].self_attn
    attention.k_proj.register_forward_pre_hook(lambda _, args: args[0].mul_(2))
    assert stages_of(model)[0][:2] == (("self_attn.q_proj",), ("self_attn.k_proj", "self_attn.v_proj"))


def test_a_module_that_is_used_twice_is_one_operator():
    model = tiny_model("llama")
    first, second = blocks_of(model)
    second.mlp.down_proj = first.mlp.down_proj
    first.mlp.up_proj = first.mlp.gate_proj
    names = operator_names(model)
    assert "model.layers.0.mlp.down_proj" in names and "model.layers.1.mlp.down_proj" not in names
    assert "model.layers.0.mlp.gate_proj" in names and "model.layers.0.mlp.up_proj" not in names
    assert len(names) == 12


def test_what_was_found_is_kept_until_layers_go():
    model = tiny_model("gemma2")
    runs = []
    handle = model.model.register_forward_pre_hook(lambda *_: runs.append(1))
    assert stages_of(model) is stages_of(model) and len(runs) == 1
    del model.model.layers[1]
    assert len(stages_of(model)) == 2 and len(runs) == 2
    handle.remove()
    assert stages_of(copy.deepcopy(model)) == stages_of(model)


def test_tokens_that_stand_for_something_else_are_not_in_the_window():
    model = tiny_model("llama")
    model.config.eos_token_id, model.config.image_token_id = [1, 2], 0
    assert short_window(model).flatten().tolist() == list(range(3, 15))
    assert len(stages_of(model)) == 2


def test_encoder_decoder_models_are_one_block():
    model = stacked_model("gated t5")
    (stages,) = stages_of(model)
    names = [name for stage in stages for name in stage]
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)} - {"lm_head"}
    assert set(names) == linear and len(names) == len(linear) and operator_names(model) == names
    cross = tuple(f"decoder.block.{block}.layer.1.EncDecAttention.{name}" for block in range(3) for name in "kv")
    assert cross in stages  # all of them read what the encoder returns
