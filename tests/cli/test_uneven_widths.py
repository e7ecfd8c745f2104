"""Widths that differ by layer, from the command to processes that know nothing of this package, and back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command_line import FAST, TEXT, call
from found_models import FOUND, found_model
from safetensors.torch import load_file, save_file
from stacked_models import stacked_model
from tiny import FAMILIES, tiny_model, tiny_tokenizer
from transformers import PreTrainedModel, Trainer, TrainingArguments

from gramian.adapters import load, save
from gramian.adapters.models import modeling_gramian
from gramian.adapters.models.own_classes import CODE

IDS = torch.arange(40).view(2, 20) * 7 % 256
PROGRAM = Path(__file__).parents[1] / "support" / "without_gramian.py"
OTHERS = ["phi3", "gpt_neox", "bloom", "falcon, grouped", "bart"]


def answer(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        found = model(input_ids=IDS, **({"decoder_input_ids": IDS} if model.config.is_encoder_decoder else {}))
    return found.logits if hasattr(found, "logits") else found.last_hidden_state


def made(name: str) -> PreTrainedModel:
    """A tiny model of a family."""
    if name in FAMILIES:
        return tiny_model(name)
    return stacked_model(name) if name in ("t5", "bert") else found_model(*FOUND[name][:2])


def smaller(name: str, folder: Path, *options: str) -> Path:
    """What the command makes of a tiny model, whose widths then differ by layer."""
    source = save(made(name), tiny_tokenizer(), folder / f"{name} source")
    (folder / "text.txt").write_text(TEXT)
    out = folder / name.replace(", ", "-")
    assert call("prune", source, "--out", out, *FAST, "--calibration", folder / "text.txt", "--method", "magnitude-l1",
                "--ratio", "0.3", "--allocation", "score", "--no-perplexity", *options) == 0  # fmt: skip
    assert (out / CODE).read_bytes() == Path(modeling_gramian.__file__).read_bytes()
    model, _ = load(out)
    save_file({"ids": IDS, "answer": answer(model)}, folder / f"{out.name}-expected.safetensors")
    return out


def elsewhere(folders: list[Path], place: Path) -> None:
    """Run everything in a process without this package."""
    settings = {**os.environ, "HF_MODULES_CACHE": str(place / "modules"), "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, PROGRAM, *folders], env=settings, cwd=place, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr[-3000:]


def check_families(names: list[str], tmp_path: Path) -> None:
    folders = [smaller(name, tmp_path) for name in names]
    elsewhere(folders, tmp_path)
    for folder in folders:
        again = folder.with_name(f"{folder.name}-again")
        assert answer(load(again)[0]).equal(load_file(folder.with_name(f"{folder.name}-expected.safetensors"))["answer"])
        checkpoint = folder.with_name(f"{folder.name}-checkpoint")
        if checkpoint.exists():
            expected = load_file(folder.with_name(f"{checkpoint.name}-expected.safetensors"))["answer"]
            assert answer(load(checkpoint)[0]).equal(expected)


def test_any_process_loads_trains_and_saves_them(tmp_path):
    check_families(["llama", "opt"], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*(name for name in FAMILIES if name not in ("llama", "opt")), *OTHERS, "t5", "bert"])
def test_any_process_loads_trains_and_saves_other_families(name, tmp_path):
    check_families([name], tmp_path)


def test_a_model_trained_here_is_saved_with_its_widths(tmp_path):
    """By Trainer, of a model that was loaded, in a process that may run no code of the model's."""
    out = smaller("llama", tmp_path)
    (out / "gramian.json").unlink()  # which knows the code as it was
    (out / CODE).write_text("raise SystemExit")
    model, _ = load(out)
    settings = TrainingArguments(
        str(tmp_path / "trained"), max_steps=1, report_to=[], use_cpu=True, disable_tqdm=True, learning_rate=0.1, save_steps=1
    )
    model.requires_grad_(True)
    Trainer(model, settings, train_dataset=[{"input_ids": row, "labels": row} for row in IDS]).train()
    checkpoint = tmp_path / "trained" / "checkpoint-1"
    assert (checkpoint / CODE).read_bytes() == Path(modeling_gramian.__file__).read_bytes()
    document = json.loads((checkpoint / "config.json").read_text())
    assert document["per_layer_config"] == json.loads((out / "config.json").read_text())["per_layer_config"]
    loaded, _ = load(checkpoint)
    assert answer(loaded).equal(answer(model.eval())) and not answer(loaded).equal(answer(load(out)[0]))


def test_streamed_models_have_the_same_form(tmp_path):
    in_memory = smaller("llama", tmp_path)
    source = tmp_path / "llama source"
    options = [*FAST, "--calibration", tmp_path / "text.txt", "--method", "magnitude-l1", "--ratio", "0.3"]
    options += ["--allocation", "score"]
    assert call("prune", source, "--out", tmp_path / "streamed", *options, "--memory", "stream") == 0
    for name in ("config.json", CODE):
        assert (tmp_path / "streamed" / name).read_bytes() == (in_memory / name).read_bytes()
    options = [*FAST, "--calibration", tmp_path / "text.txt", "--method", "magnitude", "--sparsity", "0.5"]
    assert call("prune", in_memory, "--out", tmp_path / "zeros", *options, "--memory", "stream") == 0  # and can be streamed
    for name in ("config.json", CODE):
        assert (tmp_path / "zeros" / name).read_bytes() == (in_memory / name).read_bytes()
    assert call("prune", in_memory, "--out", tmp_path / "zeros in memory", *options, "--no-perplexity") == 0
    assert answer(load(tmp_path / "zeros")[0]).equal(answer(load(tmp_path / "zeros in memory")[0]))
