"""Packed experts are operators: patterns are exact, and errors are recomputed from loops over whole models."""

import copy
import json

import pytest
import torch
from expert_models import ROUTED, expert_model, inputs_of_experts, know, matrix, path_of_experts
from safetensors.torch import load_file
from tiny import HELDOUT, WINDOWS, run
from transformers import AutoModelForCausalLM

import gramian
from gramian.adapters.models.experts import experts_of
from gramian.adapters.models.layers import Layer
from gramian.adapters.run.journal import Journal

pytestmark = pytest.mark.usefixtures("small_batches")
SHARED = ("mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj"), ("mlp.shared_experts.down_proj",)


def relative_error(dense, pruned, operator, inputs):
    outputs = inputs @ matrix(dense, operator).T
    return float(((inputs @ matrix(pruned, operator).T - outputs) ** 2).sum() / (outputs**2).sum())


def mixed(dense, pruned, names):
    """The dense model with some operators of the pruned one."""
    found = copy.deepcopy(dense)
    for name in names:
        Layer.at(found, name).assign(Layer.at(pruned, name).weight)
    return found


@pytest.mark.parametrize("model_type", ROUTED)
def test_errors_are_those_of_the_routed_tokens(model_type, monkeypatch):
    know(monkeypatch, model_type, *(SHARED if model_type == "deepseek_v3" else ()))
    span = {"blocks": slice(1, 2)} if model_type == "deepseek_v3" else {}  # whose first block has no experts
    model, dense = expert_model(model_type, torch.float64), expert_model(model_type, torch.float64)
    report = run(model, method="wanda", sparsity=0.5, heldout=HELDOUT, **span)
    rows = {row.name: row for row in report.operators}
    for layer in range(len(span), 2):
        path = path_of_experts(dense, layer)
        earlier = mixed(dense, model, [name for name in rows if name.startswith("model.layers.0.")] if layer else [])
        for windows, field in ((WINDOWS, "relative_error"), (HELDOUT, "heldout_error")):
            inputs = inputs_of_experts(earlier, windows, path)
            assert set(inputs) == {name for name in rows if name.startswith(path)}
            for name, tokens in inputs.items():
                assert getattr(rows[name], field) == pytest.approx(relative_error(dense, model, name, tokens), rel=1e-6)
                if windows is WINDOWS:
                    borrowed = max(0, tokens.shape[1] - len(tokens))
                    assert rows[name].detail == {"routed_tokens": len(tokens), "borrowed_tokens": borrowed}
        for name in inputs:
            weight = matrix(model, name)
            assert rows[name].shape == tuple(weight.shape) and rows[name].sparsity == 0.5
            assert ((weight == 0).sum(dim=1) == weight.shape[1] // 2).all()
    assert f"{path}.gate_up_proj.3" in str(report) and "routed tokens" in str(report)


@pytest.mark.parametrize(
    ("calibrate_on", "target"), [("dense", "own"), ("dense", "block"), ("pruned", "block"), ("pruned", "model")]
)
@pytest.mark.parametrize("model_type", ["mixtral", "gpt_oss"])
def test_experts_are_fitted_to_their_own_output_on_the_path_that_is_followed(model_type, calibrate_on, target, monkeypatch):
    know(monkeypatch, model_type)
    model, dense = expert_model(model_type, torch.float64), expert_model(model_type, torch.float64)
    report = run(model, method="sparsegpt", sparsity=0.5, calibrate_on=calibrate_on, target=target)
    rows = {row.name: row for row in report.operators}
    path = path_of_experts(dense)
    done = [name for name in rows if name.startswith("model.layers.0.")] if calibrate_on == "pruned" else []
    done += ["model.layers.1.self_attn.o_proj"] if target != "own" else []
    for leaf in ("gate_up_proj", "down_proj"):
        inputs, names = inputs_of_experts(mixed(dense, model, done), WINDOWS, path), [f"{path}.{leaf}.{e}" for e in range(4)]
        for name in names:
            assert rows[name].relative_error == pytest.approx(relative_error(dense, model, name, inputs[name]), rel=1e-6)
        done += names if target != "own" else []


@pytest.mark.parametrize("model_type", ROUTED)
def test_saved_and_loaded_in_stock_transformers(model_type, monkeypatch, tmp_path):
    know(monkeypatch, model_type)
    span = {"blocks": slice(1, 2)} if model_type == "deepseek_v3" else {}
    model = expert_model(model_type)
    report = run(model, method="wanda", sparsity="2:4", **span)
    gramian.save(model, None, tmp_path / "out", report=report.to_dict())
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").eval()
    assert torch.equal(again(input_ids=HELDOUT).logits, model(input_ids=HELDOUT).logits)
    for stage in experts_of(again.model.layers[1]):
        for name in stage:
            weight = Layer.at(again, f"model.layers.1.{name}").weight
            assert int(((weight.reshape(len(weight), -1, 4) != 0).sum(dim=-1) > 2).sum()) == 0
    ours, _ = gramian.load(tmp_path / "out")
    assert torch.equal(ours(input_ids=HELDOUT).logits, model(input_ids=HELDOUT).logits)


def same_files(one, other):
    """Whether two saved models hold the same tensors, whatever the files."""
    found = [
        {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}
        for folder in (one, other)
    ]
    return found[0].keys() == found[1].keys() and all(found[0][name].equal(found[1][name]) for name in found[0])


@pytest.mark.parametrize("model_type", ROUTED)
def test_streamed_resumed_and_offloaded_as_in_memory(model_type, monkeypatch, tmp_path):
    """Names on disk are apart, so what is read is joined and what is written is parted again."""
    know(monkeypatch, model_type)
    source, calls = tmp_path / "source", []
    how = {"method": "sparsegpt", "sparsity": "2:4", "calibrate_on": "pruned", "target": "block", "progress": False}
    how |= {"blocks": slice(1, 2)} if model_type == "deepseek_v3" else {}
    expert_model(model_type).save_pretrained(source, max_shard_size="20KB")
    names = json.loads((source / "model.safetensors.index.json").read_text())["weight_map"]

    model, _ = gramian.load(source)
    expected = gramian.prune(model, WINDOWS, **how)
    gramian.save(model, None, tmp_path / "memory", report=expected)

    write = Journal.write

    def interrupted(*args):
        write(*args)
        calls.append(args)
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        gramian.prune(source, WINDOWS, out=tmp_path / "streamed", **how)
    report = gramian.prune(source, WINDOWS, out=tmp_path / "streamed", resume=True, **how)
    assert [row.relative_error for row in report.operators] == [row.relative_error for row in expected.operators]
    assert [row.detail for row in report.operators] == [row.detail for row in expected.operators]
    assert same_files(tmp_path / "streamed", tmp_path / "memory")
    written = json.loads((tmp_path / "streamed" / "model.safetensors.index.json").read_text())["weight_map"]
    assert written.keys() == names.keys()
    logits = AutoModelForCausalLM.from_pretrained(tmp_path / "streamed", dtype="auto").eval()(input_ids=HELDOUT).logits
    assert torch.equal(logits, model(input_ids=HELDOUT).logits)

    visiting, _ = gramian.load(source)
    gramian.prune(visiting, WINDOWS, device="cpu", **how)
    assert all(map(torch.equal, visiting.parameters(), model.parameters()))
