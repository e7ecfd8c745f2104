"""What `gramian.speed` counts, exactly; how fast anything is, no test asks."""

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from expert_models import expert_model
from safetensors.torch import load_file
from stacked_models import stacked_model
from tiny import tiny_model

import gramian
from gramian.adapters.evaluation import speed_child, speeds
from gramian.adapters.evaluation.costs import Speed

QUICK: dict[str, Any] = {"batch": [1, 2], "length": [4, 6], "tokens": 2, "repeats": 2, "progress": False}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    names = {"llama": tiny_model("llama"), "tied": tiny_model("qwen2"), "mixture": expert_model("mixtral")}
    return {name: gramian.save(model, None, folder / name) for name, model in names.items()}


def test_two_models_in_turn(folders):
    found = gramian.speed(folders["llama"], folders["tied"], **QUICK)
    assert isinstance(found, Speed) and [each.model for each in found.models] == [str(folders["llama"]), str(folders["tied"])]
    for each, name in zip(found.models, ("llama", "tied")):
        weights = load_file(folders[name] / "model.safetensors")
        assert each.parameters == each.active == sum(weight.numel() for weight in weights.values())
        assert each.bytes_on_disk == (folders[name] / "model.safetensors").stat().st_size
        assert each.load_seconds > 0
        if each.loaded_bytes is not None and each.peak_bytes is not None:  # a process with torch in it
            assert 2**26 < each.loaded_bytes <= each.peak_bytes < 2**33
    cells = [(rate.phase, rate.batch, rate.length) for rate in found.rates]
    assert cells == [(phase, batch, length) for phase in ("prefill", "decode") for batch in (1, 2) for length in (4, 6)]
    for rate in found.rates:
        made = rate.batch * (rate.length if rate.phase == "prefill" else 2)
        ours, theirs = (made / np.array(seconds) for seconds in rate.seconds)
        assert len(ours) == 2 and rate.model.value == pytest.approx(np.median(ours))
        assert rate.against.low == pytest.approx(np.quantile(theirs, 0.25))
        assert rate.ratio.high == pytest.approx(np.quantile(ours / theirs, 0.75))
    assert found.settings["threads"] == torch.get_num_threads() and found.settings["device"] == "cpu"
    assert json.loads(json.dumps(found.as_dict()))["rates"][0]["phase"] == "prefill"
    assert "2 runs in turn" in str(found) and found._repr_html_().count("<table>") == 2 and repr(found).startswith("Speed(")


def test_a_mixture_has_parameters_that_a_token_does_not_meet(folders):
    """In this process, which the child's functions do not notice."""
    _, said = speed_child.loaded({"model": str(folders["mixture"]), "dtype": "auto", "device": "cpu", "threads": 1})
    weights = load_file(folders["mixture"] / "model.safetensors")
    experts = sum(weight.numel() for name, weight in weights.items() if "experts" in name)
    whole = sum(weight.numel() for weight in weights.values())
    assert said["parameters"] == whole and said["active"] == whole - experts // 2  # 2 of 4


@pytest.mark.parametrize(("name", "phases"), [("t5", ["prefill", "decode"]), ("bert", ["prefill"])])
def test_models_that_are_no_causal_ones(name, phases, tmp_path):
    folder = gramian.save(stacked_model(name), None, tmp_path / name)
    model, said = speed_child.loaded({"model": str(folder), "dtype": "auto", "device": "cpu", "threads": 1})
    run = speed_child.timed(model, {"batch": 2, "length": 5, "tokens": 3, "seed": 0, "vocabulary": said["vocabulary"]})
    rates = [rate for phase in ("prefill", "decode") for rate in speeds.rates_of(phase, (2, 5), [[run]], 3)]
    assert [rate.phase for rate in rates] == phases


def test_bytes_of_a_model_in_several_files(folders, tmp_path):
    model, _ = gramian.load(folders["llama"])
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    parts = list(tmp_path.glob("*.safetensors"))
    assert len(parts) > 2 and speed_child.weight_bytes(str(tmp_path), model) == sum(part.stat().st_size for part in parts)


def test_refusals(folders, tmp_path):
    short: Any = SimpleNamespace(source="model", said={"kind": "causal", "context": 128})
    speeds.check_lengths([short], 126, 2)
    with pytest.raises(
        ValueError, match="prompts of 127 tokens and 2 more are longer than the context of model, which has 128"
    ):
        speeds.check_lengths([short], 127, 2)
    with pytest.raises(ValueError, match=r"batch is \[1, 0\], expected whole numbers of at least 1"):
        gramian.speed(folders["llama"], **QUICK | {"batch": [1, 0]})
    with pytest.raises(FileNotFoundError, match="no model"):
        gramian.speed(tmp_path / "missing", **QUICK)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text((folders["llama"] / "config.json").read_text())
    (broken / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="broken"):  # what `load` says there, not that the process has ended
        gramian.speed(broken, **QUICK)


def test_a_process_that_has_ended_is_named(folders, monkeypatch):
    monkeypatch.setattr(speeds, "CHILD", "gramian.adapters.nothing")
    with pytest.raises(
        RuntimeError, match=r"the process that ran .*llama has ended with the code 1, perhaps for lack of memory"
    ):
        gramian.speed(folders["llama"], **QUICK)
