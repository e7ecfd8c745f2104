"""Runs that turn heads and reorder channels first: the dense model is the same, errors are those of the changed one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from found_models import FOUND, GROUPED, MLA, found_model
from rounding import rounding_of
from safetensors.torch import load_file
from tiny import FAMILIES, HELDOUT, WINDOWS, parameters, run, same, tensors, tiny_model, tiny_tokenizer
from tiny_models import exact, stacked_model
from torch import nn
from transformers import AutoModelForCausalLM

import gramian
from gramian.adapters.models.inner_bases import change_columns, change_rows, check_together, inner_bases_of, random_change
from gramian.adapters.models.saving import save
from gramian.adapters.models.tasks import token_inputs
from gramian.adapters.passes.weights import ZeroWeights
from gramian.adapters.run.journal import Journal

pytestmark = pytest.mark.usefixtures("small_batches")
BOTH = {"rotate_heads": True, "permute_channels": True}


@torch.no_grad()
def outputs(model: nn.Module) -> torch.Tensor:
    return model(**token_inputs(model, WINDOWS))[0]


@torch.no_grad()
def weights_of(model: nn.Module, name: str) -> torch.Tensor:
    module = model.get_submodule(name)
    return module.weight.detach().T if type(module).__name__ == "Conv1D" else module.weight.detach()


@pytest.mark.parametrize("name", [*FAMILIES, "t5", "gated t5", "bert", *FOUND])
def test_another_basis_leaves_every_family_as_it_is(name):
    """Of every free basis that is found, whatever lies between: any rotation, any order, all of them at once."""
    if name in FAMILIES:
        model = tiny_model(name)
    elif name in FOUND:
        model = found_model(*FOUND[name][:2])
    else:
        model = stacked_model(name)
    bases, generator = inner_bases_of(model).found, torch.Generator().manual_seed(0)
    assert any(basis.turns for basis in bases.values())
    before, dense = outputs(model), copy.deepcopy(model)
    with torch.no_grad():
        for basis in bases.values():
            change = random_change(basis, generator).to(torch.float64) if basis.turns else random_change(basis, generator)
            change_columns(model, basis, change)
            change_rows(model, basis, change)
    for basis in bases.values():
        for operator in basis.operators:
            assert not torch.allclose(weights_of(model, operator), weights_of(dense, operator), atol=1e-3)
    assert (outputs(model) - before).abs().max() <= 50 * rounding_of(dense, outputs)


GATED: dict[str, Any] = {
    "layer_types": ["full_attention"] * 2, "head_dim": 16, "num_experts": 4, "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16, "num_experts_per_tok": 2,
}  # fmt: skip


@pytest.mark.parametrize(("model_type", "shape"), [("deepseek_v3", MLA), ("qwen3_next", GATED)])
def test_latent_and_gated_attention_is_refused_by_name(model_type, shape):
    model = found_model(model_type, GROUPED | shape)
    assert not any(name.endswith("self_attn.o_proj") for name in inner_bases_of(model).found)
    with pytest.raises(ValueError, match=r"rotate_heads=True changes nothing.*layers\.0\.self_attn\.o_proj: .") as raised:
        run(model, method="wanda", rotate_heads=True, include="o_proj")
    assert "\n" not in str(raised.value)


class Normed(nn.Module):
    """Values with a norm behind them, as some models have, whose gains differ by channel."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.inner, self.gains = inner, nn.Parameter(torch.linspace(0.5, 2, inner.out_features))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.inner(states) * self.gains


def test_gains_between_values_and_output_are_found_out():
    model = tiny_model("llama")
    for layer in model.model.layers:
        layer.self_attn.v_proj = Normed(layer.self_attn.v_proj)
    known = inner_bases_of(model)
    assert not any(basis.turns for basis in known.found.values())
    assert all("more than sums over tokens" in known.refused[f"model.layers.{n}.self_attn.o_proj"] for n in (0, 1))


def test_values_that_two_blocks_share_are_not_turned():
    model = tiny_model("llama")
    first, second = (layer.self_attn for layer in model.model.layers)
    second.v_proj.weight = first.v_proj.weight
    assert "weights that are used elsewhere too" in inner_bases_of(model).refused["model.layers.0.self_attn.o_proj"]
    twice = tiny_model("llama")
    bases = inner_bases_of(twice).found
    first, second = (layer.self_attn for layer in twice.model.layers)
    second.v_proj.forward = lambda states: first.v_proj(first.seen)  # the first block's values, as some models share them
    first.v_proj.register_forward_pre_hook(lambda _, given: setattr(first, "seen", given[0]))
    before = parameters(twice)
    with pytest.raises(ValueError, match=r"LlamaForCausalLM computes something else.*although every block by itself"):
        check_together(twice, bases.values())
    assert same(before, parameters(twice))


def changed_by_hand(dense: nn.Module, kept: nn.Module) -> nn.Module:
    """The dense model with the values of `kept`, whose basis a run has changed and which it has not pruned, and with the output
    projections that go with them: O Q with Q^T = V' V^+."""
    changed = copy.deepcopy(dense)
    with torch.no_grad():
        for before, after, place in zip(dense.model.layers, kept.model.layers, changed.model.layers):
            value, turned = (layer.self_attn.v_proj.weight for layer in (before, after))
            size, groups = 16, 2
            output = before.self_attn.o_proj.weight.unflatten(1, (groups, -1, size))
            turns = [turned[one] @ torch.linalg.pinv(value[one]) for one in torch.arange(groups * size).view(groups, size)]
            for each in turns:
                assert torch.allclose(each @ each.T, torch.eye(size).to(each), atol=1e-9)
            place.self_attn.v_proj.weight.copy_(turned)
            found = torch.stack([output[:, group] @ turn.T for group, turn in enumerate(turns)], dim=1)
            place.self_attn.o_proj.weight.copy_(found.flatten(1))
    return changed


@pytest.mark.parametrize("calibrate_on", ["dense", "pruned"])
@pytest.mark.parametrize("target", ["own", "block", "model"])
def test_a_run_is_that_of_a_model_whose_bases_were_changed_before(calibrate_on, target):
    """On the model that is changed by hand a run without rotations finds the same weights and the same errors."""
    model = exact("gemma3_text")
    dense = copy.deepcopy(model)
    settings = {"method": "sparsegpt", "calibrate_on": calibrate_on, "target": target, "include": r"o_proj|up_proj|down_proj"}
    report = run(model, heldout=HELDOUT, rotate_heads=True, **settings)
    other = changed_by_hand(dense, model)
    assert (outputs(other) - outputs(dense)).abs().max() < 1e-9
    expected = run(other, heldout=HELDOUT, **settings)
    assert report.settings["rotate_heads"] and report.settings["changed_bases"] == 3
    for one, two in zip(report.operators, expected.operators, strict=True):
        assert one.name == two.name
        assert one.relative_error == pytest.approx(two.relative_error, rel=1e-6)
        assert one.heldout_error == pytest.approx(two.heldout_error, rel=1e-6) and two.heldout_error > 0
        assert torch.allclose(weights_of(model, one.name), weights_of(other, one.name), atol=1e-7)


@pytest.mark.parametrize("target", ["own", "model"])
def test_an_order_is_exact_and_keeps_more(target):
    """Down projections hold the same columns in another order, and the magnitudes that 2:4 keeps there are larger."""
    model = tiny_model("llama")
    dense, plain = copy.deepcopy(model), tiny_model("llama")
    settings = {"method": "wanda", "sparsity": "2:4", "target": target, "calibrate_on": "dense"}
    report = run(model, include="down_proj", permute_channels=True, **settings)
    before = run(plain, include="down_proj", **settings)
    assert report.settings["changed_bases"] == 2
    assert report.mean_error < before.mean_error
    for after, layer in zip(model.model.layers, dense.model.layers):
        order = [int((layer.mlp.gate_proj.weight == row).all(dim=1).nonzero()) for row in after.mlp.gate_proj.weight]
        assert sorted(order) == list(range(48)) and order != sorted(order)
        assert after.mlp.up_proj.weight.equal(layer.mlp.up_proj.weight[order])
        kept = after.mlp.down_proj.weight != 0
        assert after.mlp.down_proj.weight.equal(torch.where(kept, layer.mlp.down_proj.weight[:, order], 0))


def test_less_is_lost_where_a_basis_was_hidden():
    """Values and output projections that are sparse in a basis, turned away from it: half of the weights can go again."""
    model = tiny_model("llama")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in model.model.layers:
            output = layer.self_attn.o_proj.weight
            output.mul_(torch.rand(output.shape, generator=generator) < 0.3)
        for basis in inner_bases_of(model).found.values():
            if basis.turns:
                skew = 0.4 * torch.randn(basis.groups, basis.size, basis.size, generator=generator, dtype=torch.float64)
                turn = torch.linalg.matrix_exp(skew - skew.transpose(1, 2))
                change_columns(model, basis, turn)
                change_rows(model, basis, turn)
    found = run(copy.deepcopy(model), method="sparsegpt", include="o_proj", rotate_heads=True).mean_error
    assert found < 0.7 * run(model, method="sparsegpt", include="o_proj").mean_error


HOW = {"method": "sparsegpt", "sparsity": "2:4", "heldout": HELDOUT, "progress": False, **BOTH}


@pytest.mark.parametrize("model_type", ["qwen2", "gpt2"])
@pytest.mark.parametrize("include", [None, "o_proj|c_proj"])
@pytest.mark.parametrize("target", ["own", "block"])
def test_streamed_or_interrupted_it_leaves_the_same_bytes_and_loads_stock(model_type, include, target, tmp_path, monkeypatch):
    """Biases of values, fused projections, tied embeddings, bfloat16; operators that are changed and not pruned."""
    source = tmp_path / "source"
    tiny_model(model_type).to(torch.bfloat16).save_pretrained(source)
    tiny_tokenizer().save_pretrained(source)
    how = HOW | {"include": include, "target": target}
    model, tokenizer = gramian.load(source)
    report = gramian.prune(model, WINDOWS, **how)
    save(model, tokenizer, tmp_path / "memory", report=report)
    gramian.prune(source, WINDOWS, out=tmp_path / "streamed", **how)
    write = Journal.write

    def interrupted(*arguments, **options):
        write(*arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            gramian.prune(source, WINDOWS, out=tmp_path / "again", **how)
    gramian.prune(source, WINDOWS, out=tmp_path / "again", resume=True, **how)
    expected = tensors(tmp_path / "memory")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "memory").eval()
    assert sum(each.numel() for each in stock.parameters()) == sum(each.numel() for each in model.parameters())
    assert outputs(stock.float()).equal(outputs(model))
    for name in ("streamed", "again"):
        found = {key: value for file in (tmp_path / name).glob("*.safetensors") for key, value in load_file(file).items()}
        assert same(expected, found) and expected.keys() == found.keys()


def test_an_error_leaves_the_model_as_it_was(monkeypatch):
    model = tiny_model("qwen2")
    before, ended = parameters(model), ZeroWeights.ended

    def failing(self, work):
        if work.layer.name.endswith("layers.1.mlp.down_proj"):
            raise RuntimeError("no more")
        return ended(self, work)

    monkeypatch.setattr(ZeroWeights, "ended", failing)
    with pytest.raises(RuntimeError, match="no more"):
        run(model, method="wanda", sparsity="2:4", **BOTH)
    assert same(before, parameters(model))


def test_jobs_give_the_same_bytes():
    models = [tiny_model("gemma3_text") for _ in range(2)]
    for jobs, model in enumerate(models, 1):
        run(model, method="wanda", sparsity="2:4", calibrate_on="dense", jobs=jobs, **BOTH)
    assert same(parameters(models[0]), parameters(models[1]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rotate_heads": True, "include": "mlp"}, "rotate_heads=True changes nothing: no attention is among"),
        ({"permute_channels": True}, r"permute_channels=True changes nothing where no sparsity is n:m"),
        ({"permute_channels": True, "sparsity": "2:4", "include": "q_proj"}, "nothing that reads channels is pruned n:m"),
        ({"permute_channels": True, "sparsity": "4:4"}, "nothing that reads channels is pruned n:m"),
    ],
)
def test_what_would_change_nothing_is_refused_before_any_work(settings, message):
    model = tiny_model("llama")
    before = parameters(model)
    with pytest.raises(ValueError, match=message):
        run(model, method="wanda", **settings)
    assert same(before, parameters(model))


def test_units_are_not_removed_in_another_basis():
    with pytest.raises(ValueError, match="rotate_heads=True does not go with 'flap', which removes whole heads"):
        gramian.adapters.PruneConfig("flap", rotate_heads=True)


def test_bases_are_found_anew_once_widths_have_changed():
    model = tiny_model("llama")
    before = inner_bases_of(model).found["model.layers.0.mlp.down_proj"].size
    gramian.prune(model, WINDOWS, "numerical", ratio=0.3, progress=False)
    after = inner_bases_of(model).found["model.layers.0.mlp.down_proj"].size
    assert after == model.get_submodule("model.layers.0.mlp.down_proj").weight.shape[1] < before


def test_a_rotation_does_not_fill_zeros_of_an_earlier_run():
    """Where the other operator of the basis is not pruned again, heads are not turned, and the report says why."""
    model = tiny_model("llama")
    gramian.prune(model, WINDOWS, "wanda", sparsity="2:4", include="layers.0.self_attn.o_proj", progress=False)
    report = gramian.prune(model, WINDOWS, "wanda", sparsity=0.5, include="v_proj", rotate_heads=True, progress=False)
    assert float((weights_of(model, "model.layers.0.self_attn.o_proj") == 0).float().mean()) == 0.5
    assert "has zeros, which a rotation would fill" in report.settings["refused"]["model.layers.0.self_attn.o_proj"]
    assert report.settings["changed_bases"] == 1
