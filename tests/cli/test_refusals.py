"""Every bad call of the `gramian` command: the right exit code, one clear line, nothing left behind."""

import os
import re
from pathlib import Path

import pytest
import torch
from command_line import FAST, TEXT, call, failure, model_fixture, no_network_fixture, short_builtin_text_fixture, text_fixture  # noqa: F401
from safetensors.torch import save_file
from tiny import tiny_model, tiny_tokenizer
from transformers import AlbertConfig, AlbertModel

import gramian
from gramian.adapters import save
from gramian.adapters.cli import before_after, pruning
from gramian.adapters.data import generation
from gramian.adapters.models import saving
from gramian.adapters.passes import problems

# -- bad usage: exit code 2 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sparsity", "1.0"], r"'1.0' is not a sparsity in \[0, 1\)"),
        (["--sparsity=-0.1"], "'-0.1' is not a sparsity"),
        (["--sparsity", "nan"], "'nan' is not a sparsity"),
        (["--sparsity", "half"], "'half' is not a sparsity"),
        (["--sparsity", "2-4"], "'2-4' is not a sparsity"),
        (["--sparsity", "5:4"], "'5:4' is not a sparsity"),
        (["--pattern", "2:4"], "unrecognized arguments: --pattern 2:4"),
        (["--method", "magic"], "no method 'magic'; there are fistapruner"),
        (["--method", "sparsgpt"], r"no method 'sparsgpt' \(did you mean 'sparsegpt'\?\); there are fistapruner"),
        (["--sparsty", "0.5"], r"unrecognized arguments: --sparsty 0.5 \(did you mean '--sparsity'\?\)"),
        (["--set", "inner_stpes=3"], r"fistapruner has no option 'inner_stpes' \(did you mean 'inner_steps'\?\); it has warm"),
        (["--set", "tolerance=inf"], r"tolerance must be in \[0, inf\) but is inf"),
        (["--set", "inner_steps=1.5"], "inner_steps must be a whole number of at least 1 but is 1.5"),
        (["--set", "threshold=high"], r"threshold must be a number in \[0, 1\] but is 'high'"),
        (["--method", "wanda", "--set", "warm_start=dense"], "wanda has no option 'warm_start'; it has none"),
        (["--method", "sparsegpt", "--set", "inner_steps=3"], "sparsegpt has no option 'inner_steps'; it has damping, block"),
        (["--set", "inner_steps=0"], "inner_steps must be a whole number of at least 1 but is 0"),
        (["--set", "threshold=1.5"], r"threshold must be in \[0, 1\]"),
        (["--set", "first_lambda=0"], r"first_lambda must be in \[1e-07, 1\] but is 0"),
        (["--set", "inner_steps"], "'inner_steps' is not NAME=VALUE"),
        (["--jobs", "2", "--calibrate-on", "pruned"], "--jobs 2 needs --calibrate-on dense"),
        (["--jobs", "2", "--method", "wanda"], "--jobs 2 needs --calibrate-on dense"),
        (["--include", "("], r"'\(' is not a regular expression"),
        (["--samples", "0"], "at least 1"),
        (["--evaluate", "x.txt", "--no-perplexity"], "contradict"),
    ],
)
def test_bad_usage(options, message, model, tmp_path, capsys):
    assert call("prune", model, "--out", tmp_path / "sparse", *options) == 2
    printed = capsys.readouterr().err
    assert re.search(message, printed) and "Traceback" not in printed
    assert not list(tmp_path.iterdir())


def test_what_is_missing_is_bad_usage(model, capsys):
    assert call() == 2
    assert "demo" in capsys.readouterr().err
    assert call("prune", model) == 2
    assert "--out DIR is needed" in capsys.readouterr().err
    for command in ("prune", "solve", "capture", "perplexity", "nonsense"):
        assert call(command) == 2


# -- failures: exit code 1, one line, nothing left -------------------------------------------------------------------


def test_no_model(tmp_path, monkeypatch, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    for source in (".", "nothing-here", "missing.gguf"):
        assert "no model" in failure(capsys, "prune", source, "--out", "sparse")
        assert "no model" in failure(capsys, "perplexity", source, "--text", __file__)
        assert "no model" in failure(capsys, "capture", source, "--include", ".", "--out", "problems")
    assert not list(empty.iterdir())


def test_a_model_that_does_not_run_block_by_block(tmp_path, capsys):
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 258}
    save(AlbertModel(AlbertConfig(**shape, embedding_size=16)).eval(), tiny_tokenizer(), tmp_path / "model")
    line = failure(capsys, "prune", tmp_path / "model", "--out", tmp_path / "sparse", *FAST)
    assert "runs more than once, so the model cannot be run block by block" in line
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sparsity", "3:5"], r"model\.layers\.0\.self_attn\.q_proj: pattern 3:5 needs a multiple of 5 inputs"),
        (["--include", "no_such_thing"], "no operator is left"),
        (["--calibration", "empty.txt"], "empty.txt: the text is empty"),
        (["--calibration", "short.txt"], "short.txt: the text has 5 tokens, one window needs 32"),
        (["--calibration", "missing.txt"], "no calibration text 'missing.txt'"),
        (["--calibration", "missing.safetensors"], "no calibration text"),
        (["--calibration", "strange.safetensors"], "holds token 9999, the model's vocabulary has 258"),
        (["--evaluate", "short.txt"], "short.txt: the text has 5 tokens"),
        (["--evaluate", "missing.txt"], "no text file 'missing.txt'"),
        (["--heldout", "100000"], "fewer than the 100000 requested"),
        (["--length", "500"], "context has 128|128 positions"),
        (["--device", "nonsense"], "device 'nonsense' cannot be used"),
        (["--json", "missing/report.json"], "missing/report.json cannot be written"),
        (["--out", "taken"], "taken exists and is not empty"),
        (["--out", "."], "current or home directory"),
        (["--out", "short.txt/sparse"], "is a file"),
    ],
)
def test_bad_input(options, message, model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").touch()
    Path("short.txt").write_text("short")
    Path("taken").mkdir()
    Path("taken/file").touch()
    save_file({"tokens": torch.full((10, 32), 9999)}, "strange.safetensors")
    before = sorted(tmp_path.rglob("*"))
    assert re.search(message, failure(capsys, "prune", model, "--out", "sparse", *FAST, *options))
    assert sorted(tmp_path.rglob("*")) == before


def test_weights_that_are_not_finite(tmp_path, capsys):
    broken = tiny_model("llama")
    with torch.no_grad():
        broken.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
    save(broken, tiny_tokenizer(), tmp_path / "model")
    line = failure(capsys, "prune", tmp_path / "model", "--out", tmp_path / "sparse", *FAST)
    assert "model.layers.1.mlp.up_proj.weight holds NaN or Inf" in line
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_activations_that_are_not_finite(tmp_path, capsys):
    broken = tiny_model("llama")
    with torch.no_grad():
        broken.model.layers[1].input_layernorm.weight.fill_(3e38)
        broken.model.layers[0].mlp.down_proj.weight.mul_(1e10)
    save(broken, tiny_tokenizer(), tmp_path / "model")
    args = [*FAST, "--no-perplexity", "--include", r"\.1\."]
    assert "model.layers.1." in failure(capsys, "prune", tmp_path / "model", "--out", tmp_path / "sparse", *args)
    line = failure(capsys, "capture", tmp_path / "model", "--out", tmp_path / "problems", "--include", ".", *FAST[:4])
    assert re.search(r"model\.layers\.1\..*: the inputs hold NaN or Inf", line)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "sparse.journal"]  # what was done at block 0


def test_a_model_whose_perplexity_is_no_number_is_saved(model, tmp_path, monkeypatch, capsys):
    measured = [before_after.perplexity]

    def damaged(*args):
        if measured:
            return measured.pop()(*args)
        raise ValueError("its weights are damaged")

    monkeypatch.setattr(before_after, "perplexity", damaged)
    line = failure(capsys, "prune", model, "--out", tmp_path / "sparse", *FAST)
    assert "its weights are damaged. The pruned model is in" in line and str(tmp_path / "sparse") in line
    assert [path.name for path in tmp_path.iterdir()] == ["sparse"]
    assert gramian.load(tmp_path / "sparse") is not None


def test_disk_error_leaves_nothing_but_a_journal(model, tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError("[Errno 28] No space left on device")

    args = ["prune", model, "--out", tmp_path / "sparse", *FAST, "--method", "magnitude"]
    with monkeypatch.context() as disk:
        disk.setattr(saving, "write_model", full)
        line = failure(capsys, *args)
    assert "saving to" in line and "No space left" in line
    assert [path.name for path in tmp_path.iterdir()] == ["sparse.journal"]
    assert call(*args, "--resume") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["sparse"]
    monkeypatch.setattr(problems, "write_problem", full)
    assert "No space left" in failure(capsys, "capture", model, "--include", ".", "--out", tmp_path / "problems", *FAST[:4])
    assert [path.name for path in tmp_path.iterdir()] == ["sparse"]


def test_bad_problem_files(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert call("capture", model, "--include", "0.*down_proj", "--out", "problems", *FAST[:4]) == 0
    (file,) = Path("problems").iterdir()
    Path("junk.safetensors").write_text("junk")
    assert "no problem file 'missing'" in failure(capsys, "solve", "missing")
    assert "not a readable safetensors file" in failure(capsys, "solve", file, "junk.safetensors", "--json", "rows.json")
    assert "needs a multiple of 5 inputs" in failure(capsys, "solve", file, "--sparsity", "2:5")
    assert "no held-out moments" in failure(capsys, "solve", file, "--heldout", ".")
    assert "same name" in failure(capsys, "solve", file, file, "--out", "answers")
    assert "--overwrite" in failure(capsys, "capture", model, "--include", "up", "--out", "problems", *FAST[:4])
    assert call("capture", model, "--include", "0.*up_proj", "--out", "problems", "--overwrite", *FAST[:4]) == 0
    assert len(list(Path("problems").iterdir())) == 2
    assert sorted(os.listdir()) == ["junk.safetensors", "problems"]


def test_interruption_and_faults(model, tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    def faulty(*_, **__):
        raise KeyError("surprise")

    args = ["prune", model, "--out", tmp_path / "sparse", *FAST]
    monkeypatch.setattr(pruning, "run", interrupted)
    assert call(*args) == 130
    assert capsys.readouterr().err.splitlines()[-1] == (
        "gramian: interrupted: nothing is done that could be kept, and the same command begins again"
    )
    monkeypatch.setattr(pruning, "run", faulty)
    assert failure(capsys, *args) == "gramian: error: KeyError: 'surprise' (--debug shows where)"
    assert call(*args, "--debug") == 1
    assert "Traceback" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# -- what would be lost ------------------------------------------------------------------------------------------------


def test_results_do_not_overwrite_what_is_read_or_each_other(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT)
    assert call("prune", model, "--out", "sparse", "--json", "sparse") == 2
    assert "cannot be the same" in capsys.readouterr().err
    assert call("capture", model, *FAST[:4], "--calibration", "text.txt", "--include", r"0\.mlp", "--out", "problems") == 0
    before = {file: file.read_bytes() for file in Path("problems").iterdir()}
    files = list(before)
    for args in (["--out", "problems", "--overwrite"], ["--json", files[0]]):
        assert call("solve", *files, "--method", "wanda", *args) == 2
        assert "is a problem that is read, and would be overwritten" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in Path("problems").iterdir()} == before


def test_a_tilde_is_the_home_directory(tmp_path, monkeypatch, model):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT)
    args = [*FAST[:4], "--calibration", "text.txt", "--include", r"0\.mlp"]
    assert call("capture", model, *args, "--out=~/problems") == 0
    assert (tmp_path / "home" / "problems").is_dir() and not Path("~").exists()


def test_a_text_that_cannot_be_measured_on_is_known_before_text_is_sampled(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("")
    monkeypatch.setattr(generation, "drawn", lambda *_: pytest.fail("sampled"))
    for args in (["--dry-run"], ["--out", "sparse"]):
        message = failure(capsys, "prune", model, *FAST, "--calibration", "self", "--evaluate", "empty.txt", *args)
        assert "empty.txt: the text is empty" in message


def test_what_options_would_not_change_is_refused_before_work(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT)
    for options, message in (
        (["--method", "wanda", "--target-blend", "0.25"], "--target-blend 0.25 does not go with --target own"),
        (["--method", "l0", "--target", "own", "--target-blend", "0.5"], "where there is nothing to blend"),
        (["--method", "magnitude", "--damping", "0.3"], "add --refit support"),
        (["--method", "magnitude", "--damping", "auto"], "add --refit support"),
    ):
        args = ["prune", model, *FAST, "--calibration", "text.txt", *options]
        for way in (["--dry-run"], ["--out", "sparse"]):
            assert call(*args, *way) == 2 and message in capsys.readouterr().err
    assert [file.name for file in Path().iterdir()] == ["text.txt"]
