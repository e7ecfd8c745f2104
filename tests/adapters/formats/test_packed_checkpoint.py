"""Quantised weights as checkpoints of compressed-tensors: codes found again, and loaded by a process without gramian."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command_line import call
from tiny import tiny_tokenizer
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import gramian
from gramian.adapters.formats.packed_checkpoint import export_packed
from gramian.adapters.formats.packed_codes import codes_of, packed_words

LOADED = """
import sys, torch
from transformers import AutoModelForCausalLM
known, model = torch.load(sys.argv[2]), AutoModelForCausalLM.from_pretrained(sys.argv[1])
assert "gramian" not in sys.modules
assert torch.allclose(model(known["tokens"]).logits, known["logits"], atol=1e-5)
for name, weight in known["weights"].items():
    assert torch.equal(model.get_submodule(name).weight.float(), weight), name
"""


def small_model(vocabulary: int = 50) -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(**shape, vocab_size=vocabulary, dtype="float32")).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bits", [4, 8])
def test_codes_are_found_again_to_the_bit(dtype, bits):
    torch.manual_seed(1)
    codes = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), (6, 64))
    codes[0] = 0
    scales = (torch.rand(6, 2) + 0.1).bfloat16().to(dtype)
    weight = codes.to(dtype) * scales.repeat_interleave(32, dim=1)
    found = codes_of(weight, bits, 32)
    assert found is not None
    assert torch.equal(found.codes.to(dtype) * found.scales.repeat_interleave(32, dim=1), weight)
    assert codes_of(torch.randn(6, 64), bits, 32) is None


@pytest.mark.parametrize("bits", [4, 8])
def test_words_are_those_of_the_library(bits):
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    codes = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), (5, 64), dtype=torch.int8)
    assert torch.equal(packed_words(codes, bits), helpers.pack_to_int32(codes, bits))


def test_stock_transformers_loads_what_was_packed(tmp_path: Path):
    pytest.importorskip("compressed_tensors")
    model, tokens = small_model(), torch.randint(0, 50, (4, 32))
    gramian.prune(
        model, tokens, "sparsegpt-quantised", sparsity="2:4", options={"bits": 4, "group": 32}, progress=False
    )  # fmt: skip
    done = export_packed(model, None, tmp_path / "packed", 4, 32)
    assert done["packed"] == 7 and done["bytes"] < 0.5 * done["dense_bytes"]
    weights = {name: each.weight.detach() for name, each in model.named_modules() if isinstance(each, torch.nn.Linear)}
    torch.save({"tokens": tokens, "logits": model(tokens).logits.detach(), "weights": weights}, tmp_path / "known.pt")
    command = [sys.executable, "-c", LOADED, str(tmp_path / "packed"), str(tmp_path / "known.pt")]
    subprocess.run(command, check=True, cwd=tmp_path)
    with pytest.raises(
        ValueError, match=r"load what it was made from \(what `gramian export` .* the same weights to the bit\)"
    ):
        gramian.load(tmp_path / "packed")


@pytest.mark.parametrize("rounded", [True, False])
def test_units_removed_then_quantised_in_eight_bits(rounded, tmp_path: Path, monkeypatch, capsys):
    """Channels first, then zeros and codes by the command line; stock transformers loads it, and every zero is one."""
    pytest.importorskip("compressed_tensors")
    monkeypatch.chdir(tmp_path)
    gramian.save(small_model(258), tiny_tokenizer(), "dense")
    Path("text.txt").write_text(" ".join(map(str, range(900))))
    common = ["--calibration", "text.txt", "--samples", "4", "--length", "32", "--heldout", "0", "--no-perplexity"]
    amount = ["--ratio", "0.2", "--allocation", "equal", "--include", "down_proj", *(["--round-to", "32"] if rounded else [])]
    assert call("prune", "dense", "--out", "small", "--method", "wanda-sp", *amount, *common) == 0
    grid = ["--set", "bits=8", "--set", "group=32"]
    assert call("prune", "small", "--out", "coded", "--method", "sparsegpt-quantised", "--sparsity", "0.5", *grid, *common) == 0
    export = ["export", "coded", "--format", "compressed-tensors", "--bits", "8", "--group", "32", "--out", "packed"]
    capsys.readouterr()
    assert call(*export) == 0
    shown = capsys.readouterr().out
    coded, _ = gramian.load("coded")
    found = AutoModelForCausalLM.from_pretrained("packed").eval()
    width = coded.model.layers[0].mlp.down_proj.in_features
    assert width < 128 and (width % 32 == 0) == rounded
    assert ("no multiple of 32: prune with --round-to 32" in shown) == (not rounded)
    assert f"{7 if rounded else 6} operators are packed, in 8 bits" in shown
    tokens = torch.randint(0, 50, (2, 16))
    with torch.no_grad():
        torch.testing.assert_close(found(tokens).logits.float(), coded(tokens).logits, rtol=1e-4, atol=1e-4)
    for name, module in coded.model.layers.named_modules():
        if isinstance(module, torch.nn.Linear):
            zero = module.weight == 0
            assert zero.float().mean() >= 0.5
            assert torch.equal(found.model.layers.get_submodule(name).weight == 0, zero), name


def test_what_disagrees_is_not_put_in_place(tmp_path: Path, monkeypatch):
    pytest.importorskip("compressed_tensors")
    model = small_model()
    gramian.prune(model, torch.randint(0, 50, (4, 32)), "sparsegpt-quantised", options={"group": 32}, progress=False)
    words = "gramian.adapters.formats.packed_checkpoint.packed_words"
    monkeypatch.setattr(words, lambda codes, bits: packed_words((codes - 1).clamp(-8, 7), bits))
    with pytest.raises(ValueError, match="differs from the model by"):
        export_packed(model, None, tmp_path / "packed", 4, 32)
    assert not list(tmp_path.iterdir())


def test_a_model_off_the_grid_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="no Linear of the model has weights on a grid of 4 bits"):
        export_packed(small_model(), None, tmp_path / "packed", 4, 32)
    assert not (tmp_path / "packed").exists()
