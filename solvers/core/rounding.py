"""What float64 can do to a loss and to its gradient: bounds that hold on any processor, in any order of summation.

With d = V - W and D_j = sqrt(G_jj), the products that a loss is made of are at most |d_i| |G_ij| |d_j| <= D_i |d_i| D_j |d_j|.
A sum of products, each of which passes through at most n roundings, is within γ_n = n u / (1 - n u) times the sum of their
sizes, u = 2^-53 (Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, Section 3.1). Hence per row

    |computed g_j - g_j| <= γ_(p + 3) (D_j sum_i D_i |d_i| + |slope_j|),
    |computed f - f| <= γ_(2 p + 6) (1/2 (sum_i D_i |d_i|)^2 + <|slope|, |d|> + |floor|);

a few more roundings stand for those of the bounds themselves. Numbers that underflow add less than 1e-300.
"""

from __future__ import annotations

from dataclasses import dataclass

from gramian.solvers.backend._xp import Array, namespace
from gramian.solvers.core.grams import DEFECT, REACH

__all__ = ["Rounding", "gamma"]

SPARE = 16  # roundings of the bounds themselves
TINY = 2.0**-1022  # below which products may lose their digits, or vanish


def gamma(roundings: int) -> float:
    """Return γ_n = n u / (1 - n u) for float64."""
    return roundings * 2.0**-53 / (1 - roundings * 2.0**-53)


@dataclass(frozen=True, eq=False)
class Rounding:
    """Hold bounds of what rounding may have done at some V.

    loss: to f, (q,). gradient: to its gradient, (q, p). length: |D (V - W)|_2 per row, (q,). coarse: what moments in float32,
    or of float32 products, may leave of a loss that is zero, besides, (q,).
    """

    loss: Array
    gradient: Array
    length: Array
    coarse: Array

    @classmethod
    def of(cls, change: Array, norms: Array, slope: Array | None, floor: Array | None) -> Rounding:
        """Return the bounds from V - W (q, p), the norms D of the channels (p,), and the slope and the floor if any."""
        xp = namespace(change)
        width = change.shape[1]
        moved = xp.abs(change) * norms
        reach = REACH * xp.sum(moved, axis=1)
        squares = xp.sum(moved * moved, axis=1)
        size, short, pull = 0.5 * reach**2, 0.5 * squares, reach[:, None] * norms
        if slope is not None and floor is not None:
            others = xp.sum(xp.abs(slope * change), axis=1) + xp.abs(floor)
            size, short = size + others, short + others
            pull = pull + xp.abs(slope)
        lost = xp.where(reach > 0, width * TINY + 0 * reach, 0 * reach)
        loss = gamma(2 * width + 6 + SPARE) * size + lost * (1 + xp.sum(xp.abs(change), axis=1))
        gradient = gamma(width + 3 + SPARE) * pull + xp.where(norms > 0, lost[:, None], 0 * pull)
        return cls(loss, gradient, xp.sqrt(squares), DEFECT * short)
