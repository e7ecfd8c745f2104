"""Tiny models of several stacks, and encoders: gated and ungated T5, BERT."""

from __future__ import annotations

from typing import Any

import torch
from tiny import VOCABULARY
from transformers import AutoConfig, PreTrainedModel

from gramian.adapters.models.tasks import stock_class

WINDOWS = torch.randint(2, VOCABULARY, (6, 20), generator=torch.Generator().manual_seed(0))
HELD = torch.randint(2, VOCABULARY, (3, 20), generator=torch.Generator().manual_seed(1))
T5: dict[str, Any] = {
    "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0,
    "tie_word_embeddings": False,
}  # fmt: skip
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
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
STACKED = tuple(SHAPES)


def stacked_model(name: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """In eval mode, with outputs that depend visibly on every weight; in float64 its stored weights are not rounded."""
    model_type, shape = SHAPES[name]
    config = AutoConfig.for_model(model_type, **shape, vocab_size=VOCABULARY)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = stock_class(config)(config).to(dtype).eval().requires_grad_(False)
        for parameter in model.parameters():
            noise = torch.randn_like(parameter)
            parameter.add_(0.1 * noise) if parameter.ndim == 1 else parameter.copy_(parameter.shape[-1] ** -0.5 * noise)
    model.config.dtype = dtype
    return model


@torch.no_grad()
def answer(model: PreTrainedModel, windows: torch.Tensor = HELD) -> torch.Tensor:
    """Logits or last hidden states."""
    if model.config.model_type == "t5":
        start = torch.zeros_like(windows[:, :1])
        return model(input_ids=windows, decoder_input_ids=torch.cat([start, windows[:, :-1]], dim=1)).logits
    return model(input_ids=windows).last_hidden_state
