"""Whether an ONNX file computes what the model computes, run by onnxruntime.

For windows of several lengths, some of them padded on the right, E = |y - y*|_F / |y*|_F <= 1e-4 is asked for, over the tokens
that are no padding, y from the file and y* from torch. A graph with a past reads every window a second time in two parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from gramian.adapters.formats.onnx_graphs import Graph, Whole, names_of_past
from gramian.adapters.models.tasks import token_inputs

__all__ = ["TOLERANCE", "Agreement", "check_onnx"]

TOLERANCE = 1e-4
LENGTHS = (1, 2, 9, 32)
LONGEST = 1024  # tokens of a window that is made longer for the sake of a sliding one


class Agreement(NamedTuple):
    """The largest relative and absolute differences over all windows, and the windows' lengths."""

    relative: float
    absolute: float
    lengths: tuple[int, ...]


def check_onnx(file: Path, graph: Graph) -> Agreement:
    """Run the file and the model on the same windows. ValueError where they disagree, or where the file cannot be run."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its warnings are of choices that it makes by itself
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session: Any = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # it has classes of its own for all kinds of failures
        raise ValueError(f"onnxruntime cannot run what torch's exporter wrote: {first_line(error)}") from error
    worst, largest, lengths = 0.0, 0.0, window_lengths(graph)
    generator = torch.Generator().manual_seed(0)
    for number, length in enumerate(lengths):
        inputs = window(graph, 1 + 2 * (number % 2), length, generator)
        reference = reference_outputs(graph, inputs)
        for found in outputs(session, graph, inputs):
            shape = tuple(reference.shape)
            if found.shape != shape:
                raise ValueError(f"the ONNX file answers {found.shape} to a window of {length} tokens, the model {shape}")
            kept = inputs["attention_mask"].bool() if "decoder_input_ids" not in inputs else slice(None)
            difference = (torch.from_numpy(found) - reference)[kept].double()
            worst = max(worst, float(difference.norm() / reference[kept].double().norm()))
            largest = max(largest, float(difference.abs().max()))
    if not worst <= TOLERANCE:
        raise ValueError(
            f"the ONNX file is another model: run by onnxruntime it differs from torch by {worst:.1e} of the outputs' norm, "
            f"where at most {TOLERANCE:.0e} is rounding"
        )
    return Agreement(worst, largest, lengths)


def window_lengths(graph: Graph) -> tuple[int, ...]:
    """How long windows are: short ones, and one that is longer than a sliding window of the model."""
    model: Any = graph.module.model
    config: Any = model.config.get_text_config()
    context = getattr(config, "max_position_embeddings", None) or LONGEST
    sliding = getattr(config, "sliding_window", None) or 0
    wanted = [*LENGTHS, *([sliding + 8] if sliding else [])]
    return tuple(sorted({min(each, context) for each in wanted if each <= LONGEST}))


def window(graph: Graph, rows: int, length: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Inputs of random tokens; of several rows all but the first end with padding, the second half of the second row."""
    model: Any = graph.module.model
    vocabulary = model.config.get_text_config().vocab_size
    ids = torch.randint(0, vocabulary, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(1, rows):
        mask[row, max(1, length // (row + 1)) :] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    if "token_type_ids" in graph.inputs:
        inputs["token_type_ids"] = torch.randint(0, model.config.type_vocab_size, ids.shape, generator=generator)
    if "decoder_input_ids" in graph.inputs:
        inputs["decoder_input_ids"] = token_inputs(model, torch.cat([ids, ids.flip(1)], dim=1))["decoder_input_ids"]
    return inputs


@torch.no_grad()
def reference_outputs(graph: Graph, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """What the model itself answers to whole windows, without any past."""
    model: Any = graph.module.model
    found: torch.Tensor = Whole(model)(inputs)
    return found.float()


def outputs(session: Any, graph: Graph, inputs: Mapping[str, torch.Tensor]) -> list[np.ndarray]:
    """What the file answers: to the windows at once, and, where it has a past, to the two parts of each one after the other."""
    feeds = {name: each.numpy() for name, each in inputs.items()}
    if not graph.past:
        return [session.run(None, feeds)[0]]
    names = names_of_past("past_key_values", len(graph.past))
    rows, length = inputs["input_ids"].shape
    flat = [each for pair in graph.past for each in pair]
    empty = {name: np.zeros((rows, each.shape[1], 0, each.shape[3]), np.float32) for name, each in zip(names, flat)}
    whole = session.run(None, feeds | empty)[0]
    if length == 1:
        return [whole]
    middle = max(1, length - 2)
    first = session.run(None, {key: each[:, :middle] for key, each in feeds.items()} | empty)
    rest = session.run(
        None, feeds | {"input_ids": feeds["input_ids"][:, middle:]} | dict(zip(names, first[1:]))
    )  # the mask is of all tokens
    return [whole, np.concatenate([first[0], rest[0]], axis=1)]


def first_line(error: BaseException) -> str:
    """The first line of an error's message, which may be pages."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
