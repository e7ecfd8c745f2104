"""How far removing units can move Theta(x, x) = |grad f(x)|_1, the SignGD kernel at one input, from the dense model alone.

eps is the sum over the removed weights of |df/dW W| at x, and c the least |W| among them. They are numbers or arrays, one for
every x. These are TASP's Proposition D.1 as it can be proven (`gramian.proofs`, claims T5 and T6).
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["linear_bound", "smooth_bound"]


def linear_bound(saliency: Any, smallest: Any) -> Any:
    """eps / c, for f linear in the output of the one sub-layer whose units are removed, and an activation with s(0) = 0.

    It is infinite for c = 0, unless eps is 0 too and nothing can be said at all (NaN).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.divide(saliency, smallest)


def smooth_bound(saliency: Any, smallest: Any, slope: Any, curvature: Any, kept: Any) -> Any:
    """eps [1 / c + L n / (2 |phi'|)], for f = phi(score), the score linear in that output, ReLU, and phi' Lipschitz.

    slope: phi' at the score, not 0. curvature: L, the Lipschitz constant of phi'. kept: n, the sum of |d score / dW| over the
    weights that are kept. For a score itself, phi(s) = s, it is the bound above.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return linear_bound(saliency, smallest) + np.divide(saliency * curvature * kept, 2 * np.abs(slope))
