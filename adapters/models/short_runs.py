"""Whether a model that is cut to some of its blocks computes what it computes when it skips the others."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from transformers import PreTrainedModel

from gramian.adapters.models.block_answers import Answer, Arguments
from gramian.adapters.models.block_lists import blocks_of
from gramian.adapters.models.discovery import answers_of, short_window
from gramian.adapters.models.fewer_blocks import Cut, cut_blocks
from gramian.adapters.models.modes import eval_mode
from gramian.adapters.models.stand_ins import replaced_forward
from gramian.adapters.models.tasks import token_inputs, trunk_of

__all__ = ["check_short_run", "cut_exactly"]


def check_short_run(model: PreTrainedModel, kept: Sequence[int]) -> None:
    """Raise ValueError where a model cut to some of its blocks is not what skips the others; it is unchanged afterwards."""
    cut_exactly(model, kept).undo()


@torch.no_grad()
def cut_exactly(model: PreTrainedModel, kept: Sequence[int]) -> Cut:
    """Cut a model to some of its blocks, in place, and compare it on a short window with the model that skips the others.

    ValueError, after which the model is unchanged: what `cut_blocks` raises, and where the two differ, as they do if the model
    makes more of a block's number than its configuration says."""
    window = short_window(model)
    with eval_mode(model), ExitStack() as stack:
        for number, (block, answer) in enumerate(zip(blocks_of(model), answers_of(model), strict=True)):
            if number not in kept:
                stack.enter_context(replaced_forward(block, skipped(answer)))
        expected = states_of(model, window)
    if not bool(expected.isfinite().all()):
        raise ValueError(
            f"{type(model).__name__} makes NaN or Inf of a short window: its weights are damaged, or its activations "
            f"overflow in {str(expected.dtype).removeprefix('torch.')}"
        )
    cut = cut_blocks(model, kept)
    try:
        with eval_mode(model):
            found = states_of(model, window)
    except BaseException:
        cut.undo()
        raise
    scale = float(expected.abs().max())
    apart = float((found - expected).abs().max()) / scale if scale > 0 else float(found.abs().max())
    if not apart <= torch.finfo(expected.dtype).eps ** 0.75:
        cut.undo()
        gone = sorted(set(range(len(cut.present))) - set(kept))
        raise ValueError(
            f"{type(model).__name__} without block {', '.join(map(str, gone))} is another model than the one that skips it "
            f"(they differ by {apart:.2g}): it makes more of the numbers of its blocks than its configuration says"
        )
    return cut


def states_of(model: Any, window: torch.Tensor) -> torch.Tensor:
    """The last hidden states for a window."""
    states: torch.Tensor = trunk_of(model)(**token_inputs(model, window))[0]
    return states


def skipped(answer: Answer) -> Any:
    """A forward that returns the hidden states that it is given, in the form of the block's answer."""

    def around(_: Any) -> Any:
        return lambda *args, **kwargs: answer.filled(Arguments.of(args, kwargs)[0])

    return around
