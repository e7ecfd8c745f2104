"""Combinatorial sparsity patterns: which weights may live, chosen by a score and exact to the count."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gramian.solvers.backend._xp import Array, kth_largest, namespace, on_host

__all__ = ["NM", "Pattern", "TopK", "parse_pattern"]


@dataclass(frozen=True)
class TopK:
    """Keep all but `sparsity * n` weights, rounded (halves up): n = q p over the whole matrix, or p in every row if `per_row`.

    sparsity: in [0, 1). Ties at the cut keep the weight that comes first in row-major order.
    """

    sparsity: float
    per_row: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise ValueError(f"sparsity must be in [0, 1) but is {self.sparsity}")

    def zeros(self, size: int) -> int:
        """How many of `size` weights that compete are pruned."""
        return int(self.sparsity * size + 0.5 + 1e-9)

    def check(self, shape: tuple[int, int]) -> None:
        """Any shape will do."""

    def select(self, score: Array) -> Array:
        """Boolean mask (q, p), True on the weights of largest score."""
        check_score(score)
        return self.largest(score)

    def largest(self, score: Array) -> Array:
        """The same of a score without NaN, for loops on a device, which this does not make wait."""
        xp = namespace(score)
        if self.per_row:
            return keep_largest(score, score.shape[1] - self.zeros(score.shape[1]))
        flat = xp.reshape(score, (1, -1))
        return xp.reshape(keep_largest(flat, flat.shape[1] - self.zeros(flat.shape[1])), score.shape)

    def admits(self, mask: Array) -> bool:
        """Whether a mask (True = kept) has at least the zeros this pattern asks for."""
        xp = namespace(mask)
        pruned = xp.sum(xp.astype(~mask, xp.int64), axis=1)
        if self.per_row:
            return bool(xp.all(pruned >= self.zeros(mask.shape[1])))
        return int(xp.sum(pruned)) >= self.zeros(mask.shape[0] * mask.shape[1])

    def __str__(self) -> str:
        return f"{100 * self.sparsity:g}%" + (" per row" if self.per_row else "")


@dataclass(frozen=True)
class NM:
    """Keep exactly `kept` of every `group` consecutive inputs of a row: sparsity 1 - kept / group.

    (FISTAPruner, Section 2, calls n:m "sparsity n/m"; that is its density, and the two agree only for 2:4 and its kin.)
    Ties keep the weight that comes first.
    """

    kept: int
    group: int

    def __post_init__(self) -> None:
        if not 1 <= self.kept <= self.group:
            raise ValueError(f"an n:m pattern keeps 1 <= n <= m weights but is {self.kept}:{self.group}")

    @property
    def sparsity(self) -> float:
        return 1 - self.kept / self.group

    def check(self, shape: tuple[int, int]) -> None:
        """Raises ValueError when m does not divide the number of inputs."""
        if shape[1] % self.group:
            raise ValueError(f"pattern {self} needs a multiple of {self.group} inputs but weight is {tuple(shape)}")

    def select(self, score: Array) -> Array:
        """Boolean mask (q, p), True on the `kept` largest scores of every group.

        A weight's rank is the number of its group that beat it: m^2 comparisons and no sort, with the tie rule in view.
        """
        self.check(score.shape)
        check_score(score)
        return self.largest(score)

    def largest(self, score: Array) -> Array:
        """The same of a score without NaN, for loops on a device, which this does not make wait."""
        xp = namespace(score)
        members = xp.asarray(xp.reshape(score, (-1, self.group)).T, copy=True)  # (m, groups): comparing runs of memory
        masks = []
        for j in range(self.group):
            rank = xp.zeros(members.shape[1:], dtype=xp.int16, device=members.device)
            for i in range(self.group):
                if i != j:
                    mine, other = members[j, :], members[i, :]
                    rank += xp.astype(other >= mine if i < j else other > mine, xp.int16)
            masks.append(rank < self.kept)
        return xp.reshape(xp.stack(masks, axis=1), score.shape)

    def admits(self, mask: Array) -> bool:
        """Whether a mask (True = kept) has at most `kept` weights in every group."""
        xp = namespace(mask)
        self.check(mask.shape)
        return bool(xp.all(xp.sum(xp.astype(xp.reshape(mask, (-1, self.group)), xp.int64), axis=1) <= self.kept))

    def __str__(self) -> str:
        return f"{self.kept}:{self.group}"


Pattern = TopK | NM


def parse_pattern(text: str) -> NM:
    """`2:4` -> NM(2, 4); raises ValueError on anything else."""
    match = re.fullmatch(r"(\d{1,3}):(\d{1,3})", text.strip())
    if match is None:
        raise ValueError(f"a pattern is written n:m, as in 2:4 (keep 2 of every 4), but got {text!r}")
    return NM(int(match[1]), int(match[2]))


def check_score(score: Array) -> None:
    """Raises ValueError for NaN, which no order has a place for."""
    xp = namespace(score)
    if bool(xp.any(xp.isnan(score))):
        raise ValueError("the score holds NaN, so nothing can be selected by it")


def keep_largest(score: Array, count: int) -> Array:
    """Mask of the `count` largest entries of every row; among equals the first in the row win, so the count is exact."""
    xp = namespace(score)
    if count == 0:
        return xp.zeros(score.shape, dtype=xp.bool, device=score.device)
    cut = kth_largest(score, count)
    reached = score >= cut
    # No ties at the cut is the usual case, and cheaper; a device however would have to be waited for to know.
    if on_host(score) and int(xp.sum(xp.astype(reached, xp.int64))) == count * score.shape[0]:
        return reached
    above, level = score > cut, score == cut
    missing = count - xp.sum(xp.astype(above, xp.int64), axis=1, keepdims=True)
    order = xp.cumulative_sum(xp.astype(level, xp.int64), axis=1)
    return above | (level & (order <= missing))
