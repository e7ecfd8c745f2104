"""How long a window may be: the model's context, and the begin token that takes a place of it."""

from __future__ import annotations

from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["begin_token", "context_of", "usual_length"]

USUAL = 512  # tokens of text in a window, where the model's context holds them


def context_of(model: PreTrainedModel) -> int | None:
    """Return how many tokens the model reads at a time; None where its configuration sets no limit."""
    context: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return context


def begin_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> int | None:
    """Return the tokeniser's begin token; where there is no tokeniser, that of the configuration."""
    source = model.config.get_text_config() if tokenizer is None else tokenizer
    token: int | None = getattr(source, "bos_token_id", None)
    return token


def usual_length(model: PreTrainedModel | None, tokenizer: PreTrainedTokenizerBase | None, most: int = USUAL) -> int:
    """min(most, context - b), b = 1 where a begin token stands before every window, else 0: tokens of text in a window whose
    length nobody chose. Without a model, or where it has no limit, that is `most`."""
    context = None if model is None else context_of(model)
    if model is None or context is None:
        return most
    return min(most, context - (begin_token(model, tokenizer) is not None))
