"""Tiny random language models of every family, a byte tokeniser and windows of tokens, for tests without downloads."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from gramian.adapters import Report, prune_weights
from gramian.adapters.models.unit_groups import unit_groups_of

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma3_text", "opt", "gpt2")
VOCABULARY = 258  # 256 bytes, begin, end
BEGIN, END = 256, 257
LENGTH = 24
QUICK = {"max_lambdas": 3, "inner_steps": 8, "warm_start": "wanda"}  # options of FISTAPruner

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


def tiny_model(model_type: str, *, seed: int = 0, vocabulary: int = VOCABULARY) -> PreTrainedModel:
    """A float32 model of two or three layers, width 32, in eval mode, whose logits depend visibly on every weight."""
    special = {"bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1, "pad_token_id": vocabulary - 1}
    config = AutoConfig.for_model(model_type, **SHAPES[model_type], vocab_size=vocabulary, **special)
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


def run(model: Any, **arguments: Any) -> Report:
    arguments = {"tokens": WINDOWS, "progress": False} | arguments
    return prune_weights(model, arguments.pop("tokens"), **arguments)


def parameters(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def same(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor], names: Iterable[str] | None = None) -> bool:
    """Bit for bit, NaN included."""
    names = before if names is None else names
    return all(before[name].contiguous().view(torch.uint8).equal(after[name].contiguous().view(torch.uint8)) for name in names)


def names_of(model: nn.Module, kind: str) -> list[str]:
    """Consumers of attention (their units are wide) or of feed-forward modules."""
    return [name for name, unit_group in unit_groups_of(model).items() if (unit_group.size > 1) == (kind == "heads")]


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")
