"""Kinds of models, by what they read of a window of tokens w and what they predict.

    causal    reads w_0 ... w_(t-1) and predicts w_t, t = 1, 2, ...
    seq2seq   its encoder reads the first half of the window; its decoder reads a start token and the tokens of the second half
              before w_t, and predicts w_t
    encoder   reads the whole window and predicts nothing: its output is the last hidden state

For sequence-to-sequence models a window is a pair of texts, one after the other; if its length is odd, the second is longer.
Of `Examples`, which have labels, a sequence-to-sequence model's encoder reads the text and its decoder predicts the labels, a
causal model predicts those of its own tokens that are labels, and a classifier predicts the one label of each text.
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
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
)

from gramian.adapters.models.examples import IGNORED, Examples, Rows

__all__ = [
    "Kind",
    "auto_class",
    "check_labels",
    "check_predicts",
    "classifies",
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
CLASSIFIER = "ForSequenceClassification"  # how the library ends the names of such classes
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


def auto_class(config: PretrainedConfig, classifier: bool = False) -> Any:
    """Find the class that loads models of this kind and configuration: of a language model that reads images too, the one with
    all its parts. classifier: whether what was saved as a classifier of texts is one."""
    if classifier and saved_as_classifier(config):
        return AutoModelForSequenceClassification
    return AutoModelForImageTextToText if reads_images(config) else AUTO_CLASSES[kind_of(config)]


def stock_class(config: PretrainedConfig, classifier: bool = False) -> Any:
    """Find the library's class for models of this kind and configuration; None where it has none. classifier: as above."""
    if classifier and saved_as_classifier(config):
        return MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(config), None)
    mapping: Any = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING if reads_images(config) else MAPPINGS[kind_of(config)]
    return mapping.get(type(config), None)


def saved_as_classifier(config: PretrainedConfig) -> bool:
    """Tell whether a configuration states that its model was saved with a head that classifies texts."""
    return [name.endswith(CLASSIFIER) for name in getattr(config, "architectures", None) or []] == [True]


def classifies(model: nn.Module) -> bool:
    """Tell whether a model answers with scores of classes for each text, or with a number for it."""
    return type(model).__name__.endswith(CLASSIFIER)


def reads_images(config: PretrainedConfig) -> bool:
    """Tell whether a causal language model is a part of what the configuration states."""
    return kind_of(config) == "causal" and type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING


def token_inputs(model: nn.Module, rows: Rows) -> dict[str, Any]:
    """Build the keywords with which a model reads windows (n, length), or texts that have labels."""
    place = next(model.parameters()).device
    ids = (rows.ids if isinstance(rows, Examples) else rows).to(place)
    kind = kind_of(model.config)  # type: ignore[arg-type]
    if kind == "seq2seq":
        first, second = (ids, rows.labels.to(place)) if isinstance(rows, Examples) else halves(ids)
        start = torch.full_like(second[:, :1], start_token(model.config))  # type: ignore[arg-type]
        read = torch.cat([start, second[:, :-1]], dim=1)
        if isinstance(rows, Examples):  # what is not predicted is read as the library reads it, as padding
            read = read.masked_fill(read == IGNORED, padding_token(model.config))  # type: ignore[arg-type]
        return {"input_ids": first, "decoder_input_ids": read, "use_cache": False}
    inputs: dict[str, Any] = {"input_ids": ids} if kind == "encoder" else {"input_ids": ids, "use_cache": False}
    if isinstance(rows, Examples) and rows.types is not None:
        inputs["token_type_ids"] = rows.types.to(place)
    return inputs


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


def padding_token(config: PretrainedConfig) -> int:
    """Return the token of padding, or the one that a decoder starts with where the configuration states none."""
    return start_token(config) if config.pad_token_id is None else int(config.pad_token_id)


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


def predictions(model: nn.Module, answer: Any, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    """Pair scores with what they should have been the largest for: logits (n, t, vocabulary) with the tokens (n, t) of windows;
    of examples those that have labels, (m, vocabulary) with (m,), or (n, classes) with the classes (n,), or (n, 1) with a
    number (n,) for each text.

    ValueError for a model that predicts no tokens, and for labels that are not what it predicts."""
    if isinstance(rows, Examples):
        check_labels(model, rows.labels)
    else:
        check_predicts(model, hasattr(answer, "logits"))
        if classifies(model):
            raise ValueError(
                f"{type(model).__name__} predicts a label of each text, and the windows have none: give texts with labels, "
                'such as FILE.jsonl with {"text": ..., "label": ...} in every line'
            )
    logits: torch.Tensor = answer.logits
    paired = kind_of(model.config) == "seq2seq"  # type: ignore[arg-type]
    if not isinstance(rows, Examples):
        rows = rows.to(logits.device)
        return (logits, halves(rows)[1]) if paired else (logits[:, :-1], rows[:, 1:])
    labels = rows.labels.to(logits.device)
    if labels.ndim == 1:
        return logits, labels.to(logits.dtype) if logits.shape[-1] == 1 else labels
    if not paired:  # a label stands at the place of its token, and is predicted from those before it
        short = max(0, logits.shape[1] - labels.shape[1])
        labels = torch.nn.functional.pad(labels, (0, short), value=IGNORED)[:, 1 : logits.shape[1]]
        logits = logits[:, :-1]
    kept = labels != IGNORED
    return logits[kept], labels[kept]


def check_labels(model: nn.Module, labels: torch.Tensor) -> None:
    """Raise ValueError for labels that are not what a model predicts, naming both."""
    name = type(model).__name__
    if classifies(model) and labels.ndim == 1:
        classes = int(model.config.num_labels)  # type: ignore[union-attr, arg-type]
        if classes == 1:
            return
        if labels.is_floating_point() or not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise ValueError(
                f"the labels run from {labels.min()} to {labels.max()}, but {name} predicts one of {classes} classes, 0 to "
                f"{classes - 1}"
            )
        return
    if classifies(model):
        raise ValueError(f"{name} predicts one label of each text, and the labels are texts: give a class for each")
    if kind_of(model.config) == "encoder":  # type: ignore[arg-type]
        raise ValueError(
            f"{name} has no head that predicts labels: load the model as AutoModelForSequenceClassification, or with "
            "gramian.load(..., classifier=True), if it has one"
        )
    if labels.ndim == 1:
        raise ValueError(f"{name} predicts tokens, and the labels are one number for each text: give texts with their answers")
    vocabulary = int(model.config.get_text_config().vocab_size)  # type: ignore[union-attr, operator]
    tokens = labels[labels != IGNORED]
    if tokens.is_floating_point() or not 0 <= int(tokens.min()) <= int(tokens.max()) < vocabulary:
        raise ValueError(
            f"labels run from {tokens.min()} to {tokens.max()}, but {name} has a vocabulary of {vocabulary} tokens"
        )


def check_predicts(model: nn.Module, has_logits: bool = True) -> None:
    """Raise ValueError for a model that predicts nothing: neither tokens nor labels of texts."""
    if classifies(model):
        return
    if kind_of(model.config) == "encoder" or not has_logits:  # type: ignore[arg-type]
        raise ValueError(
            f"{type(model).__name__} predicts no tokens, so there is neither an observed token's logit nor a loss: choose a "
            "method that needs none, such as synflow, ntk-sap, px, numerical or wanda-sp"
        )
