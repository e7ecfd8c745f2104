"""What rounding alone can do to a sum: tolerances that follow from the arithmetic, and that no processor can miss."""

from __future__ import annotations

import numpy as np


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
