"""Masks of the largest of scores that change little from one step to the next, in parts that need not be in one place."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gramian.solvers.backend._xp import Array, device, kth_largest, namespace, on_host
from gramian.solvers.core.patterns import Pattern, TopK, reaching

__all__ = ["Bring", "MovingCut"]

AROUND = 0.05  # of the last cut, on both sides, where the next one is looked for
ROOM = 64  # for scores there of every part, beside half as many again as there were the last time

Bring = Callable[[Sequence[Array], Sequence[int]], Sequence[Array]]


class MovingCut:
    """pattern.largest(score) for scores (q, p) without NaN, one after the other, given and returned in parts of their rows.

    Of a count over the whole matrix the last score that is kept, the cut, moves little from step to step: it is found among the
    scores around the last one, which are few, unless it is not there; parts elsewhere give no more than those. On a device,
    which would have to be waited for, and for other patterns, it is the pattern's own selection from all scores.

    rows: how many each part has, those elsewhere too. here: the numbers of the parts that are here. bring(pieces, lengths):
    what all parts give, in order, by what those here do; arrays of these lengths. By default one part is all there is.
    """

    def __init__(
        self,
        pattern: Pattern,
        rows: Sequence[int] | None = None,
        here: Sequence[int] = (0,),
        bring: Bring = lambda pieces, lengths: pieces,
    ) -> None:
        self.pattern, self.rows, self.here, self.bring = pattern, rows, here, bring
        self.cut: float | None = None
        self.room: list[int] = []  # for the scores around the cut of each part

    def largest(self, scores: Sequence[Array]) -> list[Array]:
        """Return the masks of the parts that are here."""
        xp, inputs = namespace(scores[0]), scores[0].shape[1]
        rows = [scores[0].shape[0]] if self.rows is None else self.rows
        if not isinstance(self.pattern, TopK) or self.pattern.per_row or not on_host(scores[0]):
            mask = self.pattern.largest(whole(self.bring(scores, rows)))
            firsts = [sum(rows[:number]) for number in self.here]
            return [mask[first : first + rows[number], :] for first, number in zip(firsts, self.here)]
        size = sum(rows) * inputs
        count = size - self.pattern.zeros(size)
        if count == 0:
            return [xp.zeros_like(score, dtype=xp.bool) for score in scores]
        flat = [xp.reshape(score, (-1,)) for score in scores]
        found = self.looked_for(flat, count)
        if found is None:
            found = [0] * len(rows), self.bring(flat, [each * inputs for each in rows])
            self.room = [ROOM + each * inputs // 8 for each in rows]
        kept, near = found
        every = whole(near)
        cut = kth_largest(every[None, :], count - sum(kept))
        self.cut = float(cut[0, 0])
        ties = count - sum(kept) - int(xp.count_nonzero(every > cut[0, 0]))  # kept of those at the cut, from the first
        level = [int(xp.count_nonzero(piece == cut[0, 0])) for piece in near]
        masks = []
        for number, each, score in zip(self.here, flat, scores):
            own = kept[number] + int(xp.count_nonzero(near[number] > cut[0, 0]))
            own += min(level[number], max(0, ties - sum(level[:number])))
            masks.append(xp.reshape(reaching(each[None, :], cut, own), score.shape))
        return masks

    def looked_for(self, flat: Sequence[Array], count: int) -> tuple[list[int], Sequence[Array]] | None:
        """Return how many of each part are above what is around the last cut, and those around it, if the cut is among them.

        Every part gives, in one message whose length all know, two counts and those around it, as far as there is room."""
        if self.cut is None:
            return None
        xp = namespace(flat[0])
        low, high = (1 - AROUND) * self.cut, (1 + AROUND) * self.cut
        pieces = []
        for number, each in zip(self.here, flat):
            above = each > high
            near = each[(each >= low) & ~above]
            message = xp.zeros(2 + self.room[number], dtype=xp.float64, device=device(each))
            message[0], message[1] = float(xp.count_nonzero(above)), float(near.shape[0])
            given = min(near.shape[0], self.room[number])
            message[2 : 2 + given] = xp.astype(near[:given], xp.float64)
            pieces.append(message)
        found = self.bring(pieces, [2 + room for room in self.room])
        above_all, near_all = ([int(each[place]) for each in found] for place in (0, 1))
        fits = all(near <= room for near, room in zip(near_all, self.room))
        self.room = [ROOM + near + near // 2 for near in near_all]
        if not fits or not 0 < count - sum(above_all) <= sum(near_all):
            return None
        return above_all, [xp.astype(each[2 : 2 + near], flat[0].dtype) for each, near in zip(found, near_all)]


def whole(pieces: Sequence[Array]) -> Array:
    """Return pieces one after the other, without another array where there is one."""
    return pieces[0] if len(pieces) == 1 else namespace(pieces[0]).concat(list(pieces))
