"""Tiny random models of many types of transformers: fixed configurations, and weights by a seed."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from gramian.adapters.models.tasks import auto_class

__all__ = ["TYPES", "VOCABULARY", "random_model"]

VOCABULARY = 258
SPECIAL = {"bos_token_id": 256, "eos_token_id": 257, "pad_token_id": 257}
PLAIN: dict[str, Any] = SPECIAL | {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "max_position_embeddings": 128,
}  # fmt: skip
GROUPED = PLAIN | {"num_key_value_heads": 2, "head_dim": 8}
EXPERTS = GROUPED | {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
GPT: dict[str, Any] = SPECIAL | {
    "vocab_size": VOCABULARY, "n_embd": 32, "n_inner": 48, "n_layer": 3, "n_head": 4, "n_positions": 128,
}  # fmt: skip
PAIRED: dict[str, Any] = {
    "vocab_size": VOCABULARY, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 128,
    "decoder_start_token_id": 0, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
}  # fmt: skip
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
VISION = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip

TYPES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"), GROUPED),
    **dict.fromkeys(("olmo", "olmo2", "olmo3", "smollm3", "glm", "glm4", "starcoder2", "stablelm", "nemotron"), GROUPED),
    **dict.fromkeys(("exaone4", "cohere2", "seed_oss", "ernie4_5", "hunyuan_v1_dense"), GROUPED),
    **dict.fromkeys(("phi", "phi3", "gpt_neox", "falcon", "persimmon", "biogpt"), PLAIN),
    "granite": GROUPED | {"logits_scaling": 8.0},
    "cohere": GROUPED | {"logit_scale": 0.0625},
    "minicpm3": PLAIN | LATENT,
    "gemma4_text": GROUPED,
    "gpt2": GPT,
    "openai-gpt": GPT,
    "gpt_bigcode": GPT,
    "gptj": GPT | {"rotary_dim": 4},
    "codegen": GPT | {"rotary_dim": 4},
    "gpt_neo": SPECIAL
    | {
        "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_layers": 4, "num_heads": 4,
        "max_position_embeddings": 128, "attention_types": [[["global", "local"], 2]], "window_size": 6,
    },
    "opt": PLAIN | {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "bloom": SPECIAL | {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 3, "n_head": 4},
    "mpt": {"vocab_size": VOCABULARY, "d_model": 32, "n_layers": 3, "n_heads": 4, "max_seq_len": 128, "expansion_ratio": 2},
    "xglm": {
        "vocab_size": VOCABULARY, "d_model": 32, "ffn_dim": 48, "num_layers": 3, "attention_heads": 4,
        "max_position_embeddings": 512,
    },
    "mixtral": EXPERTS,
    "qwen2_moe": EXPERTS | {"shared_expert_intermediate_size": 24},
    "qwen3_moe": EXPERTS,
    "olmoe": EXPERTS,
    "granitemoe": EXPERTS,
    "gpt_oss": EXPERTS,
    "deepseek_v3": PLAIN
    | LATENT
    | {
        "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_group": 1, "topk_group": 1,
        "first_k_dense_replace": 1, "num_key_value_heads": 4,
    },
    "llama4_text": EXPERTS | {"intermediate_size_mlp": 48, "interleave_moe_layer_step": 2},
    "qwen3_next": EXPERTS
    | {
        "num_hidden_layers": 4, "shared_expert_intermediate_size": 24, "linear_num_value_heads": 4,
        "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8, "decoder_sparse_step": 1,
    },
    "jamba": EXPERTS
    | {
        "num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2,
        "expert_layer_offset": 1, "use_mamba_kernels": False, "mamba_d_state": 8, "mamba_dt_rank": 4,
    },
    "mamba": SPECIAL | {"vocab_size": VOCABULARY, "hidden_size": 64, "state_size": 8, "num_hidden_layers": 3},
    "mamba2": SPECIAL
    | {
        "vocab_size": VOCABULARY, "hidden_size": 32, "state_size": 8, "num_hidden_layers": 3, "num_heads": 8, "head_dim": 8,
        "n_groups": 2,
    },
    "recurrent_gemma": GROUPED | {"lru_width": 32, "attention_window_size": 8},
    "lfm2": GROUPED | {"num_hidden_layers": 4, "layer_types": ["conv", "full_attention", "conv", "full_attention"]},
    "bamba": GROUPED
    | {"attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1},
    "bert": PLAIN,
    **dict.fromkeys(("roberta", "xlm-roberta"), PLAIN | {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}),
    "distilbert": {
        "vocab_size": VOCABULARY, "dim": 32, "hidden_dim": 48, "n_layers": 3, "n_heads": 4, "max_position_embeddings": 128,
    },
    "electra": PLAIN | {"embedding_size": 16},
    "modernbert": PLAIN | {"cls_token_id": 256, "sep_token_id": 257},
    "deberta-v2": PLAIN,
    "albert": PLAIN | {"embedding_size": 16},
    "t5": {
        "vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4,
        "decoder_start_token_id": 0, "pad_token_id": 0,
    },
    **dict.fromkeys(("bart", "pegasus"), PAIRED),
    "gemma3": {
        "text_config": GROUPED | {"sliding_window": 8},
        "vision_config": VISION,
        "mm_tokens_per_image": 4, "image_token_index": 255, "boi_token_index": 254, "eoi_token_index": 253,
    },
    "llava": {
        "text_config": {"model_type": "llama", **GROUPED},
        "vision_config": {"model_type": "clip_vision_model", "projection_dim": 32, **VISION},
        "image_token_index": 255,
    },
}  # fmt: skip


def random_model(model_type: str) -> PreTrainedModel:
    """A model in float32 and eval mode, whose logits depend visibly on every weight."""
    config: PretrainedConfig = AutoConfig.for_model(model_type, **TYPES[model_type])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: PreTrainedModel = auto_class(config).from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                noise = torch.randn_like(parameter)
                parameter.copy_(parameter.shape[-1] ** -0.5 * noise if parameter.ndim > 1 else parameter + 0.1 * noise)
    model.config.dtype = torch.float32
    return model.eval().requires_grad_(False)
