"""`gramian prune --allocation equal`, from the command to stock classes, n:m patterns, and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from command_line import FAST, TEXT, call, failure, no_network_fixture  # noqa: F401
from found_models import FOUND, found_model
from shrunk_models import IDS, silenced
from structured_models import kept_columns
from tiny import random_model, tiny_tokenizer
from transformers import AutoModelForCausalLM

import gramian
from gramian.adapters import save
from gramian.adapters.models.unit_groups import unit_groups_of

MODELS = ("llama", "qwen3", "gemma3_text", "opt", "gpt2", "phi3", "mistral")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Where commands run, with a text."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT)
    return tmp_path


def dense_model(model_type: str):
    """Of two types the heads remain, so that their feed-forward modules have to be wide for half of all to go."""
    wide = {"opt": {"ffn_dim": 160}, "gpt2": {"n_inner": 160}}
    return found_model(*FOUND["phi3"][:2]) if model_type == "phi3" else random_model(model_type, **wide.get(model_type, {}))


def prune(source: str, out: str, *options) -> int:
    return call(
        "prune", source, "--out", out, *FAST, "--calibration", "text.txt", "--no-perplexity", "--quiet", *map(str, options)
    )


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(input_ids=IDS).logits


@pytest.mark.parametrize(("ratio", "options"), [(0.2, ()), (0.5, ("--round-to", "16"))])
@pytest.mark.parametrize("model_type", MODELS)
def test_stock_classes_load_what_the_command_saves(model_type, ratio, options, folder, capsys):
    """Weights are kept as they are by this method, so that the dense model without the removed units is the reference."""
    dense = dense_model(model_type)
    save(dense, tiny_tokenizer(), "dense")
    assert prune("dense", "out", "--method", "wanda-sp", "--allocation", "equal", "--ratio", ratio, *options) == 0
    shown = capsys.readouterr().out
    assert f"AutoModelForCausalLM.from_pretrained({str(Path('out').absolute())!r})" in shown and "equal widths" in shown
    names = {file.name for file in Path("out").iterdir()}
    assert not any("widths" in name or name.endswith(".py") for name in names)
    assert not {"auto_map", "per_layer_config"} & set(json.loads(Path("out/config.json").read_text()))
    stock = AutoModelForCausalLM.from_pretrained("out").eval()
    channels = {each.units for each in unit_groups_of(stock).values() if each.size == 1}
    heads = {(each.units, each.groups) for each in unit_groups_of(stock).values() if each.size > 1}
    step, before = 16 if options else 8, max(each.units for each in unit_groups_of(dense).values())
    assert len(channels) == len(heads) == 1 and channels < {*range(step, before, step)}
    keep = {name: kept_columns(dense, stock, name)[:: each.size] // each.size for name, each in unit_groups_of(dense).items()}
    torch.testing.assert_close(logits(stock), logits(silenced(dense, keep)), rtol=1e-4, atol=2e-5)
    assert torch.equal(logits(stock), logits(gramian.load("out")[0]))
    report = json.loads(Path("out/gramian.json").read_text())
    before, after = report["parameters"]
    assert report["settings"]["widths"] == {
        "wanted": pytest.approx(ratio * report["block_parameters"][0]),
        "removed": before - after,
    }
    assert prune("out", "sparse", "--method", "magnitude", "--sparsity", "2:4") == 0
    sparse = AutoModelForCausalLM.from_pretrained("sparse")
    weight = sparse.get_submodule(next(name for name, each in unit_groups_of(sparse).items() if each.size == 1)).weight
    columns = weight.detach().T if model_type == "gpt2" else weight.detach()
    assert (columns.reshape(-1, 4) != 0).sum(dim=1).max() == 2


@pytest.mark.parametrize("ratio", [0.1, 0.3])
def test_refitted_weights_of_equal_widths_load_anywhere(ratio, folder):
    """Four blocks of eight heads in groups of two, where as many channels as heads would leave widths one apart."""
    save(
        random_model(
            "llama", hidden_size=64, intermediate_size=176, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=4
        ),
        tiny_tokenizer(),
        "dense",
    )
    assert prune("dense", "out", "--method", "numerical", "--allocation", "equal", "--ratio", ratio) == 0
    stock = AutoModelForCausalLM.from_pretrained("out").eval()
    assert torch.equal(logits(stock), logits(gramian.load("out")[0]))
    assert stock.config.intermediate_size % 8 == 0 and 64 % stock.config.num_attention_heads == 0
    assert prune("out", "sparse", "--method", "wanda", "--sparsity", "2:4") == 0


def test_widths_that_cannot_be_are_refused_by_the_command(folder, capsys):
    save(random_model("llama"), tiny_tokenizer(), "dense")
    args = ("prune", "dense", "--out", "out", *FAST, "--calibration", "text.txt", "--method", "wanda-sp")
    assert "round_to=64 has no multiple among the 48 channels" in failure(capsys, *args, "--round-to", "64")
    assert "is the largest" in failure(capsys, *args, "--ratio", "0.9")
    assert call(*args, "--allocation", "uniform") == 2
    assert (
        "uniform does not go with 'wanda-sp', which removes whole heads and channels: take one of equal, per_type, score, loss"
        in capsys.readouterr().err
    )
    assert not Path("out").exists()
