"""What a format cannot hold, by name, before any work."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gramian.adapters.formats.gguf_conversion import KINDS
from gramian.adapters.models.experts import packed_in
from gramian.adapters.models.tasks import kind_of, reads_images
from gramian.adapters.models.widths import unstated_widths

__all__ = ["check_gguf_holds", "check_onnx_holds"]


def check_onnx_holds(model: PreTrainedModel) -> None:
    """Raise ValueError for a model that no ONNX graph is made of here. Widths of any kind are held."""
    if reads_images(model.config):
        raise ValueError(
            f"{type(model).__name__} reads images too, of which the graph would have no input: export its text model"
        )
    if name := first_experts(model):
        raise ValueError(
            f"{name} holds packed experts, whose tokens a router chooses as the model runs, and ONNX has no form of that: "
            "export it with --format gguf"
        )


def check_gguf_holds(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, storage: torch.dtype, pad: bool
) -> None:
    """Raise ValueError for a model that a GGUF file cannot hold, or whose file could not be checked."""
    kind = {"encoder": "an encoder", "seq2seq": "an encoder-decoder model", "causal": ""}[kind_of(model.config)]
    if kind:
        raise ValueError(
            f"{type(model).__name__} is {kind}, and a GGUF is checked here by the text that it continues: export it with "
            "--format onnx, or with llama.cpp's convert_hf_to_gguf.py, unchecked"
        )
    if reads_images(model.config):
        raise ValueError(
            f"{type(model).__name__} reads images too, for which llama.cpp needs a second file: export its text model"
        )
    if tokenizer is None:
        raise ValueError("the model has no tokenizer, without which llama.cpp loads no GGUF: save one beside it")
    if storage not in KINDS:
        raise ValueError(
            f"its weights are {str(storage).removeprefix('torch.')}, which a GGUF does not hold: add --dtype float32"
        )
    widths = unstated_widths(model)
    if biased := next((name for name, width in widths.items() if width.bias), None):
        raise ValueError(
            f"{biased} has a bias, which llama.cpp's {model.config.model_type} has not: prune with --no-compensate, or export "
            "with --format onnx"
        )
    if widths and not pad:
        name = next(iter(widths))
        raise ValueError(
            f"{name} has other widths than {type(model).__name__} states for all blocks, and a GGUF of it has one width: "
            "add --pad, which fills up with zeros and computes the same, or export with --format onnx"
        )


def first_experts(model: nn.Module) -> str | None:
    """The name of the first module of packed experts."""
    return next((name for name, module in model.named_modules() if packed_in(module)), None)
