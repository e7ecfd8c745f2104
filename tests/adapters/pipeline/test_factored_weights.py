"""Runs with weights S + L: what is saved, what PEFT and `load` read of it, what is counted, what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import WINDOWS, run, tensors, tiny_model, tiny_tokenizer
from transformers import AutoModelForCausalLM

import gramian
from gramian.adapters.formats import exporting
from gramian.adapters.models.own_classes import loader_of
from gramian.adapters.models.saving import save
from gramian.adapters.run.streaming import open_checkpoint

pytestmark = pytest.mark.usefixtures("small_batches")
OWN: dict[str, Any] = {"target": "own", "target_blend": None, "damping": 0.01}


def pruned(method: str = "sparse-low-rank", sparsity: Any = 0.5, **options: Any):
    model = tiny_model("llama")
    report = run(model, method=method, sparsity=sparsity, options={"rounds": 1, "polish": 1, **options}, **OWN)
    return model, report


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(input_ids=WINDOWS).logits


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # of transformers, which PEFT asks
@pytest.mark.parametrize("options, ranks", [({"rank": 2}, {2}), ({"share": 0.4}, {2, 3, 4})], ids=["one rank", "several"])
def test_saved_and_read_by_peft_and_by_load(tmp_path, options, ranks):
    """The checkpoint is S, sparse, of stock classes; with the adapter, by PEFT or by `load`, it computes what was evaluated."""
    peft = pytest.importorskip("peft")
    model, report = pruned(sparsity=0.4, **options)
    assert {row.detail["rank"] for row in report.operators} == ranks
    expected = logits(model)
    out = save(model, tiny_tokenizer(), tmp_path / "out", report=report)
    base = AutoModelForCausalLM.from_pretrained(out)
    names = [row.name for row in report.operators]
    for row in report.operators:
        weight = base.get_submodule(row.name).weight
        assert float((weight == 0).float().mean()) == pytest.approx(row.sparsity) and row.sparsity >= 0.4 - 1e-3
    assert (logits(base) - expected).abs().max() > 1e-3  # S alone is another model
    whole = peft.PeftModel.from_pretrained(base, out / "adapter")
    assert (logits(whole) - expected).abs().max() <= 1e-4 * expected.abs().max()
    merged = whole.merge_and_unload()
    for name in names:
        difference = merged.get_submodule(name).weight - model.get_submodule(name).weight
        assert difference.abs().max() <= 1e-5 * model.get_submodule(name).weight.abs().max()
    again, _ = gramian.load(out)
    for name in names:
        assert torch.equal(again.get_submodule(name).weight, model.get_submodule(name).weight)
    assert torch.equal(logits(again), expected)
    other = save(again, None, tmp_path / "other")
    assert {name: each.tolist() for name, each in tensors(other).items()} == {
        name: each.tolist() for name, each in tensors(out).items()
    }
    assert (other / "adapter" / "adapter_model.safetensors").read_bytes() == (
        out / "adapter" / "adapter_model.safetensors"
    ).read_bytes()


def test_adapter_by_hand(tmp_path):
    """alpha = r for every operator, so that what is added is B A; the report counts nonzeros and r (p + q)."""
    model, report = pruned(sparsity=0.4, rank=2)
    out = save(model, None, tmp_path / "out", report=report)
    config = json.loads((out / "adapter" / "adapter_config.json").read_text())
    stored, factors = tensors(out), load_file(out / "adapter" / "adapter_model.safetensors")
    assert config["rank_pattern"] == config["alpha_pattern"] == {row.name: 2 for row in report.operators}
    total = 0
    for row in report.operators:
        left, right = (factors[f"base_model.model.{row.name}.lora_{letter}.weight"] for letter in "BA")
        sparse = stored[f"{row.name}.weight"]
        whole = sparse.double() + left.double() @ right.double()
        torch.testing.assert_close(whole.float(), model.get_submodule(row.name).weight.detach(), rtol=1e-6, atol=1e-7)
        count = int((sparse != 0).sum()) + left.numel() + right.numel()
        assert row.detail["parameters"] == count and row.detail["rank"] == 2
        total += count
    assert f"{total} parameters, nonzeros and factors" in str(report)
    assert "parts" not in json.dumps(report.to_dict())


def test_low_rank_alone_is_saved_in_one_piece(tmp_path):
    model = tiny_model("llama")
    report = run(model, method="low-rank", sparsity=0.5, **{**OWN, "damping": 0})
    out = save(model, None, tmp_path / "out", report=report)
    assert not (out / "adapter").exists()
    for row in report.operators:
        weight = model.get_submodule(row.name).weight.detach()
        rank = int(row.detail["rank"])
        assert torch.linalg.matrix_rank(weight.double(), rtol=1e-5) <= rank
        assert row.detail["parameters"] == rank * sum(weight.shape) <= 0.5 * weight.numel()
        assert row.residual <= 1e-5 and row.sparsity == 0  # the optimum, as float32 stores it
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(out)), logits(model))


def test_the_residual_is_that_of_what_is_stored(tmp_path):
    """It falls with refits on the support, to what float32 leaves of it; the damped optimum is not that of the report."""
    last = [pruned(sparsity=0.5, rank=1, polish=polish)[1].operators[0].residual for polish in (1, 60)]
    free = run(tiny_model("llama"), method="sparse-low-rank", sparsity=0.5, options={"rank": 1, "rounds": 1, "polish": 60},
               **{**OWN, "damping": 0}).operators[0].residual  # fmt: skip
    assert 0 < free < 0.1 * last[1] < last[0]


def test_said_to_load_with_the_adapter_and_exported_whole(tmp_path, monkeypatch):
    """A line that loads S alone would be another model, and so would a file of it in a format without adapters."""
    model, _ = pruned(sparsity=0.4, rank=1)
    out, expected = save(model, None, tmp_path / "out"), logits(model)
    assert loader_of(model.config, out) == (
        f"PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({str(out)!r}), {str(out / 'adapter')!r})"
    )

    class Seen(Exception):
        pass

    def see(stage, *_):
        assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(stage)), expected)
        raise Seen

    monkeypatch.setattr(exporting, "convert", see)
    with pytest.raises(Seen):
        exporting.export_gguf(model, tiny_tokenizer(), tmp_path / "out.gguf", False, False)
    assert (save(model, None, tmp_path / "again") / "adapter").is_dir()  # what it is made of is known as before


def test_changed_since_is_saved_as_it_is(tmp_path):
    model, report = pruned(sparsity=0.4, rank=1)
    name = report.operators[0].name
    with torch.no_grad():
        model.get_submodule(name).weight.mul_(2)
    out = save(model, None, tmp_path / "out")
    assert torch.equal(tensors(out)[f"{name}.weight"], model.get_submodule(name).weight)
    again, _ = gramian.load(out)
    assert torch.equal(logits(again), logits(model))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"refit": "support"}, "refit='support' does not go with"),
        ({"allocation": "search"}, "allocation='search' does not go with"),
        ({"options": {"rank": 2, "share": 0.1}}, "give one of them"),
        ({"sparsity": "2:4"}, "give rank"),
        ({"options": {"support": "lasso"}}, "support must be one of"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(ValueError, match=message):
        run(tiny_model("llama"), method="sparse-low-rank", **settings)


def test_what_would_see_only_the_sparse_part_is_refused(tmp_path):
    model, _ = pruned(sparsity=0.4, rank=1)
    out = save(model, None, tmp_path / "out")
    with pytest.raises(ValueError, match="whose rest is in adapter"):
        open_checkpoint(out)
