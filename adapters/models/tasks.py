"""Kinds of models, by what they read of a window of tokens w and what they predict.

    causal    reads w_0 ... w_(t-1) and predicts w_t, t = 1, 2, ...
    seq2seq   its encoder reads the first half of the window; its decoder reads a start token and the tokens of the second half
              before w_t, and predicts w_t
    encoder   reads the whole window and predicts nothing: its output is the last hidden state

For sequence-to-sequence models a window is a pair of texts, one after the other; if its length is odd, the second is longer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSeq2SeqLM,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    MODEL_MAPPING,
)

__all__ = [
    "Kind",
    "auto_class",
    "check_predicts",
    "embedded_inputs",
    "halves",
    "kind_of",
    "outputs_of",
    "predictions",
    "start_token",
    "stock_class",
    "token_inputs",
    "trunk_of",
]

Kind = Literal["causal", "seq2seq", "encoder"]
AUTO_CLASSES: dict[Kind, Any] = {"causal": AutoModelForCausalLM, "seq2seq": AutoModelForSeq2SeqLM, "encoder": AutoModel}
MAPPINGS: dict[Kind, Any] = {
    "causal": MODEL_FOR_CAUSAL_LM_MAPPING,
    "seq2seq": MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    "encoder": MODEL_MAPPING,
}


def kind_of(config: PretrainedConfig) -> Kind:
    """Read the kind off the configuration: encoders are trained to fill in words, unless they are made into decoders; a model
    that is neither of the other two is a causal language model, which may read images too."""
    if getattr(config, "is_encoder_decoder", False):
        return "seq2seq"
    fills_in = type(config) in MODEL_FOR_MASKED_LM_MAPPING
    return "encoder" if fills_in and not getattr(config, "is_decoder", False) else "causal"


def auto_class(config: PretrainedConfig) -> Any:
    """Find the class that loads models of this kind and configuration: of a language model that reads images too, the one with
    all its parts."""
    return AutoModelForImageTextToText if reads_images(config) else AUTO_CLASSES[kind_of(config)]


def stock_class(config: PretrainedConfig) -> Any:
    """Find the library's class for models of this kind and configuration; None where it has none."""
    mapping: Any = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING if reads_images(config) else MAPPINGS[kind_of(config)]
    return mapping.get(type(config), None)


def reads_images(config: PretrainedConfig) -> bool:
    """Tell whether a causal language model is a part of what the configuration states."""
    return kind_of(config) == "causal" and type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING


def token_inputs(model: nn.Module, rows: torch.Tensor) -> dict[str, Any]:
    """Build the keywords with which a model reads windows (n, length)."""
    rows = rows.to(next(model.parameters()).device)
    kind = kind_of(model.config)  # type: ignore[arg-type]
    if kind == "encoder":
        return {"input_ids": rows}
    if kind == "causal":
        return {"input_ids": rows, "use_cache": False}
    first, second = halves(rows)
    start = torch.full_like(second[:, :1], start_token(model.config))  # type: ignore[arg-type]
    return {"input_ids": first, "decoder_input_ids": torch.cat([start, second[:, :-1]], dim=1), "use_cache": False}


def trunk_of(model: Any) -> Any:
    """Find what runs the blocks of a model: the model without its head, or an encoder-decoder model itself."""
    if kind_of(model.config) == "seq2seq":
        return model
    if model.base_model is not model:
        return model.base_model
    inner = [child for child in model.children() if isinstance(child, PreTrainedModel)]
    return inner[0] if model.get_output_embeddings() is not None and len(inner) == 1 else model


def halves(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Split windows into what the encoder reads and what the decoder predicts, at least a token each."""
    middle = rows.shape[1] // 2
    return rows[:, :middle], rows[:, middle:]


def start_token(config: PretrainedConfig) -> int:
    """Return the token that a decoder reads first: the configuration's, else the padding token, as T5 has it."""
    for token in (getattr(config, "decoder_start_token_id", None), config.pad_token_id):
        if token is not None:
            return int(token)
    raise ValueError(f"{config.model_type} states neither decoder_start_token_id nor pad_token_id: set one there")


def embedded_inputs(
    model: nn.Module, inputs: Mapping[str, Any], change: Callable[[torch.Tensor], torch.Tensor]
) -> dict[str, Any]:
    """Build the keywords of `token_inputs` with vectors in place of tokens, for the encoder and for the decoder: `change` of
    their embeddings (n, length, width)."""
    embed: Any = model.get_input_embeddings()  # type: ignore[operator]
    return {
        name.replace("input_ids", "inputs_embeds"): change(embed(value)) if name.endswith("input_ids") else value
        for name, value in inputs.items()
    }


def outputs_of(answer: Any) -> torch.Tensor:
    """Return the logits (n, length, vocabulary), or the last hidden states (n, length, width) of a model without a head."""
    logits: torch.Tensor | None = getattr(answer, "logits", None)
    if logits is not None:
        return logits
    states: torch.Tensor = answer.last_hidden_state
    return states


def predictions(model: nn.Module, answer: Any, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pair logits (n, t, vocabulary) with the tokens (n, t) of the windows that they predict. ValueError for a model that
    predicts no tokens."""
    check_predicts(model, hasattr(answer, "logits"))
    rows = rows.to(answer.logits.device)
    paired = kind_of(model.config) == "seq2seq"  # type: ignore[arg-type]
    return (answer.logits, halves(rows)[1]) if paired else (answer.logits[:, :-1], rows[:, 1:])


def check_predicts(model: nn.Module, has_logits: bool = True) -> None:
    """Raise ValueError for a model that predicts no tokens."""
    if kind_of(model.config) == "encoder" or not has_logits:  # type: ignore[arg-type]
        raise ValueError(
            f"{type(model).__name__} predicts no tokens, so there is neither an observed token's logit nor a loss: choose a "
            "method that needs none, such as synflow, ntk-sap, px, numerical or wanda-sp"
        )
