"""Models of types without a row: what is found in them is the model itself, block by block, and is pruned and loads again."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import WINDOWS, parameters, random_model, same, tiny_model
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from gramian.adapters import Method, PruneConfig, prune
from gramian.adapters.estimates.figures import Rates
from gramian.adapters.estimates.runs import run_estimate
from gramian.adapters.methods.registry import METHODS
from gramian.adapters.models.block_lists import blocks_of, run_paths
from gramian.adapters.models.discovery import answers_of, operator_names, stages_of
from gramian.adapters.run.agreement import check_blocks
from gramian.adapters.run.forward import enter, run_block
from gramian.solvers import magnitude

FEW_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
# Tuples, lists, attention beside the MLP, state spaces, recurrences beside attention, experts, encoders, two sides, images.
SAMPLE = ["bloom", "openai-gpt", "phi", "mamba", "lfm2", "deepseek_v3", "roberta", "bart", "gemma3"]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command that tries every type."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import model_types

    return model_types


@pytest.mark.parametrize("model_type", SAMPLE)
def test_a_sample_of_the_table(model_type, script):
    dense = script.random_model(model_type)
    for name in ("unstructured", "2:4", "streamed"):
        row = script.tried(script.streamed if name == "streamed" else script.in_memory, dense, script.SETTINGS[name])
        if (model_type, name) == ("bart", "streamed"):
            assert "an encoder-decoder model runs as one block" in row["reason"]
        else:
            assert row["works"], (name, row)


@pytest.mark.parametrize("model_type", ["bloom", "openai-gpt", "recurrent_gemma", "mamba", "phi3", "mixtral"])
def test_the_walk_is_the_model(model_type):
    """After every block, on windows longer than the ones that were run when the model was looked at."""
    model = random_model(model_type, num_hidden_layers=3) if model_type == "recurrent_gemma" else random_model(model_type)
    seen: list[torch.Tensor] = []
    handles = [
        block.register_forward_hook(lambda _, args, out: seen.append(out if isinstance(out, torch.Tensor) else out[0]))
        for block in blocks_of(model)
    ]
    with torch.no_grad():
        model(input_ids=WINDOWS, use_cache=False)
    for handle in handles:
        handle.remove()
    hidden, calls = enter(model, [WINDOWS])
    assert len(seen) == len(calls) > 1
    for block, call, expected in zip(blocks_of(model), calls, seen, strict=True):
        hidden = run_block(block, call, hidden)
        assert hidden[0].equal(expected)


def keeps(problem, pattern):
    """A "solver" that changes nothing."""
    return dataclasses.replace(magnitude(problem, pattern), weights=problem.anchor)


@pytest.mark.parametrize("model_type", ["phi", "bloom", "granite", "qwen3_moe"])
@pytest.mark.parametrize("target", ["own", "block"])
def test_a_solver_that_keeps_every_weight_leaves_the_model_as_it_was(model_type, target, monkeypatch):
    model = random_model(model_type, **FEW_EXPERTS if model_type == "qwen3_moe" else {})
    before = parameters(model)
    with torch.no_grad():
        expected = model(input_ids=WINDOWS).logits
    monkeypatch.setitem(METHODS, "keeps", Method(keeps, "weights", settings={"target": target}))
    report = prune(model, WINDOWS, "keeps", sparsity=0.0001, per_row=False, progress=False)
    assert len(report.operators) == len(operator_names(model)) and same(before, parameters(model))
    with torch.no_grad():
        assert model(input_ids=WINDOWS).logits.equal(expected)


class Twice(nn.Module):
    """A block that counts its calls, and answers otherwise the second time."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, hidden_states: torch.Tensor, **rest: Any) -> torch.Tensor:
        self.calls += 1
        return self.inner(hidden_states, **rest) * self.calls


def test_a_block_that_is_another_by_itself_is_named():
    model = tiny_model("llama")
    model.model.layers[1] = Twice(model.model.layers[1])
    with pytest.raises(ValueError, match=r"model\.layers\.1 \(Twice\) returns other hidden states.*gramian\.capture"):
        prune(model, WINDOWS, "wanda", progress=False)


@pytest.mark.parametrize("change", ["between", "repeated", "skipped", "foreign"])
def test_blocks_that_are_no_chain_are_named(change, monkeypatch):
    model = tiny_model("llama")
    layers = model.model.layers
    if change == "between":
        layers[1].register_forward_pre_hook(lambda _, args: (args[0] * 2, *args[1:]))
        message = r"model\.layers\.1 is not given what the block before it returns"
    elif change == "repeated":
        layers[1] = layers[0]
        message = r"model\.layers\.[01].*runs more than once"
    elif change == "skipped":
        model.config.num_hidden_layers = 1
        message = r"model\.layers\.1 of LlamaForCausalLM is not run"
    else:
        monkeypatch.setattr(type(layers[0]), "forward", lambda self, hidden_states, **_: {"hidden": hidden_states})
        message = r"model\.layers\.0 \(LlamaDecoderLayer\): it returns a dict without hidden states"
    before = parameters(model)
    with pytest.raises(ValueError, match=message):
        prune(model, WINDOWS, "wanda", progress=False)
    assert same(before, parameters(model))
    assert not any("forward" in vars(module) for module in model.modules())


def test_answers_keep_their_form():
    for model_type, kind in (("llama", None), ("bloom", tuple), ("openai-gpt", list)):
        model = random_model(model_type)
        assert {answer.kind for answer in answers_of(model)} == {kind}
        states = torch.ones(1, 2, 3)
        for answer in answers_of(model):
            filled = answer.filled(states)
            assert answer.states(filled) is states and (kind is None or type(filled) is kind)


@pytest.mark.parametrize("settings", [{}, {"calibrate_on": "dense", "target": "block"}, {"target": "model"}])
def test_an_operator_that_is_called_twice_counts_all_its_inputs(settings):
    """Shared keys and queries of DeBERTa meet the hidden states, and then the table of relative positions."""
    shape = {"relative_attention": True, "share_att_key": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8}
    model = encoder("deberta-v2", **shape)
    dense, seen = copy.deepcopy(model), []
    name = "encoder.layer.0.attention.self.key_proj"
    handle = dense.get_submodule(name).register_forward_pre_hook(lambda _, args: seen.append(args[0].flatten(0, -2)))
    with torch.no_grad():
        dense(input_ids=WINDOWS)
    handle.remove()
    assert len(seen) == 2 and seen[0].shape != seen[1].shape
    report = prune(model, WINDOWS, "wanda", progress=False, **settings)
    before, after = (each.get_submodule(name).weight.double() for each in (dense, model))
    inputs = torch.cat(seen).double()
    error = ((inputs @ (after - before).T) ** 2).sum() / ((inputs @ before.T) ** 2).sum()
    assert next(row for row in report.operators if row.name == name).relative_error == pytest.approx(error.item(), rel=1e-6)


def encoder(model_type: str, **shape: Any) -> Any:
    """A tiny random encoder."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 258}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModel.from_config(AutoConfig.for_model(model_type, **sizes | shape), dtype=torch.float32)
    return model.eval().requires_grad_(False)


def test_hybrids_have_stages_of_their_own():
    model = random_model("lfm2", num_hidden_layers=4, layer_types=["conv", "full_attention", "conv", "full_attention"])
    first, second, third, fourth = stages_of(model)
    assert first == third and second == fourth and first != second
    assert first[:2] == (("conv.in_proj",), ("conv.out_proj",))


def test_gates_of_experts_remain_dense():
    names = operator_names(random_model("qwen2_moe", **FEW_EXPERTS))
    assert not any(name.endswith((".gate", "shared_expert_gate")) for name in names)
    assert any(name.endswith("shared_expert.gate_proj") for name in names)


def test_attention_beside_the_mlp_shares_its_input():
    assert stages_of(random_model("phi"))[0] == (
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.fc1"),
        ("self_attn.dense",),
        ("mlp.fc2",),
    )


@pytest.mark.parametrize("model_type", ["bloom", "mamba", "mixtral", "bart", "llava"])
def test_an_estimate_of_any_type(model_type, script):
    model = script.random_model(model_type)
    before = parameters(model)
    found = run_estimate(model, (4, 20), PruneConfig("wanda"), rates=Rates(2e9, 1e9), evaluated=1)
    assert [each.name for each in found.operators] == operator_names(model) and found.peak > 0 and found.duration > 0
    assert same(before, parameters(model))


def test_the_parts_that_read_images_are_left_alone(script):
    dense = script.random_model("llava")
    model = copy.deepcopy(dense)
    report = prune(model, WINDOWS % 250, "wanda", progress=False)
    changed = {name for name, each in model.named_parameters() if not each.equal(dense.get_parameter(name))}
    assert changed == {f"{row.name}.weight" for row in report.operators}
    assert all(name.startswith("model.language_model.layers.") for name in changed) and len(changed) == 21


def test_a_classifier_keeps_its_head():
    model = AutoModelForSequenceClassification.from_config(tiny_model("qwen2").config).eval().requires_grad_(False)
    head, before = model.score.weight.clone(), parameters(model)
    report = prune(model, WINDOWS, "wanda", sparsity=0.5, progress=False)
    changed = {name for name, each in model.named_parameters() if not each.equal(before[name])}
    assert changed == {f"{row.name}.weight" for row in report.operators} and len(changed) == 14
    assert model.score.weight.equal(head) and report.sparsity == 0.5


def test_looking_at_a_model_changes_neither_it_nor_random_numbers():
    model = tiny_model("gpt2").train()
    model.transformer.h[0].eval()
    before, modes = parameters(model), {name: module.training for name, module in model.named_modules()}
    state = torch.get_rng_state()
    check_blocks(model)
    assert torch.get_rng_state().equal(state) and same(before, parameters(model))
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert run_paths(model) == ("transformer.h.0", "transformer.h.1")
