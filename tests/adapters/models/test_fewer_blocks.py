"""Models cut to some of their blocks: stock classes build the same, caches agree, and what cannot be stated is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tiny import WINDOWS, random_model
from tiny_models import GROUPED, SHAPES
from torch import nn
from transformers import AutoModelForCausalLM

from gramian.adapters import save
from gramian.adapters.models.block_lists import blocks_of
from gramian.adapters.models.fewer_blocks import cut_blocks, stated_blocks
from gramian.adapters.models.short_runs import check_short_run

KEPT = [0, 2, 3]
KINDS = ["sliding_attention", "full_attention", "full_attention", "sliding_attention", "full_attention"]
SPARSE = {"moe_intermediate_size": 24, "num_experts": 4, "num_experts_per_tok": 2}
LATENT = {
    "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8, "n_group": 1,
    "topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_routed_experts": 4, "num_key_value_heads": 4,
}  # fmt: skip
FIVE: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {  # type, shape, what the configuration says of blocks 0, 2, 3
    "llama": ("llama", {}, {}),
    "gemma3": ("gemma3_text", {"layer_types": KINDS}, {"layer_types": [KINDS[number] for number in KEPT]}),
    "opt": ("opt", {}, {}),
    "gpt2": ("gpt2", {"n_layer": 5}, {"n_layer": 3}),
    "gpt_neo": (
        "gpt_neo",
        {"num_layers": 5, "num_heads": 4, "attention_types": [[["global", "local"], 2], [["local"], 1]], "window_size": 6},
        {"attention_types": [[["global", "global", "local"], 1]], "attention_layers": ["global", "global", "local"]},
    ),
    "smollm3": ("smollm3", {"no_rope_layers": [1, 0, 1, 0, 1]}, {"no_rope_layers": [1, 1, 0]}),
    "qwen3_moe": ("qwen3_moe", SPARSE | {"mlp_only_layers": [2, 4], "head_dim": 8}, {"mlp_only_layers": [1]}),
    "qwen2_moe": (
        "qwen2_moe",
        SPARSE | {"shared_expert_intermediate_size": 24, "decoder_sparse_step": 2},
        {"decoder_sparse_step": 1, "mlp_only_layers": [0, 1]},
    ),
    "deepseek_v3": ("deepseek_v3", LATENT | {"first_k_dense_replace": 3}, {"first_k_dense_replace": 2}),
}


def five(model_type: str, shape: dict[str, Any]) -> Any:
    model = random_model(model_type, **{"num_hidden_layers": 5} | shape)
    model.generation_config.pad_token_id = None
    return model


def skipping(model: nn.Module, kept: list[int]) -> torch.Tensor:
    """The logits of the model whose other blocks hand on what they are given."""
    handles = []
    for number, block in enumerate(blocks_of(model)):
        if number not in kept:

            def same(_, args, kwargs, answer):
                given = args[0] if args else kwargs["hidden_states"]
                return (given, *answer[1:]) if isinstance(answer, tuple) else given

            handles.append(block.register_forward_hook(same, with_kwargs=True))
    with torch.no_grad():
        found = model(input_ids=WINDOWS[:2], use_cache=False).logits
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("name", FIVE)
def test_a_model_without_some_blocks_is_a_stock_model(name, tmp_path):
    model_type, shape, said = FIVE[name]
    model = five(model_type, shape)
    expected = skipping(model, KEPT)
    before = copy.deepcopy(model.config.to_dict())
    cut = cut_blocks(model, KEPT)
    assert len(blocks_of(model)) == 3 == model.config.num_hidden_layers
    assert {key: getattr(model.config, key) for key in said} == said
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=WINDOWS[:2], use_cache=False).logits, expected, rtol=1e-5, atol=1e-5)
    mask = torch.ones_like(WINDOWS[:2])
    written = [
        model.generate(WINDOWS[:2], attention_mask=mask, max_new_tokens=4, min_new_tokens=4, do_sample=False, use_cache=cached)
        for cached in (True, False)
    ]
    assert written[0].equal(written[1])
    stock = AutoModelForCausalLM.from_pretrained(save(model, None, tmp_path / "out"), dtype=torch.float32).eval()
    with torch.no_grad():
        for cached in (True, False):
            found = stock(input_ids=WINDOWS[:2], use_cache=cached).logits
            assert found.equal(model(input_ids=WINDOWS[:2], use_cache=cached).logits)
    cut.undo()
    assert len(blocks_of(model)) == 5 and model.config.to_dict() == before | {"architectures": model.config.architectures}
    assert skipping(model, KEPT).equal(expected)


def test_what_no_configuration_can_state_is_refused():
    model = random_model("gpt2", n_layer=4, scale_attn_by_inverse_layer_idx=True)
    with pytest.raises(
        ValueError, match=r"cannot state it without block 1: transformer\.h\.2 would be built as number 1.*scal"
    ):
        cut_blocks(model, [0, 2, 3])
    assert len(blocks_of(model)) == 4
    stated_blocks(model, [0, 1, 2])  # the last one has no blocks behind it
    pattern = {"num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 4, "mamba_dt_rank": 4}
    with pytest.raises(ValueError, match=r"without blocks? 1"):
        stated_blocks(random_model("jamba", num_hidden_layers=4, **pattern), [0, 2, 3])


def test_a_model_that_counts_its_blocks_elsewhere_is_refused():
    """Nothing that is compared of the blocks shows it, but a short run does."""
    model = random_model("llama", num_hidden_layers=4)
    counting = model.model.forward

    def forward(*args, **kwargs):
        answer = counting(*args, **kwargs)
        answer.last_hidden_state = answer.last_hidden_state * len(model.model.layers)
        return answer

    model.model.forward = forward
    with pytest.raises(ValueError, match="is another model than the one that skips it"):
        check_short_run(model, [0, 1, 3])
    assert len(blocks_of(model)) == 4 == model.config.num_hidden_layers


def test_numbers_of_blocks_end_right():
    model = random_model("qwen3", **GROUPED | SHAPES["qwen3"] | {"num_hidden_layers": 5})
    cut_blocks(model, KEPT)
    assert [block.self_attn.layer_idx for block in model.model.layers] == [0, 1, 2]
