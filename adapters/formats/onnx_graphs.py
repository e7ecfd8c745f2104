"""Models as ONNX graphs, by torch's exporter.

    causal    input_ids (n, t), attention_mask (n, s + t), past_key_values.i.key and .value (n, heads, s, size)
              -> logits (n, t, vocabulary), present.i.key and .value (n, heads, s + t, size); s may be 0.
              Without the past: input_ids, attention_mask (n, t) -> logits
    seq2seq   input_ids, attention_mask (n, t), decoder_input_ids (n, u) -> logits (n, u, vocabulary)
    encoder   input_ids, attention_mask (n, t), token_type_ids where the model has several -> last_hidden_state (n, t, width)

n, s, t and u are free. Positions count from the first token, whether it is padding or not, so that windows of several lengths
are padded on the right. Numbers are float32, as the model runs on a CPU, and hold what the storage dtype can.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel

from gramian.adapters.models.tasks import kind_of, outputs_of, token_inputs

__all__ = ["Graph", "graph_of", "names_of_past", "weight_bytes", "write_graph"]

EXAMPLE, SPLIT = 7, 3  # tokens that are traced, and how many of them are past; free sizes must differ from 0 and 1
NOISY = ("torch.onnx", "torch.export", "torch.fx", "torch._dynamo", "onnxscript", "onnx_ir", "onnxruntime")
Pairs = list[tuple[torch.Tensor, torch.Tensor]]


class Graph(NamedTuple):
    """What is exported. module: takes the inputs by name, and then the past, if there is one. layers: how many keys and values
    are passed on, 0 without. outputs: the name of the first output."""

    module: nn.Module
    inputs: Mapping[str, torch.Tensor]
    past: Pairs
    outputs: str

    @property
    def names(self) -> tuple[list[str], list[str]]:
        """The names of the inputs and of the outputs, in their order."""
        past = names_of_past("past_key_values", len(self.past))
        return [*self.inputs, *past], [self.outputs, *names_of_past("present", len(self.past))]


def names_of_past(word: str, layers: int) -> list[str]:
    """The names of keys and values, layer by layer."""
    return [f"{word}.{layer}.{each}" for layer in range(layers) for each in ("key", "value")]


class Whole(nn.Module):
    """Reads whole sequences: logits, or the last hidden states of a model without a head."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.fixed: dict[str, bool] = {} if kind_of(model.config) == "encoder" else {"use_cache": False}

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Outputs (n, length, width)."""
        answer: Any = self.model(**inputs, **self.fixed)
        return outputs_of(answer)


class Continued(nn.Module):
    """Reads further tokens, given the keys and values of those before them."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.keyword = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"

    def forward(self, inputs: Mapping[str, torch.Tensor], past: Pairs) -> tuple[torch.Tensor, Pairs]:
        """Logits (n, t, vocabulary), and the keys and values of all tokens."""
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(past):
            cache.update(keys, values, layer)
        answer: Any = self.model(**inputs, **{self.keyword: cache}, use_cache=True)
        return answer.logits, pairs_of(cache)


def pairs_of(cache: Any) -> Pairs:
    """Keys and values of every layer, in the order of the layers."""
    return [(layer.keys, layer.values) for layer in cache.layers]


def graph_of(model: PreTrainedModel, with_past: bool) -> Graph:
    """Describe what is exported of a model, with inputs to trace it by. ValueError: with_past, and what the model passes on
    from token to token is not keys and values alone."""
    kind = kind_of(model.config)
    ids = torch.arange(2 * EXAMPLE).view(2, EXAMPLE) % model.config.get_text_config().vocab_size
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if kind == "encoder":
        if getattr(model.config, "type_vocab_size", 1) > 1:
            inputs["token_type_ids"] = torch.zeros_like(ids)
        return Graph(Whole(model), inputs, [], "last_hidden_state")
    if kind == "seq2seq":
        pair = token_inputs(model, torch.cat([ids, ids], dim=1))
        return Graph(Whole(model), inputs | {"decoder_input_ids": pair["decoder_input_ids"][:, :-1]}, [], "logits")
    if not with_past:
        return Graph(Whole(model), inputs, [], "logits")
    past = past_of(model, ids[:, :SPLIT])
    return Graph(Continued(model), inputs | {"input_ids": ids[:, SPLIT:]}, past, "logits")


def past_of(model: PreTrainedModel, ids: torch.Tensor) -> Pairs:
    """The keys and values (n, heads, t, size) of some tokens. ValueError where the model passes on anything else."""
    pairs: Pairs
    try:
        with torch.no_grad():
            _, pairs = Continued(model)({"input_ids": ids}, [])
        sound = bool(pairs) and all(each.ndim == 4 and each.shape[2] == ids.shape[1] for pair in pairs for each in pair)
    except (AttributeError, TypeError, ValueError, IndexError) as error:  # what a model makes of a cache that is not its own
        raise ValueError(f"{without_past(model)} ({type(error).__name__})") from error
    if not sound:
        raise ValueError(without_past(model))
    return pairs


def without_past(model: PreTrainedModel) -> str:
    """Why a model has no graph with a past."""
    return (
        f"{type(model).__name__} passes on more from token to token than keys and values, which is all that the graph holds: "
        "add --no-past to export logits of whole sequences"
    )


def sizes_of(graph: Graph) -> dict[str, Any]:
    """The sizes that are free, by name, in the structure of the module's arguments."""
    lengths = {"input_ids": "sequence", "attention_mask": "total" if graph.past else "sequence", "token_type_ids": "sequence"}
    inputs = {name: {0: "batch", 1: lengths.get(name, "decoder_sequence")} for name in graph.inputs}
    if not graph.past:
        return {"inputs": inputs}
    return {"inputs": inputs, "past": [tuple({0: "batch", 2: "past"} for _ in pair) for pair in graph.past]}


def write_graph(graph: Graph, file: Path, apart: bool) -> None:
    """Export the graph to a file, with its weights in `FILE.data` beside it where `apart`. ValueError, in one line, for a model
    that the exporter cannot trace or translate."""
    names, outputs = graph.names
    arguments: dict[str, Any] = {"inputs": dict(graph.inputs)} | ({"past": graph.past} if graph.past else {})
    with silent():
        try:
            program: Any = torch.onnx.export(
                graph.module, (), kwargs=arguments, dynamo=True, input_names=names, output_names=outputs,
                dynamic_shapes=sizes_of(graph), verbose=False,
            )  # fmt: skip
        except torch.onnx.errors.OnnxExporterError as error:
            cause = error.__cause__ or error
            reason = next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
            raise ValueError(f"torch's exporter cannot express this model in ONNX: {reason[:300]}") from error
        program.save(str(file), external_data=apart)


def weight_bytes(module: nn.Module) -> int:
    """The bytes of all parameters and buffers, each tensor once."""
    tensors = {each.data_ptr(): each for each in [*module.parameters(), *module.buffers()]}
    return sum(each.nbytes for each in tensors.values())


@contextmanager
def silent() -> Iterator[None]:
    """Silence what the exporter warns of: packages that it could use, functions of its own that it will not, steps it takes."""
    loggers = [logging.getLogger(name) for name in NOISY]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loggers, levels):
            each.setLevel(level)
