"""`gramian tune`: a pruned model is trained further and saved, complete or not at all."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from command_line import call, failure, model_fixture, no_network_fixture, short_builtin_text_fixture, text_fixture, zeros
from safetensors.torch import load_file
from tiny import random_model, tiny_tokenizer
from transformers import AutoModelForCausalLM

from gramian.adapters import save
from gramian.adapters.training.loop import Training

__all__ = ["model_fixture", "no_network_fixture", "short_builtin_text_fixture", "text_fixture"]
SHORT = ["--length", "32", "--heldout", "4", "--samples", "40", "--lr", "1e-2"]


@pytest.fixture(name="sparse", scope="module")
def sparse_fixture(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sparse") / "model"
    text = folder.with_name("text.txt")
    text.write_text(" ".join(map(str, range(3000))))
    pruning = ["--method", "wanda", "--sparsity", "2:4", "--samples", "4", "--length", "32", "--calibration", text]
    assert call("prune", model, "--out", folder, "--quiet", *pruning, "--evaluate", text) == 0
    return folder


def test_a_tuned_model_keeps_its_zeros_and_its_recipe(sparse, model, text, tmp_path, capsys):
    out = tmp_path / "tuned"
    assert call("tune", sparse, "--text", text, "--teacher", model, "--out", out, "--json", tmp_path / "r.json", *SHORT) == 0
    assert "held-out loss in nats per token" in capsys.readouterr().out
    assert zeros(out) == zeros(sparse) and set(zeros(out).values()) == {0.5}
    here, there = (load_file(folder / "model.safetensors") for folder in (out, sparse))
    assert all((here[name] == 0).equal(there[name] == 0) for name in here)
    assert not all(here[name].equal(there[name]) for name in here)
    document, before = (json.loads((folder / "gramian.json").read_text()) for folder in (out, sparse))
    assert "perplexity" in before and "perplexity" not in document  # which is that of the model before it was tuned
    assert call("compare", sparse, out) == 0
    plain, tuned = capsys.readouterr().out.splitlines()[2:4]
    assert "wanda " in plain and "wanda, tuned" in tuned and "trained further" in (out / "report.html").read_text()
    assert document["settings"] == before["settings"] and document["operators"] == before["operators"]
    tuning = document["tuning"]
    assert tuning == json.loads((tmp_path / "r.json").read_text()) and "fingerprint" not in document
    assert tuning["teacher"] == str(model) and tuning["settings"]["train"] == "kept" and tuning["settings"]["lr"] == 0.01
    assert tuning["zeros"]["before"] == tuning["zeros"]["after"] > 0
    assert tuning["checks"][-1]["loss"] < tuning["checks"][0]["loss"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.json", "text.txt", "tuned"]
    assert isinstance(AutoModelForCausalLM.from_pretrained(out)(torch.arange(5)[None]).logits, torch.Tensor)


def test_another_text_is_held_out(sparse, text, tmp_path):
    other, out = tmp_path / "other.txt", tmp_path / "tuned"
    other.write_text(" ".join(map(str, range(500, 515))))
    assert call("tune", sparse, "--text", text, "--heldout-text", other, "--out", out, "--train", "norms", *SHORT) == 0
    tuning = json.loads((out / "gramian.json").read_text())["tuning"]
    assert tuning["heldout_text"] == str(other) and tuning["settings"]["heldout"] < 4  # the other text has no more windows
    assert tuning["settings"]["tokens"][0] == 40


def test_an_interrupted_run_goes_on_to_the_same_bytes(sparse, text, tmp_path, monkeypatch, capsys):
    command = ["tune", sparse, "--text", text, "--train", "norms", "--epochs", "2", "--checks", "6", *SHORT]
    assert call(*command, "--out", tmp_path / "whole") == 0
    step = Training.step

    def interrupted(self, rate):
        if self.progress.step == 12:
            raise ValueError("interrupted")
        step(self, rate)

    monkeypatch.setattr(Training, "step", interrupted)
    assert "interrupted" in failure(capsys, *command, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists() and (tmp_path / "out.tuning" / "run.json").is_file()
    monkeypatch.setattr(Training, "step", step)
    assert "did not end: go on with it (--resume" in failure(capsys, *command, "--out", tmp_path / "out")
    assert call(*command, "--out", tmp_path / "out", "--resume") == 0
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
    assert not (tmp_path / "out.tuning").exists()
    assert "exists and is not empty" in failure(capsys, *command, "--out", tmp_path / "out", "--resume")


def test_mistakes_are_one_sentence(sparse, model, text, tmp_path, capsys):
    given, out = ["tune", sparse, "--out", tmp_path / "out"], tmp_path / "out"
    assert "no text file 'none.txt'" in failure(capsys, *given, "--text", "none.txt")
    assert "no text file 'none.txt'" in failure(capsys, *given, "--text", text, "--heldout-text", "none.txt")
    assert "no model './none'" in failure(capsys, *given, "--text", text, "--teacher", "./none")
    assert "too few to train on 400 and hold 16 out" in failure(
        capsys, *given, "--text", text, "--length", "120", "--samples", "400"
    )
    assert call(*given, "--text", text, "--lr", "0") == 2 and "not a number above 0" in capsys.readouterr().err
    assert call(*given, "--text", text, "--batch", "3") == 2 and "--batch 3" in capsys.readouterr().err
    assert call(*given, "--text", text, "--written", "8") == 2 and "give --teacher MODEL" in capsys.readouterr().err
    assert call("tune", sparse, "--text", text, "--out", sparse) == 2
    other = tiny_tokenizer()
    other.add_tokens(["more"])
    save(random_model("llama"), other, tmp_path / "other")
    message = failure(capsys, *given, "--text", text, "--teacher", tmp_path / "other", *SHORT)
    assert "has another tokeniser than" in message
    (tmp_path / "out.tuning").mkdir()
    (tmp_path / "out.tuning" / "file").write_text("x")
    assert "holds something else" in failure(capsys, *given, "--text", text)
    shutil.rmtree(tmp_path / "out.tuning")
    assert not out.exists()
