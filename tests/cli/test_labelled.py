"""The command on texts with labels, heads by similarity, and recovery."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from command_line import call, failure, model_fixture, no_network_fixture, text_fixture  # noqa: F401
from tiny_models import STACKS, tiny_tokenizer
from transformers import AutoConfig, AutoModelForSequenceClassification

import gramian

pytestmark = pytest.mark.usefixtures("elsewhere")
FAST = ("--samples", "6", "--length", "24", "--heldout", "2")


@pytest.fixture(name="elsewhere")
def elsewhere_fixture(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(name="classifier")
def classifier_fixture(tmp_path) -> Path:
    config = AutoConfig.for_model("bert", **STACKS["bert"][1], vocab_size=258, num_labels=2, id2label={0: "no", 1: "yes"})
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    model.save_pretrained(tmp_path / "classifier")
    tiny_tokenizer().save_pretrained(tmp_path / "classifier")
    return tmp_path / "classifier"


@pytest.fixture(name="texts")
def texts_fixture(tmp_path) -> Path:
    file = tmp_path / "texts.jsonl"
    rows = [{"text": "word " * (1 + place % 4), "label": "yes" if place % 2 else "no"} for place in range(12)]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return file


def test_a_classifier_on_a_file_of_texts_with_labels(classifier, texts, capsys):
    args = ("--method", "tasp", "--ratio", "0.2", "--pad", "--calibration", texts, *FAST)
    assert call("prune", classifier, "--out", "small", *args) == 0
    printed = capsys.readouterr().out
    assert "accuracy" in printed and "AutoModelForSequenceClassification.from_pretrained" in printed
    report = json.loads(Path("small/gramian.json").read_text())
    assert report["answers"]["texts"] == 2 and 0 <= report["answers"]["pruned"]["accuracy"] <= 1
    assert report["settings"]["calibration"]["source"] == str(texts)
    stock = AutoModelForSequenceClassification.from_pretrained("small")
    before = gramian.load(classifier, classifier=True)[0]
    assert stock.classifier.weight.equal(before.classifier.weight) and stock.config.intermediate_size < 48
    assert call("prune", classifier, "--dry-run", *args) == 0


def test_what_does_not_go_with_it(classifier, texts, text, capsys):
    args = ("prune", classifier, "--out", "small", "--method", "tasp", *FAST)
    assert "predicts no tokens" in failure(capsys, *args, "--calibration", text)
    assert "--evaluate measures perplexity" in refused(capsys, *args, "--calibration", texts, "--evaluate", text)
    texts.write_text('{"source": "a", "target": "b"}\n')
    assert "BertForSequenceClassification predicts a label" in failure(capsys, *args, "--calibration", texts)
    assert not Path("small").exists()


def test_heads_by_similarity_and_recovery(model, text, capsys):
    args = ("--method", "greedy-output", "--heads-by-similarity", "--set", "tau=0.6", "--no-perplexity", *FAST)
    own = ("--recovery-calibration", text, "--recovery-samples", "3")
    assert call("prune", model, "--out", "small", *args, *own) == 0
    assert "heads are similar to a kept one at tau=0.6, and removed" in capsys.readouterr().out
    report = json.loads(Path("small/gramian.json").read_text())
    assert report["settings"]["recovery"]["windows"][0] == 3 and report["settings"]["recovery"]["source"] == str(text)
    assert report["settings"]["heads_by_similarity"] and report["fingerprint"]["recovery"]
    assert all("self_attn" in row["name"] for row in report["modules"]) and report["ratio"] > 0
    assert call("prune", model, "--out", "again", "--recipe", "small", "--no-perplexity") == 0
    assert Path("again/model.safetensors").read_bytes() == Path("small/model.safetensors").read_bytes()
    for options, message in (
        (("--method", "l0", *own), "--recovery-calibration .* is for methods that first choose heads and channels"),
        (("--method", "tasp", *own), "changes nothing, as nothing makes up for what tasp removes: add --compensate"),
        (("--method", "flap", "--heads-by-similarity"), "--heads-by-similarity does not go with 'flap'"),
        (("--method", "flap", "--recovery-samples", "3"), "--recovery-samples 3 needs a source: give --recovery-calibration"),
    ):
        assert re.search(message, refused(capsys, "prune", model, "--out", "other", *options))
    missing = failure(capsys, "prune", model, "--out", "other", "--method", "flap", "--recovery-calibration", "nowhere.txt")
    assert "no calibration text 'nowhere.txt'" in missing


def refused(capsys, *arguments) -> str:
    """What a call says whose arguments contradict each other."""
    assert call(*arguments) == 2
    return " ".join(capsys.readouterr().err.split())
