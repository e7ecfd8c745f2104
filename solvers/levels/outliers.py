"""OWL: blocks whose weights have many outliers remain denser (Yin et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["OUTLIER", "SPREAD", "outlier_ratio", "outlier_sparsities"]

OUTLIER = 5.0  # M: how many times the mean an outlier is, at the least
SPREAD = 0.08  # lambda: how far a sparsity may be from the mean


def outlier_ratio(scores: Sequence[np.ndarray]) -> float:
    """D = sum_ij [A_ij > M mean A] / n, the part of a block's weights that are outliers, less than 1 / M (Yin et al. 2024)

    scores: A_ij = |W_ij| |X_j|_2 >= 0 of all operators of a block, of which the mean is taken at once.
    """
    size = sum(each.size for each in scores)
    mean = sum(float(each.sum()) for each in scores) / size
    return sum(int((each > OUTLIER * mean).sum()) for each in scores) / size


def outlier_sparsities(ratios: Sequence[float], sizes: Sequence[int], sparsities: Sequence[float]) -> list[float]:
    """S_k = S0_k - 2 lambda (D_k - min D) / (max D - min D) + c with c such that sum_k n_k S_k = sum_k n_k S0_k

    D_k is the part of the weights of block k whose |W_ij| |X_j|_2 is more than M times the mean over the block. The densities
    are spread over an interval of width 2 lambda by D, and shifted to the mean that is wanted (Yin et al., Outlier Weighed
    Layerwise Sparsity, 2024, Section 3.2, and their code, whose blocks all have one size and one S0). Where all D are equal
    nothing is spread. Sparsities stay in [0, 1): what is cut off there the other blocks make up for.

    ratios: D. sizes: n, of the weights that are pruned. sparsities: S0, what every block has without it.
    """
    ratio, size, plain = (np.asarray(each, dtype=np.float64) for each in (ratios, sizes, sparsities))
    span = float(ratio.max() - ratio.min())
    spread = 2 * SPREAD * (ratio - ratio.min()) / span if span > 0 else np.zeros_like(ratio)
    low, high = -1.0 - 2 * SPREAD, 1.0 + 2 * SPREAD
    wanted = float(size @ plain)
    for _ in range(200):  # the total rises with the shift, so that bisection meets it to rounding
        shift = 0.5 * (low + high)
        found = np.clip(plain - spread + shift, 0.0, 1.0 - 1e-9)
        low, high = (shift, high) if float(size @ found) < wanted else (low, shift)
    return [float(each) for each in found]
