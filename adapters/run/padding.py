"""Which of the rows that reach a layer are tokens, and which are padding, where a model is called with a padding mask.

Inputs (n, length, width) of the mask's own n and length have the mask's order. Rows in any other shape may have been flattened,
sorted, routed or pooled on the way. For them the call is made once more with other tokens in place of the padding: rows that
stay as they were are tokens, rows that change are padding, and where they are not those that the mask says, nobody can know.
"""

from __future__ import annotations

import inspect
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

__all__ = ["Padding"]

MASKS = {
    "attention_mask": ("input_ids", "inputs_embeds"),
    "decoder_attention_mask": ("decoder_input_ids", "decoder_inputs_embeds"),
}
CROSSED = re.compile(r"(EncDecAttention|encoder_attn|crossattention)\..*\b(k|v|key|value|k_proj|v_proj)$")  # read the encoder
SLACK = 1e-4  # of the largest number: rows that differ by less are the same
Rows = tuple[str, torch.Tensor]
Feed = Callable[[str, torch.Tensor], None]


class Probe(threading.local):
    """Who makes a call once more, now, and what reaches its layers meanwhile, in order. Whoever else watches looks away."""

    owner: Padding | None = None
    rows: list[Rows]


PROBE = Probe()


class Padding:
    """The masks of the present call of a model, and the rows that wait for its end.

    feed(name, tokens) takes the rows (tokens, width) of a layer that are no padding.
    """

    def __init__(self, model: nn.Module, feed: Feed) -> None:
        self.model, self.feed = model, feed
        self.signature = inspect.signature(model.forward)
        self.paired = bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))
        self.masks: dict[str, torch.Tensor] = {}
        self.given: dict[str, Any] = {}
        self.waiting: list[Rows] = []

    def begin(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Remember the masks of a call, before it."""
        if PROBE.owner is not None:
            return
        bound = self.signature.bind_partial(*args, **kwargs)
        self.given = {"args": args, "kwargs": kwargs, **bound.arguments, **kwargs}
        self.waiting = []
        found = {name: self.given.get(name) for name in MASKS}
        self.masks = {name: mask for name, mask in found.items() if isinstance(mask, torch.Tensor) and mask.ndim == 2}

    def receive(self, name: str, inputs: torch.Tensor) -> None:
        """Take what reaches a layer: at once where its order is known, else when the call ends."""
        if PROBE.owner is not None:
            if PROBE.owner is self:
                PROBE.rows.append((name, inputs.clone()))
            return
        mask = self.masks.get(self.which(name))
        if mask is None or bool((mask != 0).all()):
            self.feed(name, inputs.reshape(-1, inputs.shape[-1]))
        elif inputs.shape[:-1] == mask.shape:
            self.feed(name, inputs[mask.to(inputs.device).bool()])
        else:
            self.waiting.append((name, inputs.clone()))

    def end(self, *_: object) -> None:
        """Settle the rows that wait, after the call. ValueError, naming the layer, where it cannot be known what they are."""
        if PROBE.owner is not None or not self.waiting:
            return
        waiting, self.waiting = self.waiting, []
        again = self.repeated(waiting[0][0])
        for name in dict.fromkeys(name for name, _ in waiting):
            before = [rows for each, rows in waiting if each == name]
            after = [rows for each, rows in again if each == name]
            if len(before) != len(after):
                raise self.unknown(name, "is called another number of times when the padding holds other tokens")
            for one, other in zip(before, after):
                self.feed(name, self.tokens(name, one, other))

    def which(self, name: str) -> str:
        """The mask of what a layer reads."""
        decoder = self.paired and "decoder" in name.split(".") and not CROSSED.search(name)
        return "decoder_attention_mask" if decoder else "attention_mask"

    def tokens(self, name: str, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """The rows that are no padding."""
        rows = before.reshape(-1, before.shape[-1])
        if before.shape != after.shape:
            raise self.unknown(
                name, "receives another number of rows when the padding holds other tokens, as a routed expert does"
            )
        moved = (after.reshape(rows.shape) - rows).abs().amax(1) > SLACK * rows.abs().max()
        if not bool(moved.any()) and len(rows) != self.masks[self.which(name)].numel():
            return rows
        padding = self.masks[self.which(name)].reshape(-1).to(rows.device) == 0
        if len(rows) != len(padding) or not moved.equal(padding):
            raise self.unknown(name, "receives rows in another order than the mask has")
        return rows[~padding]

    @torch.no_grad()
    def repeated(self, name: str) -> list[Rows]:
        """Make the call once more with other tokens in place of the padding, and return what reaches the layers."""
        changed: dict[str, torch.Tensor] = {}
        for mask, inputs in MASKS.items():
            for each in inputs if mask in self.masks else ():
                if isinstance(given := self.given.get(each), torch.Tensor):
                    changed[each] = other_tokens(given, self.masks[mask])
        if not changed or self.given.get("past_key_values") is not None:
            raise self.unknown(name, "cannot be told from a second call, which needs input_ids or inputs_embeds and no cache")
        PROBE.owner, PROBE.rows = self, []
        try:
            self.model.forward(**self.keywords(changed))
            return PROBE.rows
        finally:
            PROBE.owner, PROBE.rows = None, []

    def keywords(self, changed: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """The arguments of the call, some of them changed, all by keyword."""
        bound = self.signature.bind_partial(*self.given["args"], **self.given["kwargs"])
        found: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            kind = self.signature.parameters[name].kind
            found |= value if kind is inspect.Parameter.VAR_KEYWORD else {name: value}
        return {**found, **changed}

    def unknown(self, name: str, why: str) -> ValueError:
        """The error for a layer of which it cannot be known which rows are padding."""
        return ValueError(
            f"{name} {why}, so it cannot be known which of them are padding: call the model in eval mode without padding, on "
            "one text at a time or on texts of one length"
        )


def other_tokens(given: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Ids, or vectors, that differ from those given wherever the mask is zero, and nowhere else."""
    padded = mask.to(given.device) == 0
    if given.is_floating_point():
        return torch.where(padded[..., None], 1 - given, given)
    return torch.where(padded, torch.where(given > 0, given - 1, given + 1), given)
