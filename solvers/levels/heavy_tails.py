"""AlphaPruning: blocks whose weights have heavy-tailed spectra remain denser (Lu et al. 2024)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gramian.solvers.backend._xp import Array, namespace, to_numpy

__all__ = ["SPREAD", "hill_exponent", "tail_sparsities"]

SPREAD = 0.3  # tau: how far a block's share of the sparsity may be from the mean, relative to it


def hill_exponent(weight: Array) -> float:
    """alpha = 1 + k / sum_(i = 1..k) ln(l_i / l_(k+1)),  l_1 >= l_2 >= ... the eigenvalues of W^T W above rounding

    The Hill estimate of the exponent of the density l^-alpha of a tail, from the larger half of the eigenvalues, k = n // 2
    (Lu et al., AlphaPruning, 2024). It is above 1, and does not depend on the unit of W. The
    smaller, the heavier the tail and, they argue, the better trained the layer. Infinite where the larger half is
    all of one size, or there are fewer than two eigenvalues: then there is no tail.

    weight: W, (q, p), finite.
    """
    xp = namespace(weight)
    values = to_numpy(xp.linalg.svdvals(xp.astype(weight, xp.float64)))
    largest = float(values.max(initial=0.0))
    values = values[values > largest * max(weight.shape) * np.finfo(np.float64).eps]
    k = len(values) // 2
    if not k:
        return math.inf
    logs = 2 * np.log(values[:k] / values[k])
    total = float(logs.sum())
    return 1 + k / total if total > k * 1e-9 else math.inf


def tail_sparsities(exponents: Sequence[float], sizes: Sequence[int], sparsities: Sequence[float]) -> list[float]:
    """S_k = c S0_k (1 - tau + 2 tau (a_k - min a) / (max a - min a)) with c such that sum_k n_k S_k = sum_k n_k S0_k

    a_k is the mean `hill_exponent` of the weights of block k: the lighter its tail, the sparser it becomes (Lu et al. 2024,
    where all blocks have one S0). An infinite exponent counts as the largest finite one, and where all are equal
    nothing is spread. Sparsities stay in [0, 1): what is cut off there the other blocks make up for, and a block with S0 = 0
    remains dense.

    exponents: a. sizes: n, of the weights that are pruned. sparsities: S0, what every block has without it.
    """
    given, size, plain = (np.asarray(each, dtype=np.float64) for each in (exponents, sizes, sparsities))
    finite = given[np.isfinite(given)]
    given = np.minimum(given, finite.max()) if len(finite) else np.zeros_like(given)
    span = float(given.max() - given.min())
    share = 1 - SPREAD + 2 * SPREAD * (given - given.min()) / span if span > 0 else np.ones_like(given)
    wanted, low, high = float(size @ plain), 0.0, 1.0
    most = 1.0 - 1e-9
    positive = (plain * share)[plain > 0]
    if len(positive):
        high = 1.0 / float(positive.min())  # there every block that is pruned at all is cut off
    for _ in range(200):  # the total rises with the factor, so that bisection meets it to rounding
        factor = 0.5 * (low + high)
        found = np.clip(factor * plain * share, 0.0, most)
        low, high = (factor, high) if float(size @ found) < wanted else (low, factor)
    return [float(each) for each in found]
