"""Experts that remain are fitted to what their mixture misses without the others, and may take over channels of these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from gramian.adapters.devices import solver_array, tensor_of
from gramian.adapters.models.experts import HIDDEN, Packed, expert_at
from gramian.adapters.models.layers import Layer
from gramian.adapters.models.mixtures import Mixing, Routing
from gramian.adapters.run.routing import forced
from gramian.solvers import Quadratic, Solution, greedy_removal, refit
from gramian.solvers.backend._xp import namespace

__all__ = ["ExpertFits", "heirs_of"]


def heirs_of(before: Routing, after: Routing, kept: np.ndarray) -> dict[int, list[int]]:
    """For every kept expert the removed ones that it takes the place of most often: most of their tokens are routed to it only
    now, or, where no expert is new to a token, at all."""
    heirs: dict[int, list[int]] = {}
    count = int(before.chosen.max()) + 1 if before.chosen.numel() else 0
    for gone in sorted({*range(count)} - {*kept.tolist()}):
        rows = (before.chosen == gone).any(dim=1)
        now, was = after.chosen[rows], before.chosen[rows]
        new = now[(now[:, :, None] != was[:, None, :]).all(dim=2)]
        found = new if new.numel() else now
        if found.numel():
            heirs.setdefault(int(found.reshape(-1).mode().values), []).append(gone)
    return heirs


@dataclass(frozen=True, eq=False)
class Fitted:
    """Weights (q, p of several experts) and what is then missing, with the KKT residual of the problem that was solved."""

    weights: torch.Tensor
    missing: torch.Tensor
    residual: float

    @property
    def loss(self) -> float:
        """|missing|^2."""
        return float(self.missing.square().sum())


@dataclass(frozen=True, eq=False)
class ExpertFits:
    """Experts of one mixture, fitted one after the other in place, each to what the ones before it have left.

    tokens: that enter the mixture. routing: without the experts that are gone. missing: of the answer to every token, which
    shrinks with every fit. damping: the ridge on the change, relative to each channel's energy. dtype: of the checkpoint.
    """

    model: nn.Module
    mixture: Mixing
    tokens: torch.Tensor
    routing: Routing
    missing: torch.Tensor
    damping: float
    dtype: torch.dtype

    def fit(self, number: int, others: Sequence[int] = ()) -> float | None:
        """argmin_D sum_t |missing_t - w_t (D h_t - D_0 h_t)|^2 + ridge, over the matrix D by which an expert answers.

        t are the tokens that are routed to it, w_t its weight there and h_t its hidden channels. others: experts that are gone,
        whose hidden channels at these tokens join h; as many channels as the expert had are kept, the others removed greedily
        while D is solved for anew, if that misses less than the expert's own do. Return the KKT residual; None where nothing is
        changed.
        """
        rows, place = torch.where(self.routing.chosen == number)
        if not len(rows):
            return None
        weights, gap = self.routing.weights[rows, place, None], self.missing[rows].double()
        layer, (packed, _) = self.answers(number)
        before = layer.weight.double().clone()
        width = before.shape[1]
        inputs = torch.cat([(forced(packed, each, self.tokens[rows]) * weights).double() for each in (number, *others)], dim=1)
        best, kept = self.solved(inputs[:, :width], before, gap), np.arange(width)
        if others:
            wide = torch.cat([before, before.new_zeros(len(before), inputs.shape[1] - width)], dim=1)
            order = greedy_removal(self.problem(inputs, wide, gap)).order
            channels = np.sort(np.setdiff1d(np.arange(inputs.shape[1]), np.asarray(order)[: inputs.shape[1] - width]))
            rival = self.solved(inputs, wide, gap, channels)
            if rival.loss < best.loss:
                best, kept = rival, channels
        if best.loss >= float(gap.square().sum()):
            return None
        layer.assign(solver_array(best.weights[:, torch.from_numpy(kept)]), self.dtype)
        if others:
            self.take_over(number, [number, *others], kept, width)
        # What is stored is rounded, and so is what is missing then.
        change = torch.zeros_like(best.weights)
        change[:, torch.from_numpy(kept)] = layer.weight.double()
        change[:, :width] -= before
        self.missing[rows] = (gap - inputs[:, : change.shape[1]] @ change.T).to(self.missing.dtype)
        return best.residual

    def answers(self, number: int) -> tuple[Layer, tuple[Packed, int]]:
        """The matrix by which an expert answers."""
        name = f"{self.mixture.name}.{HIDDEN}.{number}"
        found = expert_at(self.model, name)
        assert found is not None
        return Layer.at(self.model, name), found

    def problem(self, inputs: torch.Tensor, anchor: torch.Tensor, gap: torch.Tensor) -> Quadratic:
        """The loss of matrices D, with its ridge."""
        gram, slope, floor = (solver_array(x) for x in (inputs.T @ inputs, -(gap.T @ inputs), 0.5 * gap.square().sum(0)))
        plain = Quadratic(gram, solver_array(anchor), slope, floor)
        return plain.damped(self.damping * plain.diagonal)

    def solved(self, inputs: torch.Tensor, anchor: torch.Tensor, gap: torch.Tensor, kept: np.ndarray | None = None) -> Fitted:
        """The best D with the kept channels; None keeps all."""
        problem = self.problem(inputs, anchor, gap)
        xp = namespace(problem.gram)
        mask = np.ones(anchor.shape[1], dtype=bool) if kept is None else np.isin(np.arange(anchor.shape[1]), kept)
        solution: Solution = refit(problem, xp.asarray(xp.broadcast_to(xp.asarray(mask)[None, :], problem.shape), copy=True))
        weights = tensor_of(solution.weights).to(anchor)
        return Fitted(weights, gap - inputs @ (weights - anchor).T, solution.certificate.residual or 0.0)

    def take_over(self, number: int, experts: Sequence[int], kept: np.ndarray, width: int) -> None:
        """Let the hidden channels of an expert be the kept ones of several, in what makes them: matrices and biases."""
        module = self.model.get_submodule(self.mixture.name)
        owners, channels = (torch.from_numpy(part) for part in np.divmod(kept, width))
        experts_of = torch.tensor(experts)[owners]
        for name, tensor in module.named_parameters(recurse=False):
            if name.startswith(HIDDEN):
                continue
            transposed = tensor.ndim == 3 and bool(getattr(module, "is_transposed", False))
            rows = tensor.data.mT if transposed else tensor.data  # (experts, rows, ...)
            sections = rows.shape[1] // width  # of gate and up: one after the other, or by turns
            together = bool(getattr(module, "is_concatenated", True))
            taken = [
                rows[experts_of, section * width + channels if together else sections * channels + section]
                for section in range(sections)
            ]
            for section, values in enumerate(taken):
                places = torch.arange(width)
                rows[number, section * width + places if together else sections * places + section] = values
