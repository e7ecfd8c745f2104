"""What rounding alone can do: tolerances that follow from the arithmetic, and that no processor can miss."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import nn


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


@torch.no_grad()
def rounding_of(model: nn.Module, compute: Callable[[nn.Module], torch.Tensor]) -> float:
    """max |compute(M') - compute(M)|, M' the model M with every matrix entry moved by a factor 1 ± 2 γ_n: how far apart two
    orders of summation can bring what a network computes, however its layers amplify what they are given.

    The factors 1 + θ_k of `rounding` can be had by the weights: a product in one order of summation is that in another for
    a matrix whose entries moved by at most 2 γ_n, n its inputs. Signs are drawn, which is not the worst case; but γ_n lets
    all n errors add up, which in fact cancel but for about √n, and that is the room it leaves.
    """
    moved, generator = copy.deepcopy(model), torch.Generator().manual_seed(0)
    for module in moved.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.Tensor) and weight.ndim == 2 and not isinstance(module, nn.Embedding):
            terms = weight.shape[1] if isinstance(module, nn.Linear) else weight.shape[0]
            signs = 2 * torch.randint(2, weight.shape, generator=generator) - 1
            weight.mul_(1 + rounding(terms, 1.0, str(weight.dtype).removeprefix("torch.")) * signs)
    return (compute(moved) - compute(model)).abs().max().item()
