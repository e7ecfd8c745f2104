"""Small models over bytes: windows of a text, training, and the loss on windows that trained nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tqdm import tqdm

from gramian.adapters.models.tasks import halves, kind_of

BATCH = 16


def windows_of(text: str, length: int) -> torch.Tensor:
    """Bytes as tokens, in consecutive windows."""
    tokens = torch.frombuffer(bytearray(text.encode("utf-8")), dtype=torch.uint8).long()
    count = len(tokens) // length
    return tokens[: count * length].reshape(count, length)


def loss_of(model: Any, rows: torch.Tensor) -> torch.Tensor:
    """Nats per predicted byte: all bytes but the first, or the second half of a window given the first."""
    if kind_of(model.config) == "seq2seq":
        first, second = halves(rows)
        return model(input_ids=first, labels=second.contiguous()).loss  # the model views labels in another shape
    return model(input_ids=rows, labels=rows, use_cache=False).loss


def train(
    model: Any,
    windows: torch.Tensor,
    steps: int,
    *,
    rate: float = 3e-3,
    batch: int = BATCH,
    after_step: Callable[[], object] = lambda: None,
) -> None:
    """Train in place by AdamW with one cycle of learning rates, on random batches that torch's own generator draws."""
    model.train().requires_grad_(True)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    for _ in tqdm(range(steps), desc="training"):
        step(model, windows[torch.randint(len(windows), (batch,))], optimiser)
        schedule.step()
        after_step()
    model.eval().requires_grad_(False)


def step(model: Any, batch: torch.Tensor, optimiser: torch.optim.Optimizer) -> None:
    """Make one step of training, with gradients of norm at most 1."""
    loss_of(model, batch).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    optimiser.zero_grad()


@torch.no_grad()
def held_loss(model: Any, windows: torch.Tensor) -> float:
    """Mean loss over windows."""
    model.eval()
    losses = [loss_of(model, rows).item() * len(rows) for rows in windows.split(4 * BATCH)]
    return sum(losses) / len(windows)
