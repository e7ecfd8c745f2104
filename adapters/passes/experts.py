"""The pass that removes whole experts of mixtures: those whose absence the mixture's own output notices least."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from gramian.adapters.methods.expert_methods import Choose
from gramian.adapters.models.mixtures import Mixing, Routing, cut_experts, routed
from gramian.adapters.passes.expert_fits import ExpertFits, heirs_of
from gramian.adapters.passes.removal import Removed
from gramian.adapters.removal.report import ModuleReport
from gramian.adapters.run.walk import Receive, Replay
from gramian.solvers.units.mixture import Mixture

__all__ = ["RemoveExperts"]

SAMPLE = 1024  # tokens, evenly among those that calibrate, by which experts are chosen
AT_ONCE = 64  # tokens whose outputs of all experts are in memory together


@dataclass(frozen=True, eq=False)
class RemoveExperts:
    """argmin_S sum_t |M_S(x_t) - M(x_t)|^2 over sets S of experts, for every mixture M of a block, and what remains refitted.

    M_S routes anew without the experts that are gone. Tokens x are those that enter the mixture, in the dense model or in the
    model as it is pruned so far (`follows`), and what is to be matched is the dense mixture's answer to them. mixtures: by the
    full name of their experts. keep: how many experts remain of each. choose: the method. exchanges: whether kept experts are
    exchanged for removed ones while that helps. compensates: whether the matrices by which the others answer are fitted, one
    expert after the other, to what is missing, with a ridge of `damping` on their change, relative to each channel's energy.
    merges: whether hidden channels of removed experts may take the place of those of the expert that most of their tokens go
    to. calibrating: how many batches calibrate; the rest are held out.
    """

    model: nn.Module
    paths: tuple[str, ...]
    mixtures: Mapping[str, Mixing]
    keep: int
    choose: Choose
    exchanges: bool
    follows: str
    compensates: bool
    merges: bool
    damping: float
    calibrating: int
    dtype: torch.dtype
    advance: Callable[[], object]
    name = "experts"
    runs = True
    taps_dense = False
    types: Sequence[type] = (Removed, ModuleReport)

    @property
    def stop(self) -> int:
        """After the last block with a mixture."""
        return 1 + max(index for index in range(len(self.paths)) if self.inside(index))

    def inside(self, index: int) -> list[Mixing]:
        """The mixtures of a block."""
        return [each for name, each in self.mixtures.items() if name.startswith(f"{self.paths[index]}.")]

    def written(self, index: int) -> list[str]:
        """The experts and routers of a block."""
        return [name for each in self.inside(index) for name in (each.name, each.router)]

    def open(self, index: int, block: nn.Module) -> ExpertsOfBlock:
        """Begin with a block."""
        return ExpertsOfBlock(self, self.inside(index))


@dataclass(eq=False)
class ExpertsOfBlock:
    """The mixtures of one block, and the tokens that entered each, batch by batch."""

    each: RemoveExperts
    mixtures: list[Mixing]
    entered: dict[str, dict[int, torch.Tensor]] = field(default_factory=dict)

    @property
    def taps(self) -> dict[nn.Module, Receive]:
        """The experts of every mixture."""
        return {self.each.model.get_submodule(mixture.name): self.receiver(mixture.name) for mixture in self.mixtures}

    @property
    def replayed(self) -> list[nn.Module]:
        """Nothing: a mixture is judged by the tokens that entered it when they were tapped."""
        return []

    def receiver(self, name: str) -> Receive:
        """Keep what enters the experts of one mixture."""

        def receive(batch: int, inputs: torch.Tensor) -> None:
            self.entered.setdefault(name, {})[batch] = inputs.reshape(-1, inputs.shape[-1])

        return receive

    @torch.no_grad()
    def decide(self, replay: Replay, drifted: bool) -> list[Removed]:
        """Remove experts of one mixture after the other."""
        rows = []
        for mixture in self.mixtures:
            batches = self.entered.pop(mixture.name)
            calibrating, apart = (
                torch.cat(part) if part else None
                for part in (
                    [batches[number] for number in sorted(batches) if number < self.each.calibrating],
                    [batches[number] for number in sorted(batches) if number >= self.each.calibrating],
                )
            )
            assert calibrating is not None
            rows.append(thinned(self.each, mixture, calibrating, apart))
            self.each.advance()
        return rows


def thinned(each: RemoveExperts, mixture: Mixing, tokens: torch.Tensor, apart: torch.Tensor | None) -> Removed:
    """Choose the experts of one mixture that remain, refit them, cut the mixture to them, and evaluate what is stored."""
    started = time.perf_counter()
    experts, router = (each.model.get_submodule(name) for name in (mixture.name, mixture.router))
    everyone = torch.arange(mixture.count, device=tokens.device)

    def answers(given: torch.Tensor, routing: Routing) -> torch.Tensor:
        return torch.cat([experts(*part) for part in zip(*(x.split(2048) for x in (given, routing.chosen, routing.weights)))])

    dense = answers(tokens, routed(router, tokens, everyone))
    dense_apart = None if apart is None else answers(apart, routed(router, apart, everyone))
    if not bool(torch.isfinite(dense).all()):
        raise ValueError(f"{mixture.name} answers with NaN or Inf")
    sample = torch.linspace(0, len(tokens) - 1, min(SAMPLE, len(tokens)), device=tokens.device).round().long()
    chosen_from, wanted = tokens[sample], dense[sample]

    def route(kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        routing = routed(router, chosen_from, torch.from_numpy(kept).to(tokens.device))
        return routing.chosen.cpu().numpy(), routing.weights.double().cpu().numpy()

    choice = each.choose(products_of(experts, mixture, chosen_from, wanted), route, each.keep, each.exchanges)
    kept = torch.from_numpy(choice.kept).to(tokens.device)
    routing = routed(router, tokens, kept)
    missing = dense - answers(tokens, routing)
    energy, plain = float(dense.double().square().sum()), float(missing.double().square().sum())
    residuals: list[float] = []
    if each.compensates and len(kept) < mixture.count:
        heirs = heirs_of(routed(router, tokens, everyone), routing, choice.kept) if each.merges else {}
        fits = ExpertFits(each.model, mixture, tokens, routing, missing, each.damping, each.dtype)
        residuals = [found for number in choice.kept.tolist() if (found := fits.fit(number, heirs.get(number, ()))) is not None]
    cut_experts(each.model, mixture, kept)
    everyone = torch.arange(len(kept), device=tokens.device)
    left = float((dense - answers(tokens, routed(router, tokens, everyone))).double().square().sum())
    heldout = None
    if apart is not None and dense_apart is not None:
        now = answers(apart, routed(router, apart, everyone))
        heldout = relative(float((dense_apart - now).double().square().sum()), float(dense_apart.double().square().sum()))
    row = ModuleReport(
        name=mixture.name,
        units=(mixture.count, len(kept)),
        groups=(mixture.groups, mixture.groups),
        masked_error=relative(plain, energy),
        relative_error=relative(left, energy),
        heldout_error=heldout,
        residual=max(residuals, default=None),
        status="removed one by one" if len(kept) < mixture.count else "nothing was removed",
        seconds=time.perf_counter() - started,
        detail={"sample_error": choice.relative_error, "exchanges": float(choice.exchanges)},
    )
    return Removed(row, choice.kept)


def relative(loss: float, energy: float) -> float:
    """loss / energy, where zero over zero is zero."""
    return loss / energy if energy > 0 else (0.0 if loss <= 0 else float("inf"))


def products_of(experts: nn.Module, mixture: Mixing, tokens: torch.Tensor, wanted: torch.Tensor) -> Mixture:
    """Let every expert answer every token, and keep the products of the answers."""
    parts = []
    for given, targets in zip(tokens.split(AT_ONCE), wanted.split(AT_ONCE)):
        alone = given.new_ones(len(given), 1)
        every = torch.stack(
            [experts(given, torch.full_like(alone, number, dtype=torch.int64), alone) for number in range(mixture.count)], dim=1
        ).double()
        parts.append((every @ every.mT, (every @ targets.double()[:, :, None])[:, :, 0]))
    grams, products = (torch.cat(part).cpu().numpy() for part in zip(*parts))
    return Mixture(grams, products, wanted.double().square().sum(1).cpu().numpy(), mixture.groups)
