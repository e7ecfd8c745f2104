"""Tensors that a model has no place for: refused by name, in memory and streamed alike, unless they hold nothing that was
learnt; and what stock transformers loads is loaded."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from stacked_models import stacked_model
from tiny import WINDOWS, parameters, same, tensors, tiny_model, tiny_tokenizer
from transformers import AutoModel, AutoModelForCausalLM, LlamaModel

from gramian.adapters import load, prune, save
from gramian.adapters.run.streaming import open_checkpoint

pytestmark = pytest.mark.usefixtures("no_network")
LAYER = "model.layers.1"
UP = f"{LAYER}.mlp.up_proj.weight"
OPENED = pytest.mark.parametrize("opened", [load, open_checkpoint])
Tensors = dict[str, torch.Tensor]


def changed(folder: Path, change: Callable[[Tensors], object]) -> Path:
    held = tensors(folder)
    change(held)
    save_file(held, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def configured(folder: Path, **values: object) -> Path:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))
    return folder


def biased(held: Tensors) -> None:
    held.update({f"{LAYER}.self_attn.{name}_proj.bias": torch.ones(32 if name in "qo" else 16) for name in "qkvo"})


def scaled(suffix: str, kind: torch.dtype = torch.float32) -> Callable[[Tensors], object]:
    return lambda held: held.update({f"{LAYER}.mlp.up_proj.{suffix}": torch.ones(1).to(kind)})


def beyond(held: Tensors) -> None:
    held.update({name.replace("layers.1.", "layers.7."): each.clone() for name, each in held.items() if "layers.1." in name})


@OPENED
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (biased, rf"{LAYER}\.self_attn\.k_proj\.bias.* and 1 more .* states no such biases .*attention_bias"),
        (lambda held: held.update({f"{LAYER}.mlp.down_proj.bias": torch.ones(32)}), r"down_proj\.bias.*mlp_bias"),
        (scaled("weight_scale"), r"up_proj\.weight_scale are scales .* dequantise"),
        (scaled("weight_scale_inv"), r"up_proj\.weight_scale_inv are scales"),
        (scaled("SCB"), r"up_proj\.SCB are scales"),
        (scaled("qweight", torch.int32), r"up_proj\.qweight are scales"),
        (lambda held: held.update({UP: held[UP].to(torch.float8_e4m3fn)}), r"up_proj\.weight is F8_E4M3 .* dequantise"),
        (lambda held: held.update({UP: held[UP].to(torch.int8)}), r"up_proj\.weight is I8 .* dequantise"),
        (beyond, r"model\.layers\.7\.input_layernorm\.weight.* and 6 more"),
        (
            lambda held: held.update({f"{LAYER}.mlp.up_proj.lora_A.default.weight": torch.ones(2, 32)}),
            "adapters.*merge_and_unload",
        ),
        (lambda held: held.update({"score.weight": torch.ones(2, 32)}), r"score\.weight are weights of no module of Llama"),
        (
            lambda held: held.update({"vision.patch.weight": torch.ones(2, 32)}),
            r"vision\.patch\.weight are weights of no module",
        ),
    ],
)
def test_what_would_be_lost_is_refused_by_name(opened, change, message, saved):
    with pytest.raises(ValueError, match=message) as caught:
        opened(changed(saved, change))
    assert str(saved) in str(caught.value) and "\n" not in str(caught.value)


@OPENED
@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "LLaMAForCausalLM", "LlamaModel"])
def test_buffers_that_are_computed_anew_are_no_loss(opened, architecture, saved):
    configured(saved, architectures=[architecture])
    before = parameters(load(saved)[0])
    changed(
        saved,
        lambda held: held.update({
            f"{LAYER}.self_attn.rotary_emb.inv_freq": torch.ones(4),
            f"{LAYER}.self_attn.rotary_emb.cos_cached": torch.ones(1, 1, 8, 8),
            f"{LAYER}.self_attn.bias": torch.ones(1, 1, 8, 8, dtype=torch.bool),
            f"{LAYER}.self_attn.masked_bias": torch.tensor(-1e4),
            "model.position_ids": torch.arange(8)[None],
        }),
    )  # fmt: skip
    opened(saved)
    assert same(parameters(load(saved)[0]), before)


@OPENED
def test_a_bias_that_looks_like_a_mask_by_its_name_only(opened, saved):
    with pytest.raises(ValueError, match=r"self_attn\.bias are weights of no module"):
        opened(changed(saved, lambda held: held.update({f"{LAYER}.self_attn.bias": torch.ones(32)})))


@OPENED
def test_masks_of_gpt2_without_the_prefix_of_its_class(opened, tmp_path):
    save(tiny_model("gpt2"), tiny_tokenizer(), tmp_path / "gpt2")
    plain = {name.removeprefix("transformer."): each for name, each in tensors(tmp_path / "gpt2").items()}
    masks = {f"h.{number}.attn.{name}": mask for number in (0, 1) for name, mask in (
        ("bias", torch.ones(1, 1, 9, 9, dtype=torch.uint8)), ("masked_bias", torch.tensor(-1e4)),
    )}  # fmt: skip
    save_file(plain | masks, tmp_path / "gpt2" / "model.safetensors", metadata={"format": "pt"})
    opened(configured(tmp_path / "gpt2", architectures=["GPT2Model"]))


@OPENED
def test_what_the_class_does_without_is_said(opened, saved, caplog, monkeypatch):
    """Its own list of needless tensors, such as a block that predicts several tokens ahead: dropped, and not in silence."""
    monkeypatch.setattr(LlamaModel, "_keys_to_ignore_on_load_unexpected", [r"^mtp\."])
    changed(saved, lambda held: held.update({"mtp.up.weight": torch.ones(2, 2)}))
    with caplog.at_level(logging.WARNING, "gramian"):
        opened(saved)
    assert "does without mtp.up.weight" in caplog.text


def test_a_base_model_has_no_head(tmp_path):
    tiny_model("llama").model.save_pretrained(tmp_path / "base")
    with pytest.raises(ValueError, match=r"weights are missing: lm_head\.weight \(it was saved as LlamaModel"):
        load(tmp_path / "base")


def test_an_encoder_without_its_pooler(tmp_path, caplog):
    """As training on masked tokens leaves it."""
    folder = save(stacked_model("bert"), tiny_tokenizer(), tmp_path / "bert")
    changed(folder, lambda held: [held.pop(f"pooler.dense.{leaf}") for leaf in ("weight", "bias")])
    model, tokenizer = load(folder)
    assert model.pooler is None and "no pooler" in caplog.text
    report = prune(model, WINDOWS, "numerical", ratio=0.1, progress=False)
    out = save(model, tokenizer, tmp_path / "out", report=report)
    assert not [name for name in tensors(out) if "pooler" in name] and load(out)[0].pooler is None
    padded = save(model, tokenizer, tmp_path / "padded", pad=True)
    stock = AutoModel.from_pretrained(padded, add_pooling_layer=False).eval()
    with torch.no_grad():
        expected = model(input_ids=WINDOWS[:2]).last_hidden_state
        torch.testing.assert_close(stock(input_ids=WINDOWS[:2]).last_hidden_state, expected, rtol=1e-4, atol=1e-4)


def shards(folder: Path, variant: str | None = None) -> Path:
    model = tiny_model("llama")
    model.save_pretrained(folder, max_shard_size="20KB", variant=variant)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def stored(folder: Path) -> Tensors:
    return {name: each for file in folder.glob("*.safetensors") for name, each in load_file(file).items()}


@pytest.mark.parametrize("sharded", [False, True])
def test_weights_in_a_variant_only(sharded, tmp_path):
    folder = tmp_path / "model"
    if sharded:
        shards(folder, "fp16")
    else:
        tiny_model("llama").save_pretrained(folder, variant="fp16")
    assert not list(folder.glob("model.safetensors*json")) or (folder / "model.safetensors.index.fp16.json").exists()
    model, _ = load(folder)
    assert same(parameters(model), parameters(tiny_model("llama")))
    out = save(model, None, tmp_path / "out")
    assert {path.name for path in out.glob("model*")} == {"model.safetensors"}
    prune(folder, WINDOWS, "magnitude", out=tmp_path / "streamed", progress=False)
    assert stored(tmp_path / "streamed").keys() == stored(folder).keys()
    AutoModelForCausalLM.from_pretrained(tmp_path / "streamed")


def test_several_variants_are_not_chosen_between(tmp_path):
    for variant in ("fp16", "bf16"):
        tiny_model("llama").save_pretrained(tmp_path, variant=variant)
    with pytest.raises(ValueError, match=r"in the variants bf16, fp16: name those to be read model\.safetensors"):
        load(tmp_path)
    save_file(tiny_model("llama").state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    load(tmp_path)


@OPENED
@pytest.mark.parametrize("metadata", [{}, {"metadata": None}])
def test_an_index_without_metadata(opened, metadata, tmp_path):
    index = shards(tmp_path / "model") / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": json.loads(index.read_text())["weight_map"], **metadata}))
    before = index.read_text()
    opened(tmp_path / "model")
    assert index.read_text() == before
    model, _ = load(tmp_path / "model")
    assert same(parameters(model), parameters(tiny_model("llama"))) and model.name_or_path == str(tmp_path / "model")


def test_adapters_are_no_model(saved, tmp_path):
    adapters = {"base_model_name_or_path": "org/base", "peft_type": "LORA"}
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(adapters))
    save_file({"a.lora_A.weight": torch.ones(2, 2)}, tmp_path / "lora" / "adapter_model.safetensors")
    for opened in (load, open_checkpoint):
        with pytest.raises(ValueError, match=r"lora holds adapters of PEFT .* not here, org/base: .*merge_and_unload"):
            opened(tmp_path / "lora")
    (saved / "adapter_config.json").write_text("{")
    for opened in (load, open_checkpoint):
        with pytest.raises(ValueError, match=r"holds a model and adapters of PEFT that change it .*remove the adapter's files"):
            opened(saved)


def test_a_tokeniser_whose_library_is_missing(saved, monkeypatch):
    from gramian.adapters.models import tokenizers

    (saved / "tokenizer.json").unlink()
    (saved / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>")
    monkeypatch.setattr(tokenizers, "installed", lambda module: module != "sentencepiece")
    for opened in (load, open_checkpoint):
        with pytest.raises(ImportError, match=r"tokenizer\.model is a tokeniser of SentencePiece.*pip install sentencepiece$"):
            opened(saved)
    monkeypatch.setattr(tokenizers, "installed", lambda module: False)
    with pytest.raises(ImportError, match="sentencepiece and protobuf are not installed"):
        load(saved)
