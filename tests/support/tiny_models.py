"""Tiny random models of every family, a byte tokeniser and windows of tokens. Plain transformers: nothing here is gramian's,
so any two versions of it can be given the same models."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5ForConditionalGeneration,
)

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma3_text", "opt", "gpt2")
VOCABULARY = 258  # 256 bytes, begin, end
BEGIN, END = 256, 257
LENGTH = 24

# Two query heads share a key/value head; head_dim times heads differs from hidden_size where the family allows it.
GROUPED: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
# Short sliding windows beside full attention, so that layers of one model need different masks.
MIXED: dict[str, Any] = {
    "num_hidden_layers": 3,
    "head_dim": 16,
    "query_pre_attn_scalar": 16,
    "sliding_window": 6,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}
SHAPES: dict[str, dict[str, Any]] = {
    "llama": GROUPED,
    "mistral": GROUPED | {"sliding_window": 6, "head_dim": 16},
    "qwen2": GROUPED | {"tie_word_embeddings": True},
    "qwen3": GROUPED | {"head_dim": 16},
    "gemma2": GROUPED | MIXED | {"final_logit_softcapping": 2.0},
    "gemma3_text": GROUPED | MIXED,
    "opt": {
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
    },
    "gpt2": {"n_embd": 32, "n_inner": 48, "n_layer": 2, "n_head": 4, "n_positions": 128},
}
# Models of several stacks, and encoders.
T5: dict[str, Any] = {
    "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0,
    "tie_word_embeddings": False,
}  # fmt: skip
STACKS: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("t5", T5),
    "gated t5": ("t5", T5 | {"feed_forward_proj": "gated-gelu", "num_decoder_layers": 3}),
    "bert": (
        "bert",
        {
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
            "max_position_embeddings": 64,
        },
    ),
}  # fmt: skip
CLASSES = {"t5": T5ForConditionalGeneration, "bert": BertModel}


def tiny_model(model_type: str, *, seed: int = 0, vocabulary: int = VOCABULARY) -> PreTrainedModel:
    """A float32 language model of two or three layers, width 32, in eval mode, whose logits depend visibly on every weight."""
    return random_model(model_type, seed=seed, vocabulary=vocabulary)


def random_model(model_type: str, *, seed: int = 0, vocabulary: int = VOCABULARY, **shape: Any) -> PreTrainedModel:
    """The same of any model type, with grouped-query attention where it has that, and with other settings of its own."""
    special = {"bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1, "pad_token_id": vocabulary - 1}
    shape = SHAPES.get(model_type, GROUPED) | shape
    config = AutoConfig.for_model(model_type, **shape, vocab_size=vocabulary, **special)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                # matrices keep the scale of their input; biases and norms, which start constant, get spread out
                scale = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.1
                noise = scale * torch.randn_like(parameter)
                parameter.copy_(noise if parameter.ndim > 1 else parameter + noise)
    return model.eval()


def exact(model_type: str, **changed: Any) -> PreTrainedModel:
    """A tiny language model in float64, whose stored weights are not rounded."""
    config = AutoConfig.for_model(model_type, **SHAPES[model_type] | changed, vocab_size=VOCABULARY)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).double().eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter) if parameter.ndim == 1 else 0.2 * torch.randn_like(parameter))
    model.config.dtype = torch.float64
    return model


def stacked_model(name: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """T5 or BERT in eval mode, with outputs that depend visibly on every weight; in float64 stored weights are not rounded."""
    model_type, shape = STACKS[name]
    config = AutoConfig.for_model(model_type, **shape, vocab_size=VOCABULARY)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CLASSES[model_type](config).to(dtype).eval().requires_grad_(False)
        for parameter in model.parameters():
            noise = torch.randn_like(parameter)
            parameter.add_(0.1 * noise) if parameter.ndim == 1 else parameter.copy_(parameter.shape[-1] ** -0.5 * noise)
    model.config.dtype = dtype
    return model


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token per UTF-8 byte, with a begin (256) and an end (257) token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: place for place, symbol in enumerate([*alphabet, "<s>", "</s>"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", model_max_length=128)


def some_windows(count: int, seed: int) -> torch.Tensor:
    return torch.randint(VOCABULARY, (count, LENGTH), generator=torch.Generator().manual_seed(seed))


WINDOWS, HELDOUT = some_windows(7, 1), some_windows(5, 2)
