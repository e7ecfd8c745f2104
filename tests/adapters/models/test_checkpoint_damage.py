"""Loading what is not a model, or no longer one: one line that names the file and what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny import tensors, tiny_model, tiny_tokenizer

from gramian.adapters.models import configurations, loading
from gramian.adapters.models.loading import load
from gramian.adapters.models.saving import save

pytestmark = pytest.mark.usefixtures("no_network")


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
        (configure(model_type="vit"), ValueError, "cannot be loaded as a language model"),
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
        load(saved)
    assert type(caught.value) is error and str(saved) in str(caught.value) and "\n" not in str(caught.value)


def with_report(folder: Path) -> Path:
    return save(tiny_model("llama"), tiny_tokenizer(), folder, report={"method": "none"}, overwrite=True)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_file_that_is_not_the_one_that_was_saved(saved, name, monkeypatch):
    """One byte of it, which may be sound in itself; it is known before any weights are read."""
    with_report(saved)
    content = bytearray((saved / name).read_bytes())
    content[-2] ^= 1
    (saved / name).write_bytes(content)
    monkeypatch.setattr(loading, "load_weights", lambda *arguments: pytest.fail("weights were read"))
    with pytest.raises(ValueError, match=rf"{name} is not the file that was saved.*remove '{name}' from `files`"):
        load(saved)
    if name != "model.safetensors":
        (saved / name).unlink()
        error, message = (FileNotFoundError, "no config.json") if name == "config.json" else (ValueError, f"{name} is missing")
        with pytest.raises(error, match=message):
            load(saved)


def test_a_file_changed_on_purpose(saved):
    """It loads once its line is gone, as do the reports of earlier versions, which have no `files`."""
    report = json.loads((with_report(saved) / "gramian.json").read_text())
    configure(note="mine")(saved)
    with pytest.raises(ValueError, match=r"config\.json is not the file that was saved"):
        load(saved)
    del report["files"]["config.json"]
    (saved / "gramian.json").write_text(json.dumps(report))
    assert load(saved)[0].config.note == "mine"
    del report["files"]
    (saved / "gramian.json").write_text(json.dumps(report))
    load(saved)
    (saved / "gramian.json").write_text("{")
    with pytest.raises(ValueError, match=r"gramian\.json is damaged"):
        load(saved)


@pytest.mark.parametrize(
    "name", ["/dev/zero", "/dev/null", "../elsewhere.safetensors", "weights.bin", "missing.safetensors", 3, None]
)
def test_an_index_of_other_files(saved, name):
    """They might never end, or hold what can be executed."""
    held, names = (saved / "model.safetensors").read_bytes(), list(tensors(saved))
    for path in (saved.parent / "elsewhere.safetensors", saved / "weights.bin", saved / "whole.safetensors"):
        path.write_bytes(held)
    (saved / "model.safetensors").unlink()
    homes = dict.fromkeys(names, "whole.safetensors")
    index = saved / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": homes}))
    load(saved)
    index.write_text(json.dumps({"metadata": {}, "weight_map": homes | {UP: name}}))
    with pytest.raises(ValueError, match="expected a safetensors file of this directory") as caught:
        load(saved)
    assert repr(name) in str(caught.value)


def test_overflow_of_the_storage_dtype(saved):
    rewrite(lambda held: held[NORM].fill_(1e6))(saved)
    load(saved)
    with pytest.raises(ValueError, match="NaN or Inf in float16"):
        load(saved, dtype="float16")


def test_no_model_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        load(".")
    for source in ("missing", "./missing/model", "/missing", "missing.gguf", "org/missing.gguf", "", "a b/c", "a/b/c"):
        with pytest.raises(FileNotFoundError):
            load(source)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match="not a model"):
        load("notes.txt")


def test_damaged_gguf(tmp_path):
    pytest.importorskip("gguf")
    pytest.importorskip("accelerate")
    head, one, huge = b"GGUF" + (3).to_bytes(4, "little"), (1).to_bytes(8, "little"), (2**62).to_bytes(8, "little")
    for data in (
        b"", b"GGUF", b"nonsense" * 100, head + b"\xff" * 100, head + huge + one + b"\0" * 100, head + one + huge + b"\0" * 100,
        head + one + one + huge + b"a" * 100, head + huge + huge, head + one + one,
    ):  # fmt: skip
        (tmp_path / "model.gguf").write_bytes(data)
        with pytest.raises(ValueError, match=r"model\.gguf cannot be loaded") as caught:
            load(tmp_path / "model.gguf")
        assert "\n" not in str(caught.value)


def test_unreachable_hub(monkeypatch):
    def unreachable(*arguments, **options):
        raise OSError("We couldn't connect to the hub\nand more lines")

    monkeypatch.setattr(configurations.AutoConfig, "from_pretrained", unreachable)
    with pytest.raises(OSError, match=r"org/name cannot be loaded .*couldn't connect to the hub and more lines$"):
        load("org/name")


@pytest.mark.parametrize("option", [{"dtype": "int8"}, {"device": "abacus"}])
def test_bad_options(saved, option):
    with pytest.raises(ValueError, match=next(iter(option.values()))):
        load(saved, **option)
