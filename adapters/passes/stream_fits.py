"""Operators that add to the stream of hidden states, fitted so that the stream is again the dense model's behind a gap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from gramian.adapters.devices import all_finite, solver_array, tensor_of
from gramian.adapters.models.layers import Layer
from gramian.adapters.passes.stream_entries import Entry
from gramian.adapters.run.forward import Call, run_block
from gramian.adapters.run.hooks import watch
from gramian.solvers import Quadratic, Support, refit
from gramian.solvers.backend._xp import namespace
from gramian.solvers.core.certificate import certify

__all__ = ["Fitted", "StreamFit", "stream_errors"]


@dataclass(frozen=True)
class Fitted:
    """residual: |grad| / |grad at zero| of the problem at what is stored. error: of the stream on the batches that judge."""

    residual: float
    error: float


class StreamFit:
    """argmin_V sum_t |h_t(V) - T_t|^2 / |T_t|^2 + damping sum_j G_jj |V_j - W_j|^2 for one operator.

    h(V) = h(W) + c (V - W) u, u what enters the operator, where it is added to the stream; through a norm h(V) is linear too
    once the size s that the norm divides by is taken as it is with W, c = g / s. T: the dense stream behind the gap. A row
    counts as every reader of the stream sees it, that is by its size. A bias is fitted with the weights.
    """

    def __init__(self, name: str, block: nn.Module, call: Call, entry: Entry, dtype: torch.dtype) -> None:
        self.block, self.call, self.entry, self.dtype = block, call, entry, dtype
        self.layer = Layer(name, block.get_submodule(entry.path))
        self.before = self.parameters()
        self.biased = "bias" in self.before

    @torch.no_grad()
    def solve(
        self,
        entering: Sequence[torch.Tensor],
        targets: Sequence[torch.Tensor],
        fitted: int,
        aside: slice,
        strengths: Sequence[float],
    ) -> Fitted:
        """Write the weights, rounded to the storage dtype. entering: the block. fitted: how many batches count. aside: those
        by which the best of several dampings is chosen, by the error of the stream."""
        problem = self.problem(entering[:fitted], targets[:fitted])
        best: tuple[Fitted, dict[str, torch.Tensor]] | None = None
        for damping in strengths:
            residual = self.write(problem, damping)
            leaving = run_block(self.block, self.call, list(entering[aside]))
            found = Fitted(residual, float(stream_errors(targets[aside], leaving).mean()))
            if best is None or found.error < best[0].error:
                best = found, self.parameters()
        assert best is not None
        self.put(best[1])
        return best[0]

    def write(self, problem: Quadratic, damping: float) -> float:
        """Write the weights for one damping, and return the residual of what is stored."""
        xp = namespace(problem.anchor)
        penalty = damping * problem.diagonal
        if self.biased:  # means are free
            penalty = xp.concat([penalty[:-1], xp.zeros_like(penalty[-1:])])
        damped = problem.damped(penalty)
        everything = xp.ones_like(problem.anchor) > 0
        weights = tensor_of(refit(damped, everything).weights)
        width = self.layer.weight.shape[1]
        self.layer.assign(weights[:, :width], self.dtype)
        if self.biased:
            bias: torch.Tensor = self.layer.module.bias  # type: ignore[assignment]
            bias.copy_(weights[:, width].to(self.dtype).to(bias.dtype))
        return certify(damped, Support(everything), solver_array(self.weights())).residual or 0.0

    def weights(self) -> torch.Tensor:
        """W (q, p) in float64, with the bias as a column more."""
        weight = self.layer.weight.to(torch.float64, copy=True)
        if not self.biased:
            return weight
        bias: torch.Tensor = self.layer.module.bias  # type: ignore[assignment]
        return torch.cat([weight, bias.detach().double()[:, None]], dim=1)

    def problem(self, entering: Sequence[torch.Tensor], targets: Sequence[torch.Tensor]) -> Quadratic:
        """The quadratic in V, anchored at W."""
        weights = self.weights()
        place = weights.device
        gram = torch.zeros(weights.shape[1], weights.shape[1], dtype=torch.float64, device=place)
        slope, floor = torch.zeros_like(weights), torch.zeros(len(weights), dtype=torch.float64, device=place)
        noted: dict[str, torch.Tensor] = {}
        norm = None if self.entry.norm is None else self.block.get_submodule(self.entry.norm)
        with watch(self.layer.module, lambda given: noted.update(inputs=given)):
            for states, target in zip(entering, targets):
                if norm is None:
                    (leaving,) = run_block(self.block, self.call, [states])
                else:
                    with watch(norm, lambda given: noted.update(normed=given)):
                        (leaving,) = run_block(self.block, self.call, [states])
                inputs = noted["inputs"].flatten(0, -2).double()
                wanted = target.to(place).flatten(0, -2).double()
                missing = (wanted - leaving.to(place).flatten(0, -2).double()) / self.entry.gain.to(place)
                scale = wanted.square().mean(-1, keepdim=True)
                trust = torch.where(scale > 0, 1 / scale, torch.zeros_like(scale))
                if norm is not None:
                    size = self.entry.size(noted["normed"].flatten(0, -2).double())
                    missing, trust = missing * size, torch.where(size > 0, trust / size.square(), torch.zeros_like(trust))
                if self.biased:
                    inputs = torch.cat([inputs, torch.ones_like(inputs[:, :1])], dim=1)
                weighted = inputs * trust
                gram += inputs.T @ weighted
                slope -= missing.T @ weighted
                floor += 0.5 * (missing.square() * trust).sum(0)
        if not all_finite(gram) or not all_finite(slope):
            raise ValueError(f"the inputs of {self.layer.name} hold NaN or Inf")
        return Quadratic(*map(solver_array, (0.5 * (gram + gram.T), weights, slope, floor)))

    def parameters(self) -> dict[str, torch.Tensor]:
        """Copies of what the operator has."""
        return {leaf: each.detach().clone() for leaf, each in self.layer.module.named_parameters(recurse=False)}

    @torch.no_grad()
    def put(self, parameters: dict[str, torch.Tensor]) -> None:
        """Write what the operator had."""
        for leaf, value in parameters.items():
            self.layer.module.get_parameter(leaf).copy_(value)


def stream_errors(dense: Sequence[torch.Tensor], found: Sequence[torch.Tensor]) -> np.ndarray:
    """|g_t - h_t|^2 / |h_t|^2 of every token t of some batches, h the dense stream, g another; zero over zero is zero."""
    parts = []
    for h, g in zip(dense, found, strict=True):
        h, g = h.flatten(0, -2).double(), g.to(h.device).flatten(0, -2).double()
        apart = (g - h).square().sum(-1)
        parts.append(torch.where(apart > 0, apart / h.square().sum(-1), torch.zeros_like(apart)).cpu().numpy())
    return np.concatenate(parts) if parts else np.zeros(0)
