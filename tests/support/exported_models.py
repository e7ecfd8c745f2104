"""What tests of exports share: a tokeniser that llama.cpp knows, and small models with zeros, of even and of uneven widths."""

from __future__ import annotations

import copy

import torch
from shrunk_models import uneven
from tiny_models import random_model
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from gramian.adapters.models.shrink import shrink_model

SYMBOLS = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *map(chr, range(33, 127))]


def piece_tokenizer() -> PreTrainedTokenizerFast:
    """Pieces of one character as SentencePiece has them, and bytes for all others."""
    vocabulary = {symbol: place for place, symbol in enumerate(SYMBOLS)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def llama(**shape) -> PreTrainedModel:
    """A llama of two blocks for that tokeniser, half of whose weights in the blocks are zero."""
    model = random_model("llama", vocabulary=len(SYMBOLS), **shape)
    for settings in (model.config, model.generation_config):
        settings.bos_token_id, settings.eos_token_id, settings.pad_token_id = 1, 2, 0
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("proj.weight"):
                weight[:, ::2] = 0
    return model


def uneven_llama() -> PreTrainedModel:
    """The same with a different width in every block."""
    model = copy.deepcopy(llama())
    shrink_model(model, uneven(model))
    return model
