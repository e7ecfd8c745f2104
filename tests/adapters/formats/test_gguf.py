"""GGUF files run by llama.cpp in the command, and read by transformers here."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from command_line import call, failure, no_network_fixture  # noqa: F401
from exported_models import llama, piece_tokenizer, uneven_llama
from stacked_models import stacked_model
from tiny_models import random_model, tiny_tokenizer

from gramian.adapters import load, save
from gramian.adapters.formats import exporting
from gramian.adapters.formats.gguf_agreement import check_gguf
from gramian.adapters.formats.gguf_conversion import without_code

IDS = torch.arange(60).view(2, 30) * 7 % 350


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(input_ids=IDS, use_cache=False).logits


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """A llama of uneven widths, half zeros, and its padded GGUF."""
    folder = tmp_path_factory.mktemp("gguf")
    save(uneven_llama(), piece_tokenizer(), folder / "uneven")
    arguments = ["--format", "gguf", "--out", folder / "uneven.gguf", "--json", folder / "said.json", "--quiet"]
    assert call("export", folder / "uneven", "--pad", *arguments) == 0
    return folder


def test_an_uneven_model_with_zeros_is_the_same_model(exported):
    model, _ = load(exported / "uneven")
    found, tokenizer = load(exported / "uneven.gguf", dtype="float32")
    assert (logits(found) - logits(model)).abs().max() < 1e-5
    assert tokenizer is not None and tokenizer.decode([40, 41]) == piece_tokenizer().decode([40, 41])
    zeros = [sum(int((each == 0).sum()) for each in one.parameters()) for one in (model, found)]
    assert 1000 < zeros[0] < zeros[1]


def test_what_is_said(exported):
    said = json.loads((exported / "said.json").read_text())
    assert said["padded"] and said["dtype"] == "float32" and said["bytes"] == (exported / "uneven.gguf").stat().st_size
    check = said["check"]
    assert check["compared"] == check["equal"] == 48 and check["text_tokens"][0] == check["text_tokens"][1]
    assert {file.name for file in exported.iterdir()} == {"uneven", "uneven.gguf", "said.json"}


def test_a_file_of_other_weights_is_refused(exported):
    model, tokenizer = load(exported / "uneven")
    assert check_gguf(exported / "uneven.gguf", model, tokenizer, torch.float32).equal == 48
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.mul_(2)
    with pytest.raises(ValueError, match=r"the GGUF file is another model: run by llama.cpp it continues a prompt of"):
        check_gguf(exported / "uneven.gguf", model, tokenizer, torch.float32)


def test_what_the_format_does_not_hold(tmp_path, capsys):
    save(uneven_llama(), piece_tokenizer(), tmp_path / "uneven")
    save(llama(), None, tmp_path / "speechless")
    save(stacked_model("bert"), piece_tokenizer(), tmp_path / "bert")
    for name, expected in {
        "uneven": "has other widths than LlamaForCausalLM states for all blocks, and a GGUF of it has one width: add --pad",
        "speechless": "the model has no tokenizer",
        "bert": "BertModel is an encoder, and a GGUF is checked here by the text that it continues",
    }.items():
        assert expected in failure(capsys, "export", tmp_path / name, "--format", "gguf", "--out", tmp_path / "x.gguf")
    double = llama()
    double.config.dtype = torch.float64
    with pytest.raises(ValueError, match="its weights are float64, which a GGUF does not hold"):
        exporting.export_gguf(double, piece_tokenizer(), tmp_path / "x.gguf", False, False)
    assert {file.name for file in tmp_path.iterdir()} == {"uneven", "speechless", "bert"}


@pytest.mark.parametrize("failing", ["convert", "check_gguf"])
def test_nothing_is_left_of_an_export_that_fails(failing, tmp_path, monkeypatch):
    (tmp_path / "x.gguf").write_bytes(b"before")

    def convert(folder, file, storage):
        file.write_bytes(b"half")

    def fail(*arguments):
        raise ValueError("it fails")

    monkeypatch.setattr(exporting, "convert", convert)
    monkeypatch.setattr(exporting, failing, fail)
    with pytest.raises(ValueError, match="it fails"):
        exporting.export_gguf(llama(), piece_tokenizer(), tmp_path / "x.gguf", False, True)
    assert os.listdir(tmp_path) == ["x.gguf"] and (tmp_path / "x.gguf").read_bytes() == b"before"


def test_the_converter_is_given_nothing_that_names_code(tmp_path):
    for name in ("config.json", "tokenizer_config.json"):
        (tmp_path / name).write_text(json.dumps({"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}, "kept": 1}))
    without_code(tmp_path)
    assert [json.loads(file.read_text()) for file in tmp_path.iterdir()] == [{"kept": 1}] * 2


@pytest.mark.slow
def test_a_tokenizer_that_llama_cpp_does_not_know(tmp_path, capsys):
    save(random_model("llama"), tiny_tokenizer(), tmp_path / "bytes")
    said = failure(capsys, "export", tmp_path / "bytes", "--format", "gguf", "--out", tmp_path / "x.gguf")
    assert "llama.cpp's converter cannot make a GGUF of this model" in said and "BPE pre-tokenizer" in said
    assert os.listdir(tmp_path) == ["bytes"]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype, tmp_path):
    save(llama(), piece_tokenizer(), tmp_path / "llama")
    assert call("export", tmp_path / "llama", "--format", "gguf", "--dtype", dtype, "--out", tmp_path / "x.gguf") == 0
    model, _ = load(tmp_path / "llama", dtype=dtype)
    found, _ = load(tmp_path / "x.gguf", dtype=dtype)
    assert (logits(found) - logits(model)).abs().max() < 1e-5
