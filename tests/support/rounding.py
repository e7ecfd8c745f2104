"""What rounding alone can do: bounds for sums, losses and solves, which no processor can miss, and an estimate for networks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    from gramian.proofs.kit.strategies import Layer

DRAWS, FACTOR = 4, 2  # of the estimate for networks


def rounding(terms: int, magnitude: float, dtype: str = "float64") -> float:
    """2 γ_n m: how far apart two computed values of one sum of n products with Σ_k |a_k b_k| <= m can lie.

    A product passes through at most n roundings on its way into the sum, its own and those of at most n - 1 additions, in
    whatever order the processor adds, with fused multiply-adds or without. Each is a factor 1 + δ, |δ| <= u = eps / 2, so
    the computed sum is Σ_k a_k b_k (1 + θ_k) with |θ_k| <= γ_n = n u / (1 - n u), and is at most γ_n m from the exact one
    (Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, Section 3.1). Two computed sums lie at most twice
    that apart. Where more roundings follow, each relative to at most m, they count as further terms.
    """
    unit = float(np.finfo(dtype).eps) / 2
    return 2 * terms * unit / (1 - terms * unit) * magnitude


def rounding_of_loss(layer: Layer, point: np.ndarray) -> float:
    """How far apart two computed values of 1/2 |X* V^T - X W^T|^2 can lie, from X* and X or from their moments.

    With D = V - W and C = X* - X it is 1/2 |X* D^T + C W^T|^2. Multiplied out it is a sum of products whose sizes add up to at
    most m = 1/2 Σ (|X*| (|V| + |W|)^T + |C| |W|^T)^2. With T tokens, p inputs and q outputs each passes through T + q
    additions of tokens and outputs, 2 p of inputs, 4 p where V and W are multiplied before they are subtracted, and fewer
    than 16 further roundings: differences, products, and the way to and from unit-diagonal coordinates.
    """
    (tokens, inputs), outputs = layer.inputs.shape, len(layer.weight)
    drift = 0 if layer.dense is None else np.abs(layer.inputs - layer.dense) @ np.abs(layer.weight).T
    size = np.abs(layer.inputs) @ (np.abs(point) + np.abs(layer.weight)).T + drift
    return rounding(tokens + 4 * inputs + outputs + 16, 0.5 * float(np.sum(size**2)))


def rounding_of_solve(gram: np.ndarray, magnitude: float, tokens: int = 1) -> float:
    """2 κ γ_k m, k = n (3 n + 1 + T): how far apart, to first order, two computed solutions of G x = b with |x| <= m can lie.

    A Cholesky factorisation R^T R and its two triangular solves answer (G + E) x = b with |E| <= γ_(3 n + 1) |R^T| |R|, whose
    norm is at most n |G| (Higham, Theorem 10.4 and what follows it); a Gram G = X^T X of T tokens is itself off by at most
    γ_T |X|^T |X|, whose norm is at most tr G <= n |G|. A change of G by ε |G| moves x by κ ε |x|, with κ = |G| |G^-1|.
    """
    unknowns = len(gram)
    return float(np.linalg.cond(gram)) * rounding(unknowns * (3 * unknowns + 1 + tokens), magnitude)


@torch.no_grad()
def rounding_of(model: nn.Module, compute: Callable[[nn.Module], torch.Tensor]) -> float:
    """2 max |compute(M') - compute(M)| over four M', the model M with every matrix entry moved by a factor 1 ± 2 γ_n: an
    estimate of how far apart two orders of summation bring what a network computes, however its layers amplify it.

    The factors 1 + θ_k of `rounding` can be had by the weights: a product in one order of summation is that in another for
    a matrix whose entries moved by at most 2 γ_n, n its inputs. This is no bound: signs are drawn, which is not the worst case,
    and norms, softmax and other functions keep their entries. But γ_n lets all n errors add up, which in fact cancel but for
    about √n; that, and the factor 2 over the largest of four draws, is the room it leaves.
    """
    exact, generator, furthest = compute(model), torch.Generator().manual_seed(0), 0.0
    for _ in range(DRAWS):
        moved = copy.deepcopy(model)
        for module in moved.modules():
            weight = getattr(module, "weight", None)
            if isinstance(weight, torch.Tensor) and weight.ndim == 2 and not isinstance(module, nn.Embedding):
                terms = weight.shape[1] if isinstance(module, nn.Linear) else weight.shape[0]
                signs = (2 * torch.randint(2, weight.shape, generator=generator) - 1).to(weight.dtype)
                weight.mul_(1 + rounding(terms, 1.0, str(weight.dtype).removeprefix("torch.")) * signs)
        furthest = max(furthest, (compute(moved) - exact).abs().max().item())
    return FACTOR * furthest
