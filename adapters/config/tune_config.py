"""TuneConfig: every setting of training after pruning, once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gramian.adapters.config.settings import FLAG, NATURAL, POSITIVE, check_ranges, one_of, real, setting

__all__ = ["RATES", "TuneConfig"]

RATES = {"norms": 1e-3, "lora": 5e-4, "kept": 5e-5}  # the usual learning rates, by what is trained
AMOUNT = real("a number above 0", lambda value: 0 < value < math.inf, "X")
PART = real("a number from 0 to 1", lambda value: 0 <= value <= 1, "B")
SOME = real("a number above 0 and at most 1", lambda value: 0 < value <= 1, "B")


@dataclass(frozen=True)
class TuneConfig:
    """Settings that decide what is trained, and how long. ValueError for a value out of range."""

    train: str = setting(
        "kept", one_of("norms", "lora", "kept"), "what is trained: norms and biases, low-rank updates of the operators merged "
        "under their zeros, or all weights that are kept; embeddings and the head are frozen",
    )  # fmt: skip
    rank: int = setting(16, POSITIVE, "rank of the updates of lora")
    lr: float | None = setting(None, AMOUNT, "highest learning rate, 1e-3 for norms, 5e-4 for lora, 5e-5 for kept")
    blend: float = setting(
        0.5, PART, "with a teacher, how much of the loss is divergence from it: 1 is distillation alone, 0 the next token alone"
    )
    epochs: int = setting(1, POSITIVE, "how often every window is seen, unless the minutes are over")
    minutes: float | None = setting(None, AMOUNT, "most minutes that training takes, checks of held-out loss included")
    samples: int | None = setting(None, POSITIVE, "windows to train on; all that the text has unless given")
    written: int = setting(
        0, NATURAL, "windows more that the teacher writes: they begin with parts of the text's, and the teacher goes on",
    )  # fmt: skip
    heldout: int = setting(16, POSITIVE, "windows set apart, on which the loss is measured")
    batch: int = setting(4, POSITIVE, "windows in a step")
    at_once: int = setting(2, POSITIVE, "windows that go through the model at a time, which divides batch")
    positions: float = setting(0.5, SOME, "part of the positions of a window, drawn anew each time, whose loss is computed")
    warmup: float = setting(0.05, PART, "part of the training in which the learning rate rises")
    decay: float = setting(0.0, real("a number of at least 0", lambda value: 0 <= value < math.inf, "X"), "weight decay")
    clip: float = setting(1.0, AMOUNT, "largest norm of a gradient")
    checks: int = setting(4, POSITIVE, "how often held-out loss is measured on the way; the best weights are kept")
    patience: int = setting(2, POSITIVE, "checks in a row without a lower loss that end the training early")
    precision: str = setting(
        "no", one_of("no", "bf16", "fp16"), "dtype of products in mixed precision, half the time or less where the processor "
        "multiplies in it; weights are float32",
    )  # fmt: skip
    checkpointing: bool = setting(False, FLAG, "compute activations inside blocks again, rather than keep them")
    seed: int = setting(0, NATURAL, "seed of the order of windows, of positions and of updates")

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.batch % self.at_once:
            raise ValueError(f"batch={self.batch} windows cannot go through the model at_once={self.at_once} at a time")

    @property
    def rate(self) -> float:
        """The highest learning rate."""
        return RATES[self.train] if self.lr is None else self.lr
