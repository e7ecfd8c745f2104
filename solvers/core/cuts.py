"""Masks of the largest of scores that change little from one step to the next."""

from __future__ import annotations

from gramian.solvers.backend._xp import Array, kth_largest, namespace, on_host
from gramian.solvers.core.patterns import Pattern, TopK, reaching

__all__ = ["MovingCut"]

AROUND = 0.05  # of the last cut, on both sides, where the next one is looked for


class MovingCut:
    """pattern.largest(score) for scores (q, p) without NaN, one after the other.

    Of a count over the whole matrix the last score that is kept, the cut, moves little from step to step: it is found among the
    scores around the last one, which are few, unless it is not there. On a device, which would have to be
    waited for, and for other patterns, that is the pattern's own selection.
    """

    def __init__(self, pattern: Pattern) -> None:
        self.pattern = pattern
        self.cut: float | None = None

    def largest(self, score: Array) -> Array:
        """Return the mask (q, p)."""
        if not isinstance(self.pattern, TopK) or self.pattern.per_row or not on_host(score):
            return self.pattern.largest(score)
        xp = namespace(score)
        size = score.shape[0] * score.shape[1]
        count, flat = size - self.pattern.zeros(size), xp.reshape(score, (1, -1))
        if count == 0:
            return self.pattern.largest(score)
        cut = self.moved(flat, count)
        cut = kth_largest(flat, count) if cut is None else cut
        self.cut = float(cut[0, 0])
        return xp.reshape(reaching(flat, cut, count), score.shape)

    def moved(self, flat: Array, count: int) -> Array | None:
        """Return the cut (1, 1) where it is near the last one, else None."""
        if self.cut is None:
            return None
        xp = namespace(flat)
        low, high = (1 - AROUND) * self.cut, (1 + AROUND) * self.cut
        above = flat > high
        missing = count - int(xp.count_nonzero(above))
        near = flat[(flat >= low) & ~above]
        if not 0 < missing <= near.shape[0]:
            return None
        return kth_largest(near[None, :], missing)
