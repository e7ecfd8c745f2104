"""Operators A S B, from the command to processes that know nothing of this package, and back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command_line import FAST, TEXT, call, failure
from safetensors.torch import load_file, save_file
from tiny import tiny_model, tiny_tokenizer

from gramian.adapters import load, save
from gramian.adapters.models import modeling_gramian
from gramian.adapters.models.own_classes import CODE

IDS = torch.arange(40).view(2, 20) * 7 % 256
PROGRAM = Path(__file__).parents[1] / "support" / "without_gramian.py"
ARMOR = ["--method", "armor", "--sparsity", "2:4", "--target", "own", "--damping", "0.01"]
ARMOR += ["--set", "block=8", "--set", "sweeps=1", "--set", "warm_start=sparsegpt"]


@torch.no_grad()
def answer(model) -> torch.Tensor:
    return model(input_ids=IDS).logits


def wrapped(name: str, folder: Path) -> Path:
    """What the command makes of a tiny model, and what it answers."""
    source = save(tiny_model(name), tiny_tokenizer(), folder / f"{name} source")
    (folder / "text.txt").write_text(TEXT)
    out = folder / name
    assert call("prune", source, "--out", out, *FAST, "--calibration", folder / "text.txt", *ARMOR, "--set", "save=wrapped",
                "--no-perplexity") == 0  # fmt: skip
    assert (out / CODE).read_bytes() == Path(modeling_gramian.__file__).read_bytes()
    save_file({"ids": IDS, "answer": answer(load(out)[0])}, folder / f"{name}-expected.safetensors")
    return out


@pytest.mark.parametrize(
    "names", [["llama", "opt", "gemma3_text"], pytest.param(["mistral", "qwen2", "qwen3", "gpt2"], marks=pytest.mark.slow)]
)
def test_any_process_loads_generates_trains_and_saves_them(names, tmp_path):
    """Without this package, to the bit; without trust the library says that it needs it."""
    folders = [wrapped(name, tmp_path) for name in names]
    settings = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, PROGRAM, *folders], env=settings, cwd=tmp_path, capture_output=True, text=True,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for folder in folders:
        for kind in ("again", "checkpoint"):
            other = folder.with_name(f"{folder.name}-{kind}")
            expected = load_file(folder.with_name(f"{folder.name if kind == 'again' else other.name}-expected.safetensors"))
            assert answer(load(other)[0]).equal(expected["answer"])
            stated = json.loads((other / "config.json").read_text())["wrapped_operators"]
            assert stated == json.loads((folder / "config.json").read_text())["wrapped_operators"]


def test_no_code_of_a_directory_is_run_and_what_stands_there_is_found_out(tmp_path):
    out = wrapped("llama", tmp_path)
    expected = load_file(tmp_path / "llama-expected.safetensors")["answer"]
    (out / CODE).write_text("raise SystemExit")
    with pytest.raises(ValueError, match=r"modeling_gramian\.py"):  # changed since it was saved
        load(out)
    (out / "gramian.json").unlink()
    model, _ = load(out)
    assert answer(model).equal(expected)
    again = save(model, None, tmp_path / "again")
    assert (again / CODE).read_bytes() == Path(modeling_gramian.__file__).read_bytes()


def test_refused_before_any_work(tmp_path, capsys):
    """Another pruning of products, streaming, a form that is none, the other kind of method."""
    out = wrapped("llama", tmp_path)
    source, common = tmp_path / "llama source", [*FAST, "--calibration", tmp_path / "text.txt", "--out", tmp_path / "no"]
    for arguments, message in (
        (["prune", out, *common, "--method", "wanda"], "is a product A S B, of which no single matrix can be pruned"),
        (["prune", out, *common, "--method", "wanda", "--memory", "stream"], "is a product A S B"),
        (["prune", out, *common, "--method", "numerical"], "is a product A S B"),
        (["prune", source, *common, *ARMOR, "--set", "save=wrapped", "--memory", "stream"], "run it without streaming"),
    ):
        assert message in failure(capsys, *arguments)
        assert not (tmp_path / "no").exists() and not (tmp_path / "no.journal").exists()
    assert call("prune", source, *common, *ARMOR, "--set", "save=sparse") == 2
    assert "save must be one of dense, wrapped but is 'sparse'" in capsys.readouterr().err
