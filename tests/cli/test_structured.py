"""`gramian prune` with structured methods: what a user gets, and every bad call."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command_line import FAST, TEXT, call, failure, model_fixture, no_network_fixture  # noqa: F401
from stacked_models import stacked_model
from tiny import VOCABULARY, tiny_model, tiny_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

import gramian.adapters
from gramian.adapters import PruneConfig, load, save
from gramian.adapters.estimates.figures import Rates
from gramian.adapters.estimates.runs import run_estimate
from gramian.adapters.methods.unit_methods import UNIT_METHODS
from gramian.adapters.models.own_classes import CODE


@pytest.fixture
def text(tmp_path, monkeypatch) -> str:
    """A calibration file, in the directory where commands run."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT)
    return "text.txt"


def prune(model: str | Path, *options) -> int:
    return call("prune", model, *FAST, "--calibration", "text.txt", *options)


def test_a_smaller_model_is_saved_measured_and_loaded(model, text, capsys):
    args = ["--method", "numerical", "--ratio", "0.3", "--json", "report.json"]
    assert prune(model, "--out", "small", *args) == 0
    printed = capsys.readouterr().out
    loader = f"AutoModelForCausalLM.from_pretrained({str(Path('small').absolute())!r}, trust_remote_code=True)"
    assert "perplexity" in printed and f"it loads with {loader}" in printed
    assert "model.layers.1.mlp.down_proj" in printed and "parameters" in printed
    report = json.loads(Path("small/gramian.json").read_text())
    assert set(report["files"]) == {file.name for file in Path("small").iterdir()} - {"gramian.json", "report.html"}
    assert {key: value for key, value in report.items() if key != "files"} == json.loads(Path("report.json").read_text())
    assert 0.3 <= report["ratio"] < 0.31 and report["settings"]["compensation"] == "weights"
    assert report["perplexity"]["dense"] > 0 and len(report["modules"]) == 4
    small, tokenizer = load("small")
    assert tokenizer is not None and sum(each.numel() for each in small.parameters()) == report["parameters"][1]
    assert call("perplexity", "small", "--text", text, "--length", "32", "--windows", "3") == 0
    assert "on 3 windows" in capsys.readouterr().out
    assert prune("small", "--out", "smaller", "--method", "magnitude-l1", "--ratio", "0.1", "--no-perplexity") == 0


def test_padded_models_load_with_stock_classes(model, text, capsys):
    assert prune(model, "--out", "wide", "--method", "wanda-sp", "--pad", "--no-perplexity") == 0
    assert f"AutoModelForCausalLM.from_pretrained({str(Path('wide').absolute())!r})" in capsys.readouterr().out
    assert not Path("wide", CODE).exists()
    assert torch.isfinite(AutoModelForCausalLM.from_pretrained("wide")(input_ids=torch.arange(8)[None]).logits).all()


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        (["--method", "numerical", "--set", "score=newton", "--set", "penalty=0.5"], {"score": "newton", "penalty": 0.5}),
        (["--method", "numerical", "--no-compensate", "--allocation", "equal"], {"compensation": "none", "ratio": 0.2}),
        (
            ["--method", "random", "--compensate", "--damping", "0.3", "--calibrate-on", "dense"],
            {"damping": 0.3, "calibrate_on": "dense"},
        ),
        (["--method", "flap"], {"compensation": "bias", "allocation": "score"}),
        (["--method", "numerical", "--target-blend", "0.75", "--swap-search"], {"target_blend": 0.75, "swap_search": True}),
        (
            ["--method", "magnitude-l2", "--heads", "per_kv_group", "--exclude", "o_proj"],
            {"heads": "per_kv_group", "exclude": "o_proj"},
        ),
        (["--method", "greedy-output", "--set", "tau=null", "--set", "moment=product"], {"tau": None}),
        (
            ["--method", "greedy-output", "--refit-producers", "--blocks", "1:", "--allocation", "per_type"],
            {"refit_producers": True, "blocks": "1:", "allocation": "per_type", "similar": "independent"},
        ),
    ],
)
def test_options_reach_the_run(options, settings, model, text):
    assert prune(model, "--out", "small", "--no-perplexity", *options) == 0
    report = json.loads(Path("small/gramian.json").read_text())
    assert settings.items() <= {**report["settings"], **report["settings"]["options"]}.items()
    assert load("small")[0].config.model_type == "llama"


def test_text_of_its_own_is_kept_and_repeats_the_run(model, text, capsys):
    args = ["--method", "greedy-output", "--json", "report.json"]
    assert call("prune", model, "--out", "one", *FAST, "--calibration", "self", "--seed", "3", *args) == 0
    assert "what was sampled to calibrate it is in one/calibration.safetensors" in capsys.readouterr().out
    first = json.loads(Path("report.json").read_text())
    assert first["settings"]["calibration"]["source"] == "self" and first["settings"]["calibration"]["seed"] == 3
    assert call("prune", model, "--out", "two", *FAST, "--calibration", "one/calibration.safetensors", *args) == 0
    again = json.loads(Path("report.json").read_text())
    assert again["settings"]["calibration"]["sha256"] == first["settings"]["calibration"]["sha256"]
    assert again["mean_heldout_error"] == first["mean_heldout_error"]
    assert again["perplexity"]["dense"] == first["perplexity"]["dense"]
    assert Path("one/model.safetensors").read_bytes() == Path("two/model.safetensors").read_bytes()
    assert call("prune", model, "--dry-run", "--calibration", "self", "--method", "greedy-output", *FAST) == 0


def test_a_dry_run_of_a_streamed_model(model, text, capsys):
    assert prune(model, "--dry-run", "--memory", "stream", "--method", "numerical") == 0
    assert "one block, streamed" in capsys.readouterr().out


def test_a_dry_run_changes_nothing(model, text, capsys):
    for method in UNIT_METHODS:
        assert prune(model, "--dry-run", "--method", method) == 0
        printed = capsys.readouterr().out
        assert ("model.layers.0.self_attn.o_proj" in printed) == (UNIT_METHODS[method].modules == "all")
        assert "model.layers.0.mlp.down_proj" in printed and "memory" in printed
    assert [path.name for path in Path().iterdir()] == ["text.txt"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "numerical", "--ratio", "1"], "'1' is not a number above 0 and below 1"),
        (["--method", "numerical", "--ratio", "0"], "'0' is not a number above 0"),
        (
            ["--method", "numerical", "--sparsity", "0.5"],
            "--sparsity 0.5 does not go with 'numerical', which removes .*: give it --ratio$",
        ),
        (["--method", "flap", "--sparsity", "2:4"], "--sparsity 2:4 does not go with 'flap'"),
        (["--method", "flap", "--per-row"], "--per-row does not go with 'flap'"),
        (["--method", "flap", "--no-per-row"], "--no-per-row does not go with 'flap'"),
        (["--method", "random", "--refit", "support"], "--refit support does not go with 'random'"),
        (["--method", "random", "--jobs", "2"], "--jobs 2 does not go with 'random'"),
        (["--method", "random", "--target", "own"], "--target own does not go with 'random'"),
        (["--method", "random", "--problems", "problems"], "--problems is for methods"),
        (["--method", "random", "--damping", "auto"], "--damping auto does not go with 'random', .*: give a number"),
        (["--method", "random", "--set", "warm_start=wanda"], "random has no option 'warm_start'; it has seed"),
        (["--method", "numerical", "--blocks", "4"], "'4' is not a range of blocks, as 4:30"),
        (["--method", "flap", "--refit-producers"], "--refit-producers needs --calibrate-on pruned"),
        (
            ["--method", "greedy-output", "--refit-producers", "--target-blend", "0.5"],
            "--refit-producers needs --target-blend 1",
        ),
        (["--method", "wanda-sp", "--swap-search"], "--swap-search needs the other weights to be solved for"),
        (["--method", "wanda", "--swap-search"], "--swap-search does not go with 'wanda', which zeroes single weights"),
        (["--method", "wanda", "--refit-producers"], "--refit-producers does not go with 'wanda'"),
        (["--method", "wanda", "--ratio", "0.5"], "--ratio 0.5 does not go with 'wanda', .*: give it --sparsity$"),
        (["--allocation", "equal"], "--allocation equal does not go with 'fistapruner'"),
        (["--compensate"], "--compensate does not go with 'fistapruner'"),
        (["--method", "l0", "--no-compensate"], "--no-compensate does not go with 'l0'"),
        (["--heads", "per_kv_group"], "--heads per_kv_group does not go with 'fistapruner'"),
        (["--pad"], "--pad is for methods that remove units, not for fistapruner"),
        (["--set", "score=box"], "fistapruner has no option 'score'; it has warm_start"),
        (["--method", "numerical", "--set", "score"], "'score' is not NAME=VALUE"),
        (["--method", "numerical", "--set", "score=best"], "error: score must be one of compensated, box, newton"),
        (["--method", "numerical", "--set", "steps=3"], "error: numerical has no option 'steps'"),
        (["--method", "greedy-output", "--set", "moment=third"], "error: moment must be one of empirical, gaussian"),
        (["--method", "tasp", "--set", "output=loss of labels"], "error: output must be one of logit, logprob, loss"),
        (["--method", "llm-pruner", "--set", "order=3"], "error: order must be 1 or 2 but is 3"),
        (["--method", "random", "--set", "seed=x"], "seed must be a whole number of at least 0 but is 'x'"),
        (["--method", "random", "--set", "seed=-1"], "seed must be a whole number of at least 0 but is -1"),
        (
            ["--method", "numerical", "--allocation", "fair"],
            "'fair' is not one of uniform, owl, alpha, angles, magnitude, search, equal, per_type",
        ),
        (["--method", "numeric"], r"no method 'numeric' \(did you mean 'numerical'\?\); there are fistapruner, .*px"),
    ],
)
def test_bad_usage(options, message, model, text, capsys):
    assert prune(model, "--out", "small", *options) == 2
    printed = capsys.readouterr().err
    assert re.search(message, printed) and "Traceback" not in printed
    assert [path.name for path in Path().iterdir()] == ["text.txt"]


@pytest.mark.parametrize(("name", "method"), [("gated t5", "tasp"), ("bert", "wanda-sp"), ("t5", "numerical")])
def test_models_without_perplexity_tell_how_far_embeddings_move(name, method, text, capsys):
    save(stacked_model(name), tiny_tokenizer(), "model")
    assert prune("model", "--out", "small", "--method", method, "--ratio", "0.1", "--pad") == 0
    printed = capsys.readouterr().out
    loader = "AutoModel" if name == "bert" else "AutoModelForSeq2SeqLM"
    report = json.loads(Path("small/gramian.json").read_text())
    assert (
        f"{report['embeddings']['mean_cosine']:.4f}" in printed
        and f"{loader}.from_pretrained({str(Path('small').absolute())!r})" in printed
    )
    assert 0 < report["embeddings"]["mean_cosine"] <= 1 and report["embeddings"]["windows"] == 2 and "perplexity" not in report
    message = failure(capsys, "perplexity", "small", "--text", text, "--length", "16")
    assert "perplexity needs a causal language model" in message


@pytest.mark.parametrize("name", ["t5", "bert"])
def test_what_models_of_other_kinds_refuse_is_known_to_a_dry_run(name, text, capsys):
    save(stacked_model(name), tiny_tokenizer(), "model")
    for options, message in (
        (["--calibration", "self"], "does not continue text"),
        (["--refit-producers"], "refit_producers=True needs a model that runs block by block"),
        *([(["--memory", "offload"], "does not run block by block")] if name == "t5" else []),
    ):
        args = ["prune", "model", *FAST, "--calibration", text, "--method", "numerical", *options]
        assert message in failure(capsys, *args, "--dry-run")
        assert message in failure(capsys, *args, "--out", "small")


def test_biases_that_a_model_already_has_cannot_be_padded(model, text, capsys):
    assert prune(model, "--out", "biased", "--method", "flap", "--no-perplexity") == 0
    for options in (["--dry-run"], ["--out", "wide"]):
        message = failure(capsys, "prune", "biased", *FAST, "--calibration", text, "--method", "numerical", "--pad", *options)
        assert "--pad cannot hold the biases that biased has" in message
    assert not Path("wide").exists()


def test_an_infinite_penalty_is_the_equality_limit_and_is_written(model, text):
    args = ["--method", "numerical", "--set", "score=newton", "--set", "penalty=inf", "--no-perplexity"]
    assert prune(model, "--out", "small", *args) == 0
    written = Path("small/gramian.json").read_text()
    assert json.loads(written, parse_constant=pytest.fail)["settings"]["options"]["penalty"] == "inf"


def test_problem_files_know_no_units(capsys):
    assert call("solve", "file", "--method", "numerical") == 2
    assert "numerical removes whole heads and channels of a model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ratio", "0.95"], r"a ratio of 0\.95 is out of reach: 0\.78\d* is the largest"),
        (["--blocks", "7:"], r"no module is left by .*blocks=slice\(7, None, None\)"),
        (["--calibration", "self", "--length", "128"], "windows of 129 tokens, a begin token included, do not fit"),
        (["--include", "up_proj"], "no module is left by include='up_proj'"),
        (["--method", "flap", "--pad"], "--pad cannot hold the biases that flap gives operators without one"),
        (["--length", "500"], "context has 128|128 positions"),
    ],
)
def test_bad_input(options, message, model, text, capsys):
    assert re.search(message, failure(capsys, "prune", model, "--out", "small", *FAST, "--calibration", text, "--method",
                                      "numerical", *options))  # fmt: skip
    assert [path.name for path in Path().iterdir()] == ["text.txt"]


def test_a_family_without_units(text, tmp_path, capsys):
    config = AutoConfig.for_model("mamba", hidden_size=16, num_hidden_layers=1, vocab_size=VOCABULARY, state_size=4)
    save(AutoModelForCausalLM.from_config(config), tiny_tokenizer(), tmp_path / "model")
    line = failure(capsys, "prune", "model", "--out", "small", *FAST, "--calibration", text, "--method", "numerical")
    assert "no units of MambaForCausalLM can be removed" in line and not (tmp_path / "small").exists()


def test_the_plan_follows_the_work():
    def planned(**options):
        of_windows = {name: options.pop(name) for name in ("heldout", "evaluated") if name in options}
        return run_estimate(
            tiny_model("llama"), (8, 64), PruneConfig(**{"method": "numerical"} | options), rates=Rates(2e9, 1e9), **of_windows
        )

    usual = planned()
    assert [each.shape for each in usual.operators] == [(32, 32), (32, 48)] * 2
    assert usual.peak == sum(usual.memory.values()) and usual.duration == sum(usual.seconds.values())
    assert planned(calibrate_on="dense").seconds["forward passes"] < usual.seconds["forward passes"]
    assert planned(method="random").seconds["solvers"] < usual.seconds["solvers"]
    assert "joint relaxation" in planned(options={"score": "box"}).seconds and "joint relaxation" not in usual.seconds
    assert "mask problems of all modules" in planned(options={"score": "newton"}).memory
    tasp, random = planned(method="tasp"), planned(method="random", include="mlp")
    assert tasp.seconds["gradients"] > 0 and "gradients" not in random.seconds and tasp.peak >= random.peak
    assert planned(refit_producers=True).seconds["forward passes"] > usual.seconds["forward passes"]
    assert (
        planned(refit_producers=True).seconds["solvers"] > usual.seconds["solvers"]
        and len(planned(blocks=slice(1)).operators) == 2
    )
    assert planned(swap_search=True).seconds["solvers"] > usual.seconds["solvers"]
    assert planned(evaluated=2).duration > usual.duration and len(planned(include="mlp").operators) == 2
    with pytest.raises(ValueError, match="out of reach"):
        planned(ratio=0.9)


def test_help_needs_no_torch_and_names_hide_no_module():
    code = "import sys; from gramian.adapters.cli.main import main\n"
    code += "try: main(['prune', '--help'])\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "False" and "--ratio" in done.stdout and "numerical" in done.stdout
    from gramian.adapters.models import shrink

    assert gramian.adapters.shrink_model is shrink.shrink_model and gramian.adapters.mask_model is shrink.mask_model
