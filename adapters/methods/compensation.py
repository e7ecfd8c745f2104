"""Compensation for removed units where their module sums them: in the consumer's other weights, or in its bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn

from gramian.adapters.models.layers import Layer
from gramian.solvers import Moments, Quadratic, Status, Support, certify, refit
from gramian.solvers.backend._xp import Array, device, namespace, to_numpy

__all__ = ["Answer", "Compensation", "Output", "add_bias", "compensate", "residual", "support_of"]

Compensation = Literal["weights", "bias", "none"]


@dataclass(frozen=True, eq=False)
class Output:
    """1/2 |X* V^T + 1 b^T - X W^T|^2 = f(V) + <b, r> + N / 2 |b|^2,   r = sum over tokens of V x* - W x (q,).

    It is the loss of a consumer's weights V and of a change b of its bias. problem: f, whose anchor is W. moments: those of
    X* and X, which hold their sums over tokens.
    """

    problem: Quadratic
    moments: Moments

    def surplus(self, weights: Array) -> Array:
        """r = (V - W) sum x* + W sum (x* - x)."""
        anchor = self.problem.anchor
        change = (weights - anchor) @ self.moments.total
        return change if self.moments.shift is None else change + anchor @ self.moments.shift

    def best_bias(self, weights: Array) -> Array:
        """b = -r / N, which for X* = X and V = W on the kept columns is W_P times the mean of the removed inputs P."""
        return -self.surplus(weights) / self.moments.tokens

    def relative_error(self, weights: Array, bias: Array | None) -> float:
        """|X* V^T + 1 b^T - X W^T|^2 / |X W^T|^2, where zero over zero is zero."""
        if bias is None:
            return self.problem.relative_error(weights)
        xp = namespace(weights, bias)
        loss = self.problem.loss(weights) + float(xp.sum(bias * (self.surplus(weights) + 0.5 * self.moments.tokens * bias)))
        return loss / self.problem.energy if self.problem.energy > 0 else (0.0 if loss <= 0 else float("inf"))


@dataclass(frozen=True, eq=False)
class Answer:
    """Weights (q, p) that are zero in removed columns, and the change of the bias (q,), None where there is none."""

    weights: Array
    bias: Array | None
    status: Status


def compensate(output: Output, columns: np.ndarray, how: Compensation, damping: float) -> Answer:
    """argmin_V f(V) + 1/2 sum_j damping G_jj |V_j - W_j|^2 subject to V_P = 0 for `how` = `weights`.

    P are the removed columns, and one factorisation serves all outputs (Numerical Pruning, Eq. (10), for X* = X and no
    damping; its Remark 5 damps likewise). `bias`: V = W on the kept columns, with the best bias (FLAP). `none`: V = W on the
    kept columns. columns: boolean (p,), True for the inputs that are kept.
    """
    problem = output.problem
    support = support_of(problem, columns)
    if how == "weights":
        solution = refit(problem.damped(damping * problem.diagonal), support)
        return Answer(solution.weights, None, solution.status)
    weights = Support(support).prox(problem.anchor, 1.0)
    return Answer(weights, output.best_bias(weights) if how == "bias" else None, Status.DIRECT)


def support_of(problem: Quadratic, columns: np.ndarray) -> Array:
    """The same columns for every row, boolean (q, p), on the problem's backend."""
    xp = namespace(problem.gram)
    row = xp.asarray(columns, device=device(problem.gram))
    return xp.asarray(xp.broadcast_to(row[None, :], problem.shape), copy=True)


def residual(problem: Quadratic, columns: np.ndarray, damping: float, weights: Array) -> float:
    """|grad f over the kept weights| / |grad f(0)| of the damped problem, zero where the kept weights are optimal."""
    damped = problem.damped(damping * problem.diagonal)
    return certify(damped, Support(support_of(problem, columns)), weights).residual or 0.0


def add_bias(layer: Layer, change: Array, dtype: torch.dtype) -> Array:
    """Add `change` (q,) to the bias of a module, and return the change that was stored, in float64, on the backend of `change`.

    A module without a bias gets one. The sum is rounded to `dtype` and then to the dtype of the weight. ValueError is raised
    where the sum is not finite."""
    module, weight = layer.module, layer.weight
    before = torch.zeros(weight.shape[0], dtype=weight.dtype, device=weight.device)
    if isinstance(module.bias, torch.Tensor):
        before = module.bias.detach()
    after = (before.double().cpu() + torch.from_numpy(to_numpy(change).copy())).to(dtype).to(weight)
    if not bool(torch.isfinite(after).all()):
        raise ValueError(f"the bias for {layer.name} holds NaN or Inf in {dtype}")
    module.bias = nn.Parameter(after, requires_grad=bool(module.weight.requires_grad))
    stored = (after.double() - before.double()).cpu().numpy()
    return namespace(change).asarray(stored, device=device(change))
