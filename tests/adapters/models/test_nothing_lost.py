"""What stands beside a model's weights is saved with it, in memory and streamed: settings, modules of encoders, licences."""

from __future__ import annotations

import copy
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from stacked_models import stacked_model
from tiny import WINDOWS, parameters, run, same, tiny_model, tiny_tokenizer
from transformers import AutoModelForCausalLM, GenerationConfig

from gramian.adapters import load, prune, save
from gramian.adapters.models import loading, origins, side_files
from gramian.adapters.models.places import Place

pytestmark = pytest.mark.usefixtures("no_network")
TEXTS = {
    "README.md": "# A model card\n",
    "LICENSE": "Permission is granted.\n",
    "preprocessor_config.json": '{"image_mean": [0.5]}',
    "processor_config.json": '{"processor_class": "Own"}',
    "chat_template.json": '{"chat_template": "{{ messages }}"}',
    "notes/plan.txt": "not at the top",
    "vocab.extra": "one\ntwo\n",
}
GREEDY = {"temperature": 0.9, "top_p": 0.6, "do_sample": False, "bos_token_id": 256, "eos_token_id": 257, "own_key": [1, 2]}
REFUSED = [
    GREEDY,
    {"pad_token_id": -1},
    {"early_stopping": True, "length_penalty": 2.0},
    {"output_scores": True},
    {"num_beam_groups": 2, "diversity_penalty": 0.5},
]


def through_memory(folder: Path, out: Path) -> Path:
    model, tokenizer = load(folder)
    report = run(model, method="wanda")
    return save(model, tokenizer, out, report=report)


def through_stream(folder: Path, out: Path) -> Path:
    prune(folder, WINDOWS, "wanda", out=out, progress=False)
    return out


WAYS = pytest.mark.parametrize("way", [through_memory, through_stream])


@WAYS
@pytest.mark.parametrize("settings", REFUSED, ids=lambda settings: next(iter(settings)))
def test_settings_for_generating_text_stay_as_they_are_on_disk(way, settings, saved, tmp_path):
    """To the byte, though the library would not write them."""
    text = json.dumps(settings)
    (saved / "generation_config.json").write_text(text)
    assert (way(saved, tmp_path / "out") / "generation_config.json").read_text() == text
    load(tmp_path / "out")


def test_a_greedy_model_remains_one(saved, tmp_path):
    (saved / "generation_config.json").write_text(json.dumps(GREEDY))
    stock = AutoModelForCausalLM.from_pretrained(through_memory(saved, tmp_path / "out"))
    ids, mask = torch.arange(6)[None], torch.ones(1, 6)
    texts = set()
    for seed in range(3):
        torch.manual_seed(seed)
        texts.add(tuple(stock.generate(ids, attention_mask=mask, max_new_tokens=5, pad_token_id=257)[0].tolist()))
    assert len(texts) == 1


def test_settings_that_were_changed_since_are_those_of_the_model(saved, tmp_path):
    (saved / "generation_config.json").write_text(json.dumps(GREEDY))
    model, tokenizer = load(saved)
    model.generation_config.max_new_tokens = 7
    said = json.loads((save(model, tokenizer, tmp_path / "out") / "generation_config.json").read_text())
    assert {key: said[key] for key in GREEDY} == GREEDY and said["max_new_tokens"] == 7


def test_settings_of_a_model_that_was_never_on_disk(tmp_path):
    model = tiny_model("llama")
    model.generation_config = GenerationConfig(temperature=0.5, do_sample=False, pad_token_id=-1)
    said = json.loads((save(model, None, tmp_path / "out") / "generation_config.json").read_text())
    assert (said["temperature"], said["do_sample"], said["pad_token_id"]) == (0.5, False, -1)
    assert model.generation_config.pad_token_id == -1 and type(model.generation_config) is GenerationConfig


@WAYS
def test_a_padding_token_of_minus_one_in_the_configuration(way, saved, tmp_path):
    config = json.loads((saved / "config.json").read_text()) | {"pad_token_id": -1}
    (saved / "config.json").write_text(json.dumps(config))
    (saved / "generation_config.json").unlink()
    assert json.loads((way(saved, tmp_path / "out") / "config.json").read_text())["pad_token_id"] == -1
    load(tmp_path / "out")


def write_beside(folder: Path) -> None:
    for name, text in TEXTS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


@WAYS
def test_files_beside_the_weights(way, saved, tmp_path):
    write_beside(saved)
    out = way(saved, tmp_path / "out")
    for name, text in TEXTS.items():
        assert (out / name).exists() == ("/" not in name) and ("/" in name or (out / name).read_text() == text), name
    files = json.loads((out / "gramian.json").read_text())["files"]
    assert {name for name in TEXTS if "/" not in name} <= files.keys()
    load(out)


def sentence_encoder(folder: Path) -> Path:
    """As sentence-transformers lays one out, with a layer of its own after pooling."""
    save(stacked_model("bert"), tiny_tokenizer(), folder)
    modules = [
        ("", "Transformer"),
        ("1_Pooling", "Pooling"),
        ("2_Dense", "Dense"),
        ("3_Normalize", "Normalize"),
        ("../up", "Own"),
    ]
    paths = [{"idx": i, "name": str(i), "path": path, "type": f"models.{kind}"} for i, (path, kind) in enumerate(modules)]
    for name, content in (
        ("modules.json", paths),
        ("sentence_bert_config.json", {"max_seq_length": 32}),
        ("config_sentence_transformers.json", {"similarity_fn_name": "dot"}),
        ("1_Pooling/config.json", {"pooling_mode_cls_token": True}),
        ("2_Dense/config.json", {"in_features": 32}),
        ("3_Normalize/config.json", {}),
        ("../up/config.json", {"secret": True}),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    save_file({"linear.weight": torch.ones(4, 32)}, folder / "2_Dense" / "model.safetensors")
    return folder


@pytest.mark.parametrize("pad", [False, True])
def test_modules_of_a_sentence_encoder(pad, tmp_path):
    folder = sentence_encoder(tmp_path / "encoder")
    model, tokenizer = load(folder)
    report = prune(model, WINDOWS, "random", ratio=0.1, progress=False)
    out = save(model, tokenizer, tmp_path / "out", report=report, pad=pad)
    beside = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    changed = {"config.json", "model.safetensors", "tokenizer_config.json"}  # written anew
    lost = [path for path in beside if str(path) not in changed and (out / path).read_bytes() != (folder / path).read_bytes()]
    assert len(beside) > 8 and not lost
    assert not (tmp_path / "out" / ".." / "out" / "up").exists()


@WAYS
def test_what_can_execute_and_what_leads_out_is_never_copied(way, saved, tmp_path, caplog):
    (tmp_path / "secret.txt").write_text("secret")
    os.symlink(tmp_path / "secret.txt", saved / "link.txt")
    os.symlink(saved / "config.json", saved / "inside.txt")
    (saved / "modeling_own.py").write_text("print('here')")
    (saved / "table.dat").write_bytes(pickle.dumps({"a": 1}, protocol=4))
    (saved / "run").write_text("#!/bin/sh\n")
    (saved / "own.bin").write_bytes(b"numbers")
    (saved / ".hidden").write_text("x")
    torch.save({"a": torch.ones(2)}, saved / "pytorch_model.bin")
    out = way(saved, tmp_path / "out")
    named = ("link.txt", "modeling_own.py", "table.dat", "run", "own.bin")
    assert not any((out / name).exists() for name in (*named, ".hidden", "pytorch_model.bin"))
    assert all(f"{name} (" in caplog.text for name in named) and "pytorch_model" not in caplog.text
    assert (out / "inside.txt").read_bytes() == (saved / "config.json").read_bytes()


def test_what_is_too_large_is_named(saved, tmp_path, monkeypatch, caplog):
    (saved / "README.md").write_text("short")
    (saved / "book.txt").write_text("long" * 100)
    monkeypatch.setattr(side_files, "LARGEST", 300)
    out = through_memory(saved, tmp_path / "out")
    assert (out / "README.md").exists() and not (out / "book.txt").exists() and "book.txt (too large" in caplog.text


def test_the_hub_s_cache_keeps_files_in_a_store_of_its_own(saved, tmp_path):
    store, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "1234"
    store.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    write_beside(saved)
    for path in [path for path in saved.iterdir() if path.is_file()]:
        path.rename(store / path.name)
        os.symlink(f"../../blobs/{path.name}", snapshot / path.name)
    assert (through_memory(snapshot, tmp_path / "out") / "README.md").read_text() == TEXTS["README.md"]


def test_what_stands_beside_a_model_of_the_hub(saved, tmp_path, monkeypatch, caplog):
    """Its cache has a copy; without one the model is loaded all the same, and it is said."""
    write_beside(saved)
    monkeypatch.setattr(loading, "locate", lambda source: Place(str(saved), None, False))
    monkeypatch.setattr(origins, "snapshot_download", lambda name, allow_patterns: str(saved))
    model, tokenizer = load("org/name")
    assert (save(model, tokenizer, tmp_path / "out") / "README.md").read_text() == TEXTS["README.md"]

    def unreachable(name, allow_patterns):
        raise OSError("no route")

    monkeypatch.setattr(origins, "snapshot_download", unreachable)
    model, tokenizer = load("org/name")
    assert "cannot be read, and is not saved with it: no route" in caplog.text
    assert not (save(model, tokenizer, tmp_path / "other") / "README.md").exists()


def test_copies_of_a_model_remember_where_it_came_from(saved, tmp_path):
    write_beside(saved)
    model, tokenizer = load(saved)
    out = save(copy.deepcopy(model), tokenizer, tmp_path / "out")
    assert (out / "LICENSE").read_text() == TEXTS["LICENSE"] and same(parameters(load(out)[0]), parameters(model))


def test_a_source_that_is_gone_is_said(saved, tmp_path, caplog):
    model, tokenizer = load(saved)
    saved.rename(tmp_path / "elsewhere")
    save(model, tokenizer, tmp_path / "out")
    assert f"{saved} is gone" in caplog.text


def test_a_model_replaces_the_one_that_it_came_from(saved):
    write_beside(saved)
    model, tokenizer = load(saved)
    save(model, tokenizer, saved, overwrite=True)
    assert (saved / "README.md").read_text() == TEXTS["README.md"]
