"""When training ends, how fast it learns on the way, and which windows and positions a step reads."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import torch

__all__ = ["Pace", "positions_of", "rows_of", "split_windows"]


def split_windows(windows: torch.Tensor, heldout: int, samples: int | None, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows to train on, and windows set apart, both drawn by the seed and in the order of the text. ValueError where there
    are too few."""
    wanted = heldout + (samples or 1)
    if len(windows) < wanted:
        raise ValueError(
            f"the text has {len(windows)} windows of {windows.shape[1]} tokens, too few to train on {samples or 'any'} and "
            f"hold {heldout} out: give more text, or make length or heldout smaller"
        )
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(seed))
    apart, rest = order[:heldout].sort().values, order[heldout:][:samples].sort().values
    return windows[rest], windows[apart]


def rows_of(count: int, batch: int, step: int, seed: int) -> torch.Tensor:
    """The numbers of the windows of a step, (batch,): every epoch has all of them, in an order of its own, and steps go on
    from one epoch into the next."""
    found = []
    for place in range(step * batch, (step + 1) * batch):
        epoch, index = divmod(place, count)
        found.append(order_of(count, epoch, seed)[index])
    return torch.stack(found)


def order_of(count: int, epoch: int, seed: int) -> torch.Tensor:
    """The order of the windows in an epoch."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


def positions_of(rows: torch.Tensor, part: float, seed: int) -> torch.Tensor:
    """Positions whose loss is computed, (windows, k), in order: a part of those that another token follows."""
    count = rows.shape[1] - 1
    chosen = max(1, round(part * count))
    if chosen == count:
        return torch.arange(count).expand(len(rows), -1)
    noise = torch.rand((len(rows), count), generator=torch.Generator().manual_seed(seed))
    return noise.argsort(1)[:, :chosen].sort(1).values


@dataclass
class Pace:
    """How far training is: by its steps, or by the time that it may take, whichever ends first.

    steps: all that were planned. seconds: the time, None where there is no bound. before: seconds of the run that is gone on
    with. reserve: seconds that what follows the last step takes.
    """

    steps: int
    seconds: float | None
    warmup: float
    before: float = 0.0
    reserve: float = 0.0
    started: float = field(default_factory=lambda: time.monotonic())

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return self.before + time.monotonic() - self.started

    def part(self, step: int) -> float:
        """The part of the training, from 0 to 1, that is done before a step."""
        done = step / self.steps
        if self.seconds is None:
            return min(1.0, done)
        # A step that would end after the bound is not begun: steps so far say how long one takes.
        room = max(self.seconds - self.reserve, 1e-9)
        spent = self.elapsed
        return min(1.0, max(done, (spent + (spent / step if step else 0.0)) / room))

    def rate(self, part: float) -> float:
        """The learning rate relative to its highest: it rises linearly, then falls to zero as a cosine."""
        if part < self.warmup:
            return max(part / self.warmup, 1e-2)
        return 0.5 * (1 + math.cos(math.pi * (part - self.warmup) / max(1 - self.warmup, 1e-9)))
