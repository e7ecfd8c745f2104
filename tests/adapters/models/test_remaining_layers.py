"""Models from which whole blocks were deleted by hand are saved with a configuration that fits them, or refused."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from tiny import WINDOWS, run, tiny_model
from torch import nn
from transformers import AlbertConfig, AlbertModel, AutoModelForCausalLM

from gramian.adapters import load, save


@pytest.mark.parametrize(
    ("name", "changed"),
    [("llama", {}), ("qwen2", {"layer_types": ["full_attention"] * 4}), ("gpt2", {}), ("opt", {})],
)
def test_blocks_deleted_by_hand(name, changed, tmp_path):
    """The configuration that is saved states the blocks that remain, and stock classes compute what the model computes."""
    model = deepened(name, 4, **changed)
    blocks = next(module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == 4)
    del blocks[1]
    for number, block in enumerate(blocks):
        for module in block.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = number + (number > 0)  # as they were built
    stated = model.config.to_dict()
    out = save(model, None, tmp_path / "out")
    assert model.config.to_dict() == stated | {"architectures": model.config.architectures}
    stock = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    assert stock.config.num_hidden_layers == 3
    with torch.no_grad():
        assert stock(input_ids=WINDOWS[:2], use_cache=False).logits.equal(model(input_ids=WINDOWS[:2], use_cache=False).logits)
    load(out)
    run(model, method="wanda")
    model.config.num_hidden_layers = 3  # whoever states it by hand finds the rest stated
    save(model, None, tmp_path / "stated")


def deepened(name: str, layers: int, **changed: object):
    config = copy.deepcopy(tiny_model(name).config)
    if getattr(config, "layer_types", None):
        config.layer_types = [*config.layer_types, *config.layer_types][:layers]
    for key, value in changed.items():
        setattr(config, key, value)
    config.num_hidden_layers = layers
    config.architectures = None
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def test_blocks_of_several_kinds_deleted_by_hand(tmp_path):
    """Which kinds remain is no guess where the first ones are of the same; else it is refused, and both lists are named."""
    kinds = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
    model = deepened("gemma3_text", 4, layer_types=kinds)
    del model.model.layers[3]
    said = json.loads((save(model, None, tmp_path / "out") / "config.json").read_text())
    assert said["layer_types"] == kinds[:3]
    with torch.no_grad():
        stock = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
        torch.testing.assert_close(stock(input_ids=WINDOWS[:2]).logits, model(input_ids=WINDOWS[:2], use_cache=False).logits)
    model = deepened("gemma3_text", 4, layer_types=kinds)
    del model.model.layers[1]
    with pytest.raises(ValueError, match=r"3 blocks, and layer_types .* 4 entries.*set model\.config\.layer_types"):
        save(model, None, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    model.config.layer_types = ["sliding_attention", "sliding_attention", "full_attention"]
    model.config.num_hidden_layers = 3
    save(model, None, tmp_path / "other")


def test_layers_that_share_a_block_are_all_there(tmp_path):
    """ALBERT has one block for all its layers, of which none was deleted."""
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "vocab_size": 258, "embedding_size": 16}
    model = AlbertModel(AlbertConfig(**shape, num_hidden_layers=3)).eval()
    again = AlbertModel.from_pretrained(save(model, None, tmp_path / "out"))
    assert again.config.num_hidden_layers == 3
    ids = torch.arange(12)[None]
    assert torch.equal(again(ids).last_hidden_state, model(ids).last_hidden_state)
