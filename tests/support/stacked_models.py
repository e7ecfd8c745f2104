"""Windows for the tiny models of several stacks and encoders, and what such models say of them."""

from __future__ import annotations

import torch
from tiny_models import STACKS, VOCABULARY, stacked_model
from transformers import PreTrainedModel

__all__ = ["HELD", "STACKED", "WINDOWS", "answer", "stacked_model"]

WINDOWS = torch.randint(2, VOCABULARY, (6, 20), generator=torch.Generator().manual_seed(0))
HELD = torch.randint(2, VOCABULARY, (3, 20), generator=torch.Generator().manual_seed(1))
STACKED = tuple(STACKS)


@torch.no_grad()
def answer(model: PreTrainedModel, windows: torch.Tensor = HELD) -> torch.Tensor:
    """Logits or last hidden states."""
    if model.config.model_type == "t5":
        start = torch.zeros_like(windows[:, :1])
        return model(input_ids=windows, decoder_input_ids=torch.cat([start, windows[:, :-1]], dim=1)).logits
    return model(input_ids=windows).last_hidden_state
