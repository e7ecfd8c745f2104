"""Every command on tiny models: what a user gets."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from command_line import FAST, call, failure, model_fixture, no_network_fixture, short_builtin_text_fixture, text_fixture, zeros  # noqa: F401
from safetensors.torch import load_file, save_file
from tiny import tiny_model, tiny_tokenizer
from transformers import AutoModelForCausalLM

import gramian.adapters
from gramian.adapters import load, prune, read_problem, save
from gramian.adapters.cli import demo, pruning
from gramian.adapters.data.texts import MOST_EVALUATED, read_texts

# -- what a user gets ------------------------------------------------------------------------------------------------


def test_prune_saves_a_model_that_stock_transformers_loads(model, tmp_path, capsys):
    out = tmp_path / "sparse"
    assert call("prune", model, "--out", out, *FAST, "--json", tmp_path / "report.json") == 0
    printed = capsys.readouterr().out
    assert "perplexity" in printed and "model.layers.1.mlp.down_proj" in printed and str(out) in printed
    assert min(zeros(out).values()) >= 0.5 and len(zeros(out)) == 14
    stock = AutoModelForCausalLM.from_pretrained(out)
    mine, tokenizer = load(out)
    ids = torch.arange(20)[None]
    assert stock(input_ids=ids).logits.equal(mine(input_ids=ids).logits) and tokenizer is not None

    report = json.loads((out / "gramian.json").read_text())
    assert set(report["files"]) == {file.name for file in out.iterdir()} - {"gramian.json", "report.html"}
    assert {key: value for key, value in report.items() if key != "files"} == json.loads((tmp_path / "report.json").read_text())
    assert report["settings"]["method"] == "fistapruner" and report["settings"]["versions"]["torch"]
    assert report["settings"]["calibration"]["sha256"] and report["sparsity"] >= 0.5
    assert report["perplexity"]["context"] == 33 and report["perplexity"]["windows"] == 2
    assert report["perplexity"]["dense"] > 0 and report["perplexity"]["pruned"] > 0
    assert all(0 < operator["heldout_error"] < 1 for operator in report["operators"])
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["report.json", "sparse"]


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        (["--method", "wanda", "--sparsity", "0.25"], {"method": "wanda", "pattern": "25% per row", "calibrate_on": "pruned"}),
        (["--method", "wanda", "--no-per-row"], {"pattern": "50%"}),
        (["--method", "sparsegpt", "--sparsity", "2:4"], {"method": "sparsegpt", "pattern": "2:4", "target": "own"}),
        (["--method", "magnitude", "--per-row"], {"pattern": "50% per row"}),
        (
            [
                word
                for each in ("warm_start=wanda", "inner_steps=5", "patience=2", "threshold=0.2", "tolerance=0.01")
                for word in ("--set", each)
            ],
            {"warm_start": "wanda", "inner_steps": 5, "patience": 2, "threshold": 0.2, "tolerance": 0.01, "max_lambdas": 12},
        ),
        (["--calibrate-on", "pruned", "--target", "model"], {"calibrate_on": "pruned", "target": "model"}),
        (["--jobs", "2", "--dtype", "bfloat16"], {"calibrate_on": "dense", "dtype": "bfloat16"}),
        (["--heldout", "0"], {"heldout": None}),
    ],
)
def test_prune_options_reach_the_run(options, settings, model, tmp_path):
    out = tmp_path / "sparse"
    assert call("prune", model, "--out", out, *FAST, "--no-perplexity", "--include", "mlp", *options) == 0
    report = json.loads((out / "gramian.json").read_text())
    assert settings.items() <= {**report["settings"], **report["settings"]["options"]}.items()
    assert "perplexity" not in report and len(report["operators"]) == 6


def test_problems_need_a_directory_of_their_own(model, tmp_path):
    for problems in (tmp_path / "out", tmp_path / "out" / "inside", tmp_path):
        assert call("prune", model, "--out", tmp_path / "out", *FAST, "--problems", problems) == 2
    assert call("prune", model, "--dry-run", "--json", tmp_path / "plan.json") == 2


def test_choice_of_operators(model, tmp_path):
    out = tmp_path / "sparse"
    assert (
        call("prune", model, "--out", out, *FAST, "--method", "magnitude", "--include", r"\.1\.", "--exclude", "[qk]_proj") == 0
    )
    pruned = [name for name, part in zeros(out).items() if part > 0]
    assert len(pruned) == 5 and all(".1." in name for name in pruned)


def test_calibration_sources(model, text, tmp_path):
    save_file({"tokens": torch.randint(0, 256, (6, 24))}, tmp_path / "tokens.safetensors")
    digests = set()
    for source in ("builtin", text, tmp_path / "tokens.safetensors"):
        out = tmp_path / "sparse"
        arguments = ["--calibration", source, "--evaluate", text, "--method", "wanda", "--overwrite"]
        assert call("prune", model, "--out", out, *FAST, *arguments) == 0
        report = json.loads((out / "gramian.json").read_text())
        digests.add(report["settings"]["calibration"]["sha256"])
        assert report["settings"]["windows"][0] == 4 and report["settings"]["heldout"]["windows"][0] == 2
        assert report["perplexity"]["source"] == str(text) and report["perplexity"]["windows"] == MOST_EVALUATED
    assert len(digests) == 3


@pytest.mark.parametrize("part", ["builtin", "file"])
def test_held_out_windows_do_not_calibrate(part, text, model):
    read = read_texts(*load(model), part if part == "builtin" else str(text), 5, 32, 0, 3)
    seen = {tuple(row) for row in read.calibration.windows.tolist()}
    assert read.heldout is not None and len(read.heldout) == 3 and len(read.calibration.windows) == 5
    assert not seen & {tuple(row) for row in read.heldout.tolist()}


@pytest.mark.parametrize("memory", ["host", "stream"])
def test_dry_run_changes_nothing(memory, model, tmp_path, capsys):
    assert call("prune", model, *FAST, "--dry-run", "--memory", memory) == 0
    printed = capsys.readouterr().out
    assert "model.layers.0.self_attn.q_proj" in printed and "64x32" not in printed and "memory" in printed
    assert ("one block, streamed" in printed) == (memory == "stream")
    assert not list(tmp_path.iterdir())


def test_perplexity(model, text, tmp_path, capsys):
    result = tmp_path / "result.json"
    assert call("perplexity", model, "--text", text, "--length", "64", "--windows", "3", "--json", result) == 0
    figures = json.loads(result.read_text())
    assert figures["windows"] == 3 and figures["context"] == 65
    assert f"perplexity {figures['perplexity']:.4f} on 3 windows" in capsys.readouterr().out


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_capture_then_solve_is_prune(model_type, tmp_path):
    source = save(tiny_model(model_type), tiny_tokenizer(), tmp_path / "model")
    same = ["--samples", "4", "--length", "32"]
    assert call("capture", source, "--include", ".", "--out", tmp_path / "problems", *same) == 0
    files = sorted((tmp_path / "problems").iterdir())
    assert len(files) == (14 if model_type == "llama" else 8)
    solving = ["--method", "wanda", "--sparsity", "0.5"]
    assert call("solve", *files, *solving, "--json", tmp_path / "rows.json") == 0
    rows = {Path(row["file"]).stem: row for row in json.loads((tmp_path / "rows.json").read_text())}

    loaded, tokenizer = load(source)
    tokens = read_texts(loaded, tokenizer, "builtin", 4, 32, 0, 0).calibration
    report = prune(loaded, tokens, method="wanda", calibrate_on="dense", target="own", progress=False)
    for operator in report.operators:
        row = rows[operator.name]
        assert row["relative_error"] == pytest.approx(operator.relative_error, rel=1e-4)
        assert row["sparsity"] == operator.sparsity and row["pattern"] == operator.pattern
        metadata = read_problem(tmp_path / "problems" / f"{operator.name}.safetensors")[1]
        assert metadata["operator"] == operator.name and metadata["tokens"] == str(4 * 33)
        assert metadata["layer"] == operator.name.split(".")[2]


def test_problems_of_a_run_hold_its_corrected_targets(model, tmp_path):
    """--problems: solved again from the files, every operator comes out as the run reported it, slope and floor included."""
    out, problems, rows = tmp_path / "out", tmp_path / "problems", tmp_path / "rows.json"
    assert call("prune", model, "--out", out, *FAST, "--method", "wanda", "--calibrate-on", "dense", "--target", "block",
                "--problems", problems) == 0  # fmt: skip
    assert read_problem(problems / "model.layers.0.self_attn.q_proj.safetensors")[0].slope is None
    assert read_problem(problems / "model.layers.0.self_attn.o_proj.safetensors")[0].slope is not None
    assert call("solve", *sorted(problems.iterdir()), "--method", "wanda", "--json", rows) == 0
    reported = {row["name"]: row["relative_error"] for row in json.loads((out / "gramian.json").read_text())["operators"]}
    found = {Path(row["file"]).stem: row["relative_error"] for row in json.loads(rows.read_text())}
    assert found == pytest.approx(reported, rel=1e-4)
    assert call("prune", model, "--out", tmp_path / "other", *FAST, "--problems", problems) == 1  # it is not empty


def test_solve_rows(model, tmp_path, capsys):
    for name, seed in (("problems", "0"), ("heldout", "1")):
        assert (
            call("capture", model, "--include", r"0\..*(q|down)_proj", "--seed", seed, "--out", tmp_path / name, *FAST[:4]) == 0
        )
    files = sorted((tmp_path / "problems").iterdir())
    result, answers = tmp_path / "rows.json", tmp_path / "answers"
    args = [
        "--sparsity",
        "2:4",
        "--heldout",
        tmp_path / "heldout",
        "--json",
        result,
        "--out",
        answers,
        "--set",
        "first_lambda=1e-3",
    ]
    assert call("solve", *files, *args) == 0
    assert "model.layers.0.mlp.down_proj" in capsys.readouterr().out
    rows = json.loads(result.read_text())
    assert [row["file"] for row in rows] == [str(file) for file in files]
    for row in rows:
        assert {"method", "pattern", "sparsity", "relative_error", "seconds", "certificate", "heldout_error"} <= row.keys()
        assert row["method"] == "fistapruner" and row["pattern"] == "2:4" and row["sparsity"] >= 0.5
        assert row["options"] == {"first_lambda": 1e-3}
        assert row["certificate"]["violation"] == 0 and row["certificate"]["objective"] > 0
        weights = load_file(answers / Path(row["file"]).name)["weight"].double().numpy()
        problem, _ = read_problem(row["file"])
        assert row["relative_error"] == problem.relative_error(weights)
        held, _ = read_problem(tmp_path / "heldout" / Path(row["file"]).name)
        assert row["heldout_error"] == held.relative_error(weights)
    assert call("solve", files[0], "--heldout", tmp_path / "heldout" / files[0].name, "--method", "magnitude") == 0


def test_demo(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pruning, "load", lambda *_, **__: (tiny_model("gemma3_text"), tiny_tokenizer()))
    for name, value in (("SAMPLES", 3), ("HELDOUT", 2), ("LENGTH", 32)):
        monkeypatch.setattr(demo, name, value)
    monkeypatch.chdir(tmp_path)
    assert call("demo") == 0
    printed = capsys.readouterr().out
    for promised in ("dense", "pruned", "error", "held-out", "KKT", f"from_pretrained({str(tmp_path / 'gramian-demo')!r})"):
        assert promised in printed
    assert min(zeros(tmp_path / "gramian-demo").values()) >= 0.5
    AutoModelForCausalLM.from_pretrained("gramian-demo")
    assert "--overwrite" in failure(capsys, "demo")


# -- from outside ----------------------------------------------------------------------------------------------------


def test_help_needs_no_torch():
    code = "import sys; from gramian.adapters.cli.main import main\n"
    code += "try: main(['prune', '--help'])\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "False"
    assert "examples:" in done.stdout and done.stderr == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["prune", "missing/model/here", "--out", "sparse"],
        ["prune", "org/model", "--out", "taken"],
        ["prune", "org/model", "--out", "sparse", "--calibration", "missing.txt"],
        ["perplexity", "org/model", "--text", "missing.txt"],
        ["capture", "./missing", "--include", ".", "--out", "problems"],
        ["demo", "--out", "taken"],
    ],
)
def test_what_the_file_system_shows_is_said_before_torch_is_imported(arguments, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("x")
    code = f"import sys; from gramian.adapters.cli.main import main; print(main({arguments!r}), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.stdout.split() == ["1", "False"] and done.stderr.startswith("gramian: error: ")


def test_the_lines_of_a_run_stand_in_their_order(model, text, tmp_path, capsys):
    assert call("prune", model, "--out", tmp_path / "out", *FAST, "--calibration", text, "--method", "magnitude") == 0
    printed = capsys.readouterr()
    assert f"{text}: 4 windows to calibrate, 2 held out" in printed.err.splitlines()
    assert "windows to calibrate" not in printed.out
    assert printed.out.index("operator ") < printed.out.index("saved to ")


def test_version(capsys):
    assert call("--version") == 0
    assert capsys.readouterr().out.strip() == f"gramian {version('gramian')}"


def test_public_names():
    for name in gramian.adapters.__all__:
        assert getattr(gramian.adapters, name) is not None and name in dir(gramian.adapters)
    # files of these names were imported above and must not have taken the functions' places
    assert callable(gramian.adapters.capture) and callable(gramian.adapters.estimate)
    with pytest.raises(AttributeError, match="nonsense"):
        gramian.adapters.nonsense  # noqa: B018
