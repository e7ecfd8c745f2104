"""Tiny random models of families without a row: how their heads and channels lie, and what configurations can say."""

from __future__ import annotations

from typing import Any

import torch
from tiny_models import GROUPED, MIXED, VOCABULARY
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel

__all__ = ["FOUND", "REFUSED", "STATED", "found_model"]

PLAIN: dict[str, Any] = {key: value for key, value in GROUPED.items() if key != "num_key_value_heads"}
FALCON: dict[str, Any] = {key: value for key, value in PLAIN.items() if key != "intermediate_size"} | {"ffn_hidden_size": 48}
SMALL: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "n_inner": 48}
ALL, MLP, NONE = "heads and channels", "channels", "nothing"  # of which the configuration can state other numbers

# The model type and its shape, by what is special, and what a configuration of the stock class can state.
FOUND: dict[str, tuple[str, dict[str, Any], str]] = {
    "phi3": ("phi3", GROUPED, ALL),  # fused q, k, v and gate, up; reads the number of heads from the configuration
    "phi": ("phi", GROUPED, ALL),  # attention and MLP side by side
    "phi, a norm in each head": ("phi", GROUPED | {"qk_layernorm": True}, MLP),  # its norms are sized by the number of heads
    "gemma": ("gemma", GROUPED | {"head_dim": 16}, ALL),
    "gemma2": ("gemma2", GROUPED | MIXED, ALL),
    "granite": ("granite", GROUPED, ALL),
    "olmo": ("olmo", GROUPED, ALL),
    "smollm3": ("smollm3", GROUPED, ALL),
    "glm4": ("glm4", GROUPED | {"head_dim": 8}, ALL),
    "cohere": ("cohere", GROUPED, ALL),
    "cohere2": ("cohere2", GROUPED, ALL),
    "starcoder2": ("starcoder2", GROUPED, ALL),
    "stablelm": ("stablelm", GROUPED, MLP),
    "exaone4": ("exaone4", GROUPED, ALL),
    "nemotron": ("nemotron", GROUPED, ALL),
    "gpt_neox": ("gpt_neox", PLAIN, MLP),  # fused head by head
    "persimmon": ("persimmon", PLAIN, MLP),
    "falcon": ("falcon", FALCON, MLP),  # one key and value for all heads
    "falcon, heads alone": ("falcon", FALCON | {"multi_query": False}, MLP),
    "falcon, grouped": ("falcon", FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2}, MLP),  # fused by group
    "gptj": ("gptj", SMALL | {"rotary_dim": 4}, MLP),
    "codegen": ("codegen", SMALL | {"rotary_dim": 4, "n_head": 8, "n_embd": 64}, MLP),  # fused in four shards of q, v, k
    "mixtral": ("mixtral", GROUPED | {"num_local_experts": 4}, ALL),  # heads alone; experts are no hidden channels
    "bloom": ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}, NONE),  # channels alone
    "roberta": ("roberta", PLAIN | {"pad_token_id": 1}, MLP),
    "distilbert": ("distilbert", {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4}, MLP),
    "bart": (
        "bart",
        {
            "d_model": 32, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "encoder_layers": 2, "decoder_layers": 2,
            "encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 64, "pad_token_id": 1,
            "bos_token_id": 0, "eos_token_id": 2, "forced_eos_token_id": None,
        },
        MLP,
    ),
}  # fmt: skip
STATED = {name: stated for name, (_, _, stated) in FOUND.items()}

# What cannot be removed: the model type, its shape, the end of the consumer's name, and the reason.
MLA: dict[str, Any] = {
    "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8, "n_routed_experts": 4,
    "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "first_k_dense_replace": 1,
    "num_key_value_heads": 4,
}  # fmt: skip
REFUSED: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "olmo2": ("olmo2", GROUPED, "o_proj", r"self_attn\.q_norm spans all heads"),
    "olmo3": ("olmo3", GROUPED, "o_proj", r"self_attn\.q_norm spans all heads"),
    "cohere, norms of heads": ("cohere", GROUPED | {"use_qk_norm": True}, "o_proj", r"self_attn\.q_norm spans all heads"),
    "stablelm, norms of heads": ("stablelm", GROUPED | {"qk_layernorm": True}, "o_proj", "has a part for every head"),
    "bloom": ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}, "self_attention.dense", "forward pass fails on fewer"),
    "falcon, slopes": ("falcon", FALCON | {"alibi": True}, "self_attention.dense", "forward pass fails on fewer"),
    "deepseek_v3": ("deepseek_v3", GROUPED | MLA, "o_proj", "none of the forms that are known"),
}


def found_model(model_type: str, shape: dict[str, Any]) -> PreTrainedModel:
    """A float32 model in eval mode, whose biases and gains of norms are no zeros and ones."""
    config = AutoConfig.for_model(
        model_type, **{"bos_token_id": 256, "eos_token_id": 257, "pad_token_id": 257} | shape, vocab_size=VOCABULARY
    )
    loader = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = (AutoModel if model_type in ("roberta", "distilbert") else loader).from_config(config, dtype=torch.float32)
        for parameter in model.parameters():
            noise = torch.randn_like(parameter)
            parameter.copy_(parameter.shape[-1] ** -0.5 * noise if parameter.ndim > 1 else parameter + 0.2 * noise)
    model.config.dtype = torch.float32
    return model.eval().requires_grad_(False)
