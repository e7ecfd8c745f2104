"""ONNX files run by onnxruntime, independently of the command's own check."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from command_line import call, failure, no_network_fixture  # noqa: F401
from expert_models import expert_model
from exported_models import llama, piece_tokenizer, uneven_llama
from onnx import numpy_helper
from stacked_models import stacked_model
from tiny_models import STACKS, random_model
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, BertForMaskedLM

from gramian.adapters import load, save
from gramian.adapters.formats import exporting
from gramian.adapters.formats.onnx_agreement import check_onnx
from gramian.adapters.formats.onnx_graphs import graph_of

PROMPT = [1, 300, 301, 40, 41, 345, 346, 347, 348, 330, 320]


def session(file: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def continued(file: Path, prompt: list[int], count: int) -> list[int]:
    """Greedy, a token at a time after the prompt, with the keys and values that the graph returns."""
    run, tokens, fresh = session(file), list(prompt), list(prompt)
    names = [each.name for each in run.get_inputs()][2:]
    past = {each.name: np.zeros((1, each.shape[1], 0, each.shape[3]), np.float32) for each in run.get_inputs()[2:]}
    for _ in range(count):
        feeds = {"input_ids": np.array([fresh]), "attention_mask": np.ones((1, len(tokens)), np.int64)}
        logits, *present = run.run(None, feeds | past)
        past, fresh = dict(zip(names, present)), [int(logits[0, -1].argmax())]
        tokens += fresh
    return tokens[len(prompt) :]


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """A llama of uneven widths, half zeros, and its graph with weights in a file of their own."""
    folder = tmp_path_factory.mktemp("onnx")
    save(uneven_llama(), piece_tokenizer(), folder / "uneven")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "APART", 0)
        arguments = ["--format", "onnx", "--out", folder / "graph", "--json", folder / "said.json", "--quiet"]
        assert call("export", folder / "uneven", *arguments) == 0
    return folder


def test_an_uneven_model_with_zeros_continues_text_as_torch_does(exported):
    model, _ = load(exported / "uneven")
    prompt = torch.tensor([PROMPT])
    expected = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, min_new_tokens=8, do_sample=False
    )  # fmt: skip
    assert continued(exported / "graph" / "model.onnx", PROMPT, 8) == expected[0, len(PROMPT) :].tolist()


def test_zeros_are_zeros_in_the_graph_and_weights_stand_beside_it(exported):
    model, _ = load(exported / "uneven")
    zeros = sum(int((each == 0).sum()) for each in model.parameters())
    file = exported / "graph" / "model.onnx"
    assert (exported / "graph" / "model.onnx.data").stat().st_size > 4 * zeros and zeros > 1000
    held = [numpy_helper.to_array(each, str(exported / "graph")) for each in onnx.load(file).graph.initializer]
    assert sum(int((each == 0).sum()) for each in held if each.ndim == 2) >= zeros


def test_what_is_said_of_a_directory(exported):
    said = json.loads((exported / "said.json").read_text())
    assert said["inputs"][:3] == ["input_ids", "attention_mask", "past_key_values.0.key"] and len(said["inputs"]) == 6
    assert said["outputs"] == ["logits", "present.0.key", "present.0.value", "present.1.key", "present.1.value"]
    assert 0 < said["check"]["relative"] < 1e-5 and said["check"]["lengths"] == [1, 2, 9, 32]
    kept = json.loads((exported / "graph" / "gramian.json").read_text())
    names = {file.name for file in (exported / "graph").iterdir()}
    assert set(kept["files"]) == names - {"gramian.json"} and {"config.json", "tokenizer.json", "model.onnx.data"} < names
    heads = [each.shape[1] for each in session(exported / "graph" / "model.onnx").get_inputs()[2:]]
    assert heads == [1, 1, 2, 2]  # a key/value group is gone from the first block


def test_a_graph_of_other_weights_is_refused(exported):
    model, _ = load(exported / "uneven")
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 1] += 0.5
    with pytest.raises(
        ValueError, match=r"the ONNX file is another model: run by onnxruntime it differs from torch by .* 1e-04"
    ):
        check_onnx(exported / "graph" / "model.onnx", graph_of(model, with_past=True))


def test_an_encoder_gives_hidden_states_whatever_the_padding(tmp_path, capsys):
    body = stacked_model("bert")
    whole = BertForMaskedLM(body.config).eval()
    whole.bert.load_state_dict(body.state_dict(), strict=False)
    whole.save_pretrained(tmp_path / "bert")
    assert call("export", tmp_path / "bert", "--format", "onnx", "--out", tmp_path / "bert.onnx") == 0
    printed = capsys.readouterr()
    assert "it takes input_ids, attention_mask, token_type_ids, and gives last_hidden_state" in printed.out
    assert "the head of BertForMaskedLM is left out: the graph gives hidden states" in printed.err
    ids = torch.arange(60).view(3, 20) * 5 % 200
    mask = torch.ones_like(ids)
    mask[0, 13:] = mask[2, 5:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": (ids > 90).long()}
    found = session(tmp_path / "bert.onnx").run(None, {name: each.numpy() for name, each in inputs.items()})[0]
    with torch.no_grad():
        expected = whole.bert(**inputs).last_hidden_state
    assert (torch.from_numpy(found) - expected)[mask.bool()].abs().max() < 1e-5


@pytest.mark.parametrize("failing", ["write_graph", "check_onnx"])
@pytest.mark.parametrize("out", ["new.onnx", "new", "old.onnx", "old"])
def test_nothing_is_left_of_an_export_that_fails(failing, out, tmp_path, monkeypatch):
    save(llama(), piece_tokenizer(), tmp_path / "old")
    (tmp_path / "old.onnx").write_bytes(b"before")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}

    def write(graph, file, apart):
        file.write_bytes(b"half")

    def fail(*arguments):
        raise ValueError("it fails")

    monkeypatch.setattr(exporting, "write_graph", write)
    monkeypatch.setattr(exporting, failing, fail)
    with pytest.raises(ValueError, match="it fails"):
        exporting.export_onnx(llama(), piece_tokenizer(), tmp_path / out, True, True)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_what_the_format_does_not_hold(tmp_path, capsys):
    save(expert_model("mixtral"), piece_tokenizer(), tmp_path / "experts")
    said = failure(capsys, "export", tmp_path / "experts", "--format", "onnx", "--out", tmp_path / "x.onnx")
    assert "model.layers.0.mlp.experts holds packed experts" in said and "--format gguf" in said
    shape = {"num_hidden_layers": 1, "hidden_size": 16, "state_size": 4}
    save(random_model("mamba", **shape), None, tmp_path / "mamba")
    said = failure(capsys, "export", tmp_path / "mamba", "--format", "onnx", "--out", tmp_path / "x.onnx")
    assert "MambaForCausalLM passes on more from token to token than keys and values" in said and "--no-past" in said
    assert {file.name for file in tmp_path.iterdir()} == {"experts", "mamba"}


def test_a_large_graph_is_no_single_file(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "APART", 1000)
    with pytest.raises(ValueError, match=r"cannot be one file: give --out a directory, for model.onnx and model.onnx.data"):
        exporting.export_onnx(llama(), None, tmp_path / "x.onnx", True, False)


@pytest.mark.slow
@pytest.mark.parametrize("past", [True, False])
@pytest.mark.parametrize(
    "family", ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "opt", "gpt2", "gpt_neox", "phi"]
)
def test_every_family(family, past, tmp_path):
    """Sliding windows are shorter than some windows of the check."""
    model = random_model(family)
    found = exporting.export_onnx(model, None, tmp_path / "x.onnx", past, False)
    assert found["check"]["relative"] < 1e-5
    reference = AutoModelForCausalLM.from_config(model.config).eval()
    reference.load_state_dict(model.state_dict())
    ids = torch.arange(40).view(2, 20)
    feeds = {"input_ids": ids.numpy(), "attention_mask": np.ones((2, 20), np.int64)}
    for each in session(tmp_path / "x.onnx").get_inputs()[2:]:
        feeds[each.name] = np.zeros((2, each.shape[1], 0, each.shape[3]), np.float32)
    logits = torch.from_numpy(session(tmp_path / "x.onnx").run(None, feeds)[0])
    with torch.no_grad():
        assert (logits - reference(ids).logits).abs().max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in STACKS if "t5" in name])
def test_an_encoder_and_a_decoder_at_once(name, tmp_path):
    model = stacked_model(name)
    exporting.export_onnx(model, None, tmp_path / "x.onnx", True, False)
    reference = AutoModelForSeq2SeqLM.from_config(model.config).eval()
    reference.load_state_dict(model.state_dict())
    ids, decoder = torch.arange(30).view(2, 15), torch.arange(22).view(2, 11)
    inputs = {"input_ids": ids, "attention_mask": (ids % 15 < 9).long(), "decoder_input_ids": decoder}
    logits = session(tmp_path / "x.onnx").run(None, {name: each.numpy() for name, each in inputs.items()})[0]
    with torch.no_grad():
        assert (torch.from_numpy(logits) - reference(**inputs).logits).abs().max() < 1e-4
