"""Packed experts are operators: patterns are exact, and errors are recomputed from loops over whole models."""

import copy
import json

import numpy as np
import pytest
import torch
from expert_models import COMMON, ROUTED, expert_model, experts_of, inputs_of_experts, matrix, path_of_experts
from safetensors.torch import load_file, save_file
from tiny import HELDOUT, WINDOWS, run
from transformers import AutoModelForCausalLM

import gramian
from gramian.adapters import PruneConfig, Tokens, pipeline
from gramian.adapters.cli.main import main
from gramian.adapters.data.problem_files import read_problem
from gramian.adapters.estimates.figures import Rates
from gramian.adapters.estimates.runs import disk_space, run_estimate, walks_of
from gramian.adapters.models.layers import Layer
from gramian.adapters.passes.planned import plan_of
from gramian.adapters.run.blocks import InMemory
from gramian.adapters.run.hooks import feed
from gramian.adapters.run.journal import Journal

pytestmark = pytest.mark.usefixtures("small_batches")


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
def test_errors_are_those_of_the_routed_tokens(model_type):
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
def test_experts_are_fitted_to_their_own_output_on_the_path_that_is_followed(model_type, calibrate_on, target):
    model, dense = expert_model(model_type, torch.float64), expert_model(model_type, torch.float64)
    report = run(model, method="sparsegpt", sparsity=0.5, calibrate_on=calibrate_on, target=target)
    rows = {row.name: row for row in report.operators}
    path = path_of_experts(dense)
    done = [name for name in rows if name.startswith("model.layers.0.")] if calibrate_on == "pruned" else []
    done += [name for name in rows if name.startswith("model.layers.1.self_attn.")] if target != "own" else []
    for leaf in ("gate_up_proj", "down_proj"):
        inputs, names = inputs_of_experts(mixed(dense, model, done), WINDOWS, path), [f"{path}.{leaf}.{e}" for e in range(4)]
        for name in names:
            assert rows[name].relative_error == pytest.approx(relative_error(dense, model, name, inputs[name]), rel=1e-6)
        done += names if target != "own" else []


@pytest.mark.parametrize("model_type", ROUTED)
def test_saved_and_loaded_in_stock_transformers(model_type, tmp_path):
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


def test_blocks_at_once_are_blocks_one_after_the_other():
    models = [expert_model("mixtral", num_hidden_layers=3) for _ in range(2)]
    for jobs, model in enumerate(models, start=1):
        run(model, method="wanda", sparsity=0.5, calibrate_on="dense", jobs=jobs)
    assert all(map(torch.equal, models[0].parameters(), models[1].parameters()))


def test_the_form_in_which_experts_run_is_put_back():
    model = expert_model("mixtral")
    for form in ("batched_mm", "grouped_mm"):
        model.set_experts_implementation(form)
        run(model, method="magnitude", sparsity=0.5, include="experts.*0$")
        assert model.config._experts_implementation == form


def test_an_estimate_says_what_share_is_covered():
    model = expert_model("mixtral")
    found = run_estimate(model, (7, 24), PruneConfig("wanda", sparsity=0.5), rates=Rates(1e9, 1e9))
    operators = [Layer.at(model, row.name).weight.numel() for row in found.operators]
    blocks = sum(each.numel() for each in model.model.layers.parameters())
    assert len(operators) == 2 * 12 and found.covered == pytest.approx(sum(operators) / blocks)
    assert f"{100 * found.covered:.1f} % of the weights inside the blocks" in str(found)
    assert (
        0.8 < found.covered < 1
        and run_estimate(model, (7, 24), PruneConfig("wanda", include="experts")).covered < found.covered
    )


@pytest.mark.parametrize("target", ["own", "block"])
def test_moments_are_counted_as_they_are_formed(target, monkeypatch):
    """Multiply-adds of all moments, and what a journal holds, from what the walk says beforehand."""
    model, config = expert_model("qwen3_moe"), PruneConfig("wanda", sparsity=0.5, target=target)
    plan, products = plan_of(model, config), []

    def fed(name, collected, inputs, dense=None):
        products.append(inputs.numel() * inputs.shape[-1] * (1 if dense is None else 4))
        feed(name, collected, inputs, dense)

    for module in ("moments", "expert_moments"):
        monkeypatch.setattr(f"gramian.adapters.run.{module}.feed", fed)
    blocks = InMemory(model)
    ((_, walk),) = walks_of(model, blocks.paths, config, plan, WINDOWS.numel())
    pipeline.run(blocks, Tokens(WINDOWS, "test"), config, progress=False)
    assert sum(products) / WINDOWS.numel() == pytest.approx(walk.operations, rel=0.02)
    written = [Layer.at(model, name).weight.numel() for name in walk.written]
    assert disk_space(model, config, plan) == 4 * (sum(written) + sum(each.numel() for each in model.parameters()))


def test_the_command_writes_problems_of_experts(tmp_path):
    expert_model("mixtral").save_pretrained(tmp_path / "model")
    save_file({"tokens": WINDOWS}, tmp_path / "tokens.safetensors")
    where = {"--out": tmp_path / "problems", "--calibration": tmp_path / "tokens.safetensors"}
    chosen = {"--include": "layers.1.*experts", "--samples": 7, "--length": 24}
    done = main(["capture", str(tmp_path / "model"), *(str(word) for each in (where | chosen).items() for word in each)])
    assert done == 0
    dense = expert_model("mixtral").double()
    inputs = inputs_of_experts(dense, WINDOWS, path_of_experts(dense))
    assert {file.stem for file in (tmp_path / "problems").iterdir()} == set(inputs)
    for name, tokens in inputs.items():
        problem, metadata = read_problem(tmp_path / "problems" / f"{name}.safetensors")
        assert int(metadata["tokens"]) == int(metadata["routed_tokens"]) == len(tokens) and metadata["borrowed_tokens"] == "0"
        np.testing.assert_allclose(problem.gram * len(tokens), (tokens.T @ tokens).numpy(), rtol=1e-4, atol=1e-4)


def other_form(model_type):
    """A model whose experts are called otherwise than transformers' usual ones."""
    if model_type == "llama4_text":
        own = {"intermediate_size": 24, "intermediate_size_mlp": 40, "num_local_experts": 4, "interleave_moe_layer_step": 1}
        return expert_model(model_type, torch.float64, shape=COMMON | own | {"head_dim": 8})
    own = {"intermediate_size": 24, "num_local_experts": 4, "kv_channels": 8}
    return expert_model(model_type, torch.float64, shape=COMMON | own)


def reached(model, windows):
    """What reaches every expert's matrix, by operator: all rows for llama4, whose others are zero."""
    found, handles = {}, []

    def sorted_tokens(name):
        def note(module, args):
            for number, rows in enumerate(args[0].split(args[1])):
                found[f"{name}.weight.{number}"] = rows, module.weight[number]

        return note

    def all_tokens(name):
        def note(module, args):
            rows = args[0].reshape(4, -1, 32)
            for number in range(4):
                gate, up = (rows[number] @ module.gate_up_proj[number]).chunk(2, dim=-1)
                found[f"{name}.gate_up_proj.{number}"] = rows[number], module.gate_up_proj[number].T
                found[f"{name}.down_proj.{number}"] = up * torch.nn.functional.silu(gate), module.down_proj[number].T

        return note

    for name, module in model.named_modules():
        if type(module).__name__ in ("JetMoeParallelExperts", "Llama4TextExperts"):
            hook = sorted_tokens if type(module).__name__ == "JetMoeParallelExperts" else all_tokens
            handles.append(module.register_forward_pre_hook(hook(name)))
    with torch.no_grad():
        model(input_ids=windows, use_cache=False)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("model_type", ["llama4_text", "jetmoe"])
def test_experts_of_other_forms(model_type, tmp_path):
    model, dense = other_form(model_type), other_form(model_type)
    report = run(model, method="wanda", include="experts|linear", sparsity=0.5, calibrate_on="dense", heldout=HELDOUT)
    rows, before, after = {row.name: row for row in report.operators}, reached(dense, WINDOWS), reached(model, WINDOWS)
    assert rows.keys() == before.keys()
    for name, (inputs, weight) in before.items():
        outputs = inputs @ weight.T
        error = float(((inputs @ after[name][1].T - outputs) ** 2).sum() / (outputs**2).sum())
        assert rows[name].relative_error == pytest.approx(error, rel=1e-6) and rows[name].sparsity == 0.5
        assert rows[name].detail["routed_tokens"] == int((inputs != 0).any(dim=1).sum())
    gramian.save(model, None, tmp_path / "out", report=report)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").eval()
    assert torch.equal(again(input_ids=HELDOUT).logits, model(input_ids=HELDOUT).logits)
