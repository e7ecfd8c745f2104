"""`gramian evaluate` and `gramian speed` on tiny models."""

import json
from pathlib import Path

import pytest
from command_line import call, failure, model_fixture, no_network_fixture, short_builtin_text_fixture, text_fixture  # noqa: F401
from tiny import tiny_model, tiny_tokenizer

import gramian
from gramian.adapters import save

EXAMPLE = Path(__file__).resolve().parents[2] / "benchmarks" / "examples" / "questions.jsonl"
WINDOWS = ["--windows", "3", "--length", "40"]


@pytest.fixture(name="other", scope="session")
def other_fixture(tmp_path_factory) -> Path:
    return save(tiny_model("llama", seed=1), tiny_tokenizer(), tmp_path_factory.mktemp("models") / "other")


def test_a_model_beside_the_dense_one(model, other, text, tmp_path, capsys):
    out = tmp_path / "result.json"
    assert call("evaluate", model, "--dense", other, *WINDOWS, "--text", text, "--tasks", EXAMPLE, "--json", out) == 0
    printed, document = capsys.readouterr(), json.loads(out.read_text())
    assert "KL(dense || model), nats per token" in printed.out and f"3 windows of 41 tokens, {text}" in printed.out
    assert document["model"] == str(model) and document["against"] == str(other)
    rows = {figure["name"]: figure for figure in document["figures"]}
    assert rows["questions.jsonl: accuracy"]["items"] == 8
    loaded, tokenizer = gramian.load(model)
    windows = gramian.adapters.text_windows(text.read_text(), tokenizer, 40)[:3]
    expected = gramian.perplexity(loaded, windows, progress=False).value
    assert rows["perplexity"]["model"]["value"] == pytest.approx(expected, rel=1e-4)
    assert rows["perplexity"]["change_is"] == "ratio" and document["settings"]["text"]["windows"] == [3, 41]


def test_a_model_alone_on_the_built_in_text(model, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert call("evaluate", model, *WINDOWS, "--json", "-", "--quiet", "--html", page) == 0
    assert "KL(dense" not in page.read_text() and "perplexity" in page.read_text()
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert printed.err == "" and document["against"] is None
    assert document["settings"]["text"]["source"] == "held out of builtin"


def test_the_calibration_text_is_noticed(model, text, tmp_path, capsys):
    sparse = tmp_path / "sparse"
    prune = ["--method", "magnitude", "--calibration", text, "--samples", "4", "--length", "40", "--heldout", "0"]
    assert call("prune", model, "--out", sparse, "--no-perplexity", *prune) == 0
    assert call("evaluate", sparse, *WINDOWS, "--text", text, "--json", tmp_path / "result.json") == 0
    assert f"the model was calibrated on {text} too" in capsys.readouterr().err
    settings = json.loads((tmp_path / "result.json").read_text())["settings"]
    assert settings["text"]["seen_in_calibration"] is True and settings["calibration"]["source"] == str(text)
    assert call("evaluate", sparse, *WINDOWS) == 0
    assert "calibrated on" not in capsys.readouterr().err


def test_refusals_are_one_line(model, other, tmp_path, capsys, monkeypatch):
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"question": "x"}\n')
    assert "questions.jsonl, line 1: choices have to be a list" in failure(capsys, "evaluate", model, "--tasks", questions)
    assert "no file of questions" in failure(capsys, "evaluate", model, "--tasks", tmp_path / "gone.jsonl")
    assert "no model 'nowhere.gguf'" in failure(capsys, "evaluate", model, "--dense", "nowhere.gguf")
    assert "no text file" in failure(capsys, "evaluate", model, "--text", tmp_path / "gone.txt")
    assert "no folder of tasks" in failure(
        capsys, "evaluate", model, *WINDOWS, "--tasks", "x", "--task-folder", tmp_path / "gone"
    )
    assert "no model './gone'" in failure(capsys, "speed", model, "--against", "./gone")
    assert "held-out windows of 40 tokens, fewer than the 4000" in failure(
        capsys, "evaluate", model, "--windows", "4000", "--length", "40"
    )
    assert call("speed", model, "--batch", "0") == 2 and call("evaluate") == 2
    strange = tiny_tokenizer()
    strange.add_tokens(["metal"])
    changed = save(tiny_model("llama"), strange, tmp_path / "strange")
    assert "have tokenizers that differ" in failure(capsys, "evaluate", model, "--dense", changed, *WINDOWS, "--text", EXAMPLE)


def test_speed(model, tmp_path, capsys):
    out = tmp_path / "speed.json"
    quick = ["--batch", "1", "--length", "4", "8", "--tokens", "2", "--repeats", "1", "--threads", "1"]
    assert call("speed", model, *quick, "--json", out) == 0
    printed, document = capsys.readouterr(), json.loads(out.read_text())
    assert "peak memory" in printed.out and "1 threads" in printed.out and "speed: 5 of 5 runs" in printed.err
    assert len(document["models"]) == 1 and len(document["rates"]) == 4 and document["settings"]["versions"]["torch"]
