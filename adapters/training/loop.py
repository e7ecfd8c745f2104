"""The steps of a training: windows and positions are drawn, gradients added up, weights moved, held-out losses measured."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from gramian.adapters.config.tune_config import TuneConfig
from gramian.adapters.data.generation import going_on
from gramian.adapters.models.block_lists import blocks_of
from gramian.adapters.models.stand_ins import replaced_forward
from gramian.adapters.training.losses import Head, Trunk, head_of, losses_at, mean_loss
from gramian.adapters.training.places import RUN
from gramian.adapters.training.schedule import Pace, positions_of, rows_of
from gramian.adapters.training.state import Progress, restored, stored
from gramian.progress import bar

__all__ = ["Training", "apart_from_others"]

BETAS = (0.9, 0.95)
MIXED = {"bf16": torch.bfloat16, "fp16": torch.float16}
PROMPT = 8  # of what a teacher writes, an eighth is the text's
PARTS = 1000  # in which progress is counted, since time may bound it as well as steps


@contextmanager
def apart_from_others() -> Iterator[None]:
    """Let accelerate begin anew while the context is open: it keeps its precision and device for a whole process, so that a
    training of another precision, or a Trainer, before this one would have said what they are."""
    states = [each._shared_state for each in (PartialState, AcceleratorState, GradientState)]
    known = [dict(each) for each in states]
    for each in states:
        each.clear()
    try:
        yield
    finally:
        for each, own in zip(states, known):
            each.clear()
            each.update(own)


class Training:
    """One training of the parameters that are given by name."""

    def __init__(
        self,
        model: PreTrainedModel,
        teacher: PreTrainedModel | None,
        windows: torch.Tensor,
        apart: torch.Tensor,
        parameters: Mapping[str, nn.Parameter],
        config: TuneConfig,
    ) -> None:
        self.model, self.windows, self.apart, self.parameters, self.config = model, windows, apart, parameters, config
        self.teacher, self.written = teacher, windows[:0]
        self.blend = 0.0 if teacher is None else config.blend
        self.accelerator = Accelerator(
            mixed_precision=config.precision,
            gradient_accumulation_steps=config.batch // config.at_once,
            cpu=model.device.type == "cpu",
        )
        if self.accelerator.num_processes > 1:
            raise ValueError(
                f"tune trains in one process, and there are {self.accelerator.num_processes}: start it without torchrun and "
                "accelerate launch"
            )
        optimizer = torch.optim.AdamW(
            list(parameters.values()), lr=config.rate, betas=BETAS, weight_decay=config.decay, fused=True
        )
        self.trunk, self.optimizer = self.accelerator.prepare(Trunk(model), optimizer, device_placement=[False, False])
        mixed = MIXED.get(config.precision)
        self.head: Head = head_of(model, mixed)
        self.taught: tuple[Trunk, Head] | None = None
        if teacher is not None and self.blend:
            self.taught = Trunk(teacher), head_of(teacher, mixed)
        steps = max(1, math.ceil(config.epochs * (len(windows) + config.written) / config.batch))
        self.pace = Pace(steps, None if config.minutes is None else 60 * config.minutes, config.warmup)
        self.progress = Progress()
        self.lessons: list[torch.Tensor] = []  # the teacher's hidden states of the windows that are held out

    def train(self, folder: Path | None, fingerprint: Mapping[str, Any], resume: bool, shown: bool) -> str:
        """Train to the end and leave the best weights in the model; return why it ended."""
        best = self.copies()
        try:
            if folder is not None and resume and (folder / RUN).is_file():
                self.progress, best, self.written = restored(folder, fingerprint, self.parameters, self.optimizer.optimizer)
                self.pace.before = self.progress.seconds
            if self.config.written:
                self.write(shown)
            with ExitStack() as context:
                if self.config.checkpointing:
                    context.enter_context(recomputed(self.model))
                advance = context.enter_context(counted(shown))
                if not self.progress.checks:
                    self.progress.checks.append(self.check())
                    self.pace.reserve = self.pace.elapsed
                else:
                    self.pace.reserve = self.progress.checks[0]["seconds"]
                while (part := self.pace.part(self.progress.step)) < 1:
                    if len(self.progress.checks) - 1 - self.progress.best >= self.config.patience:
                        return "stopped early: the held-out loss did not fall any more"
                    advance(part, self.progress.checks[-1]["loss"])
                    self.step(self.pace.rate(part))
                    self.progress.step += 1
                    if self.pace.part(self.progress.step) * self.config.checks >= len(self.progress.checks):
                        self.progress.checks.append(self.check())
                        if self.progress.checks[-1]["loss"] < self.progress.checks[self.progress.best]["loss"]:
                            self.progress.best, best = len(self.progress.checks) - 1, self.copies()
                        self.progress.seconds = self.pace.elapsed
                        if folder is not None:
                            stored(
                                folder, fingerprint, self.progress, self.parameters, best, self.optimizer.optimizer,
                                self.written,
                            )  # fmt: skip
                advance(1.0, self.progress.checks[-1]["loss"])
            steps = self.progress.step >= self.pace.steps
            return "all epochs done" if steps else "the time was over"
        finally:
            with torch.no_grad():
                for name, each in self.parameters.items():
                    each.copy_(best[name])

    def write(self, shown: bool) -> None:
        """Train on what the teacher writes too, unless it is there from before."""
        if not len(self.written):
            assert self.teacher is not None
            began = time.monotonic()
            prompt, mixed = max(1, self.windows.shape[1] // PROMPT), MIXED.get(self.config.precision)
            with torch.autocast(self.model.device.type, mixed, enabled=mixed is not None):
                self.written = going_on(
                    self.teacher, self.windows, self.config.written, prompt, seed=self.config.seed, progress=shown
                )
            self.pace.started = time.monotonic()
            self.progress.writing = self.pace.started - began
        self.windows = torch.cat([self.windows, self.written])

    def copies(self) -> dict[str, torch.Tensor]:
        """Copies of the weights that are trained."""
        return {name: each.detach().clone() for name, each in self.parameters.items()}

    def step(self, rate: float) -> None:
        """Move the weights once, at a learning rate relative to the highest. ValueError for a loss that is not a number."""
        config, number = self.config, self.progress.step
        for group in self.optimizer.param_groups:
            group["lr"] = config.rate * rate
        rows = self.windows[rows_of(len(self.windows), config.batch, number, config.seed)]
        positions = positions_of(rows, config.positions, config.seed * 1_000_003 + number)
        for some, places in zip(rows.split(config.at_once), positions.split(config.at_once)):
            with self.accelerator.accumulate(self.trunk):
                hidden, target, taught = self.states(some, places)
                with self.accelerator.autocast():
                    loss = mean_loss(self.head, hidden, target, taught, self.blend)
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients:
                    norm = self.accelerator.clip_grad_norm_(self.parameters.values(), config.clip)
                    # Where losses are scaled, for fp16, such a step is left out and the next is scaled less.
                    if self.accelerator.scaler is None and not math.isfinite(float(norm)):
                        raise ValueError(
                            f"the gradient at step {number} is not a number: the learning rate {config.rate:g} may be too high"
                        )
                self.optimizer.step()
                self.optimizer.zero_grad()

    def states(
        self, rows: torch.Tensor, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, tuple[Head, torch.Tensor] | None]:
        """Hidden states of some positions of windows, the tokens that come there, and what the teacher makes of them."""
        device = self.model.device
        rows, positions = rows.to(device), positions.to(device)
        taught = None
        if self.taught is not None:
            with torch.no_grad(), self.accelerator.autocast():
                trunk, head = self.taught
                taught = (head, trunk(rows, positions).flatten(0, 1))
        hidden = self.trunk(rows, positions).flatten(0, 1)
        return hidden, rows.gather(1, positions + 1).flatten(), taught

    @torch.no_grad()
    def check(self) -> dict[str, float]:
        """Mean losses at some positions of the windows that are set apart, the same each time."""
        positions = positions_of(self.apart, self.config.positions, self.config.seed)
        next_token = distillation = 0.0
        for rows, places in zip(self.apart.split(self.config.at_once), positions.split(self.config.at_once)):
            hidden, target, taught = self.states(rows, places)
            with self.accelerator.autocast():
                found = losses_at(self.head, hidden, target, taught)
            next_token += float(found.next_token)
            distillation += float(found.distillation)
        count = positions.numel()
        losses = {"next_token": next_token / count}
        if self.taught is not None:
            losses["distillation"] = distillation / count
        loss = (1 - self.blend) * next_token / count + self.blend * distillation / count
        if not math.isfinite(loss):
            raise ValueError(f"the held-out loss after step {self.progress.step} is not a number: the weights are damaged")
        return {"step": self.progress.step, "seconds": self.pace.elapsed, "loss": loss, **losses}


@contextmanager
def counted(shown: bool) -> Iterator[Callable[[float, float], None]]:
    """Show which part of the training is done, beside the last held-out loss."""
    with bar(PARTS, "tuning", "thousandth", shown) as drawn:
        done = 0

        def advance(part: float, loss: float) -> None:
            nonlocal done
            drawn.set_postfix_str(f"held-out loss {loss:.4f}", False)
            drawn.update(round(part * PARTS) - done)
            done = round(part * PARTS)

        yield advance


@contextmanager
def recomputed(model: PreTrainedModel) -> Iterator[None]:
    """Keep of every block its input alone while the context is open; the rest is computed again for the derivatives."""

    def again(own: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **given: checkpoint(own, *args, use_reentrant=False, **given)

    with ExitStack() as context:
        for block in blocks_of(model):
            context.enter_context(replaced_forward(block, again))
        yield
