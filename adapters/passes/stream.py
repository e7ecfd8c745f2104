"""The stream of the dense model wherever a norm reads it: its second moments, and the basis that keeps most of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from gramian.adapters.methods.stream_methods import ChooseBasis
from gramian.adapters.models.block_lists import blocks_of, blocks_path
from gramian.adapters.models.examples import Rows
from gramian.adapters.models.narrowing import narrow_exactly
from gramian.adapters.removal.report import ModuleReport
from gramian.adapters.removal.stream import Narrowing
from gramian.adapters.run.forward import enter, run_block
from gramian.adapters.run.hooks import feed
from gramian.adapters.run.naming import naming
from gramian.solvers import Moments
from gramian.solvers.backend._xp import to_numpy
from gramian.solvers.units.stream_basis import StreamBasis, least_lost, share_outside

__all__ = ["NarrowStream", "StreamNarrowed"]


@dataclass(frozen=True)
class StreamNarrowed:
    """rows: one for every norm of the stream. basis: and what it loses. own: the mean over norms of the least that a basis of
    their own would lose."""

    rows: tuple[ModuleReport, ...]
    basis: StreamBasis
    own: float


@dataclass(eq=False)
class NarrowStream:
    """argmin of sum_l |X_l - X_l Q Q^T|^2 over Q with Q^T Q = I_k, and the model in that basis.

    X_l: what norm l reads in the dense model, every token of length one. batches: of which `fitted` calibrate, and errors are
    reported on the others too. choose: the method.
    """

    model: Any
    plan: Narrowing
    choose: ChooseBasis
    batches: Sequence[Rows]
    fitted: int
    advance: Callable[[], object]
    moments: dict[str, tuple[Moments, Moments]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self) -> StreamNarrowed:
        """Gather, choose, and narrow the model."""
        self.gather()
        places = list(self.plan.parts.norms)
        grams = [self.moments[name][0].gram for name in places]
        basis = self.choose(grams, self.plan.width)
        rows = tuple(self.row(name, basis, place) for place, name in enumerate(places))
        narrow_exactly(self.model, self.plan.parts, torch.from_numpy(to_numpy(basis.basis).copy()).double(), self.plan.built)
        return StreamNarrowed(rows, basis, sum(row.detail["own_basis"] for row in rows) / len(rows))

    @torch.no_grad()
    def gather(self) -> None:
        """Walk the dense model once; the last norm reads what leaves the last block."""
        parts, path = self.plan.parts, blocks_path(self.model)
        self.moments = {name: (Moments(parts.width), Moments(parts.width)) for name in parts.norms}
        hidden, calls = enter(self.model, self.batches)
        for number, block in enumerate(blocks_of(self.model)):
            started, prefix = time.perf_counter(), f"{path}.{number}."
            names = [name for name in parts.norms if name.startswith(prefix)]
            taps = {self.model.get_submodule(name): partial(self.receive, name) for name in names}
            with naming(prefix[:-1]):
                hidden = run_block(block, calls[number], hidden, taps)
            self.seconds |= dict.fromkeys(names, (time.perf_counter() - started) / max(1, len(names)))
            self.advance()
        for batch, states in enumerate(hidden):
            self.receive(parts.last, batch, states)

    def receive(self, name: str, batch: int, inputs: torch.Tensor) -> None:
        """Take what a norm reads in a batch."""
        tokens = inputs.flatten(0, -2).to(torch.promote_types(inputs.dtype, torch.float32))
        feed(name, self.moments[name][batch >= self.fitted], nn.functional.normalize(tokens, dim=-1, eps=1e-30))

    def row(self, name: str, basis: StreamBasis, place: int) -> ModuleReport:
        """The row of a norm: what the common basis loses there, and what its own would."""
        started = time.perf_counter()
        calibration, heldout = self.moments[name]
        lost, widths = basis.shares[place], (self.plan.parts.width, self.plan.width)
        detail = {"own_basis": least_lost(calibration.gram, self.plan.width)}
        apart = share_outside(heldout.gram, basis.basis) if self.fitted < len(self.batches) else None
        seconds = self.seconds.get(name, 0.0) + time.perf_counter() - started
        return ModuleReport(name, widths, widths, lost, lost, apart, None, "reads the narrowed stream", seconds, detail)
