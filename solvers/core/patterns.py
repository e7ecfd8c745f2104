"""Combinatorial sparsity patterns: which weights are kept, chosen by a score and exact to the count."""

from __future__ import annotations

import re
from dataclasses import dataclass
from numbers import Integral
from typing import Protocol

from gramian.solvers.backend._xp import Array, copied, kth_largest, namespace, on_host
from gramian.solvers.backend.given import given
from gramian.solvers.backend.options import flag, is_number, number, shown

__all__ = ["NM", "Pattern", "PatternLike", "TopK", "counted_pattern", "parse_pattern", "pattern_of"]


class Pattern(Protocol):
    """argmax_mask <score, mask> over the masks that a pattern admits

    Masks are boolean, (q, p), and True where a weight is kept. Any object with the four methods is a pattern, and methods that
    score weights take it; those that go through a matrix column by column, or exchange weights one by one, take `TopK` and
    `NM`. `gramian.proofs.laws.check_pattern` holds one to what is promised here.

    Methods
    -------
    check(shape)
        Raise ValueError, with both numbers, for weights (q, p) that it does not fit.
    select(score)
        Return the best mask. Among equal scores the weight that comes first is kept, and NaN is refused with a ValueError.
    largest(score)
        Return the same without a look at NaN, so that a loop on a device does not wait.
    admits(mask)
        Return whether a mask has the zeros that the pattern requires, or more.

    Examples
    --------
    Whole input channels:

    >>> import numpy as np
    >>> from gramian.solvers import Quadratic, wanda
    >>> class OneChannel:
    ...     def check(self, shape):
    ...         pass
    ...     def select(self, score):
    ...         best = np.argmax(score.sum(axis=0))
    ...         return np.broadcast_to(np.arange(score.shape[1]) == best, score.shape)
    ...     largest = select
    ...     def admits(self, mask):
    ...         return mask.any(axis=0).sum() <= 1
    >>> wanda(Quadratic(np.eye(2), np.array([[3.0, 4.0], [2.0, 1.5]])), OneChannel()).weights.tolist()
    [[0.0, 4.0], [0.0, 1.5]]
    """

    def check(self, shape: tuple[int, int]) -> None:
        """Raise ValueError for weights (q, p) that the pattern does not fit."""
        ...

    def select(self, score: Array) -> Array:
        """Return the best mask (q, p). ValueError is raised for NaN."""
        ...

    def largest(self, score: Array) -> Array:
        """Return the same for a score without NaN."""
        ...

    def admits(self, mask: Array) -> bool:
        """Return whether a mask has the zeros that the pattern requires."""
        ...


@dataclass(frozen=True)
class TopK:
    """argmax_mask <score, mask> subject to `sparsity * n` zeros, rounded (halves up)

    The count is over the whole matrix, n = q p, or with `per_row` over every row, n = p. Among equal scores at the cut the
    weight that comes first in row-major order is kept.

    Parameters
    ----------
    sparsity : float
        The fraction of weights that are pruned, in [0, 1).
    per_row : bool, default False
        Whether every row has the same number of zeros.

    Raises
    ------
    ValueError
        For a sparsity outside [0, 1).

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import TopK
    >>> score = np.array([[4.0, 3.0, 2.0, 1.0], [0.1, 0.2, 0.3, 0.4]])
    >>> TopK(0.5).select(score).astype(int).tolist()
    [[1, 1, 1, 1], [0, 0, 0, 0]]
    >>> TopK(0.5, per_row=True).select(score).astype(int).tolist()
    [[1, 1, 0, 0], [0, 0, 1, 1]]
    """

    sparsity: float
    per_row: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "sparsity", number("sparsity", self.sparsity, "[0, 1)"))
        object.__setattr__(self, "per_row", flag("per_row", self.per_row))

    def zeros(self, size: int) -> int:
        """Return how many of `size` weights that compete are pruned."""
        return int(self.sparsity * size + 0.5 + 1e-9)

    def check(self, shape: tuple[int, int]) -> None:
        """Accept any shape."""

    def select(self, score: Array) -> Array:
        """Return the boolean mask (q, p), True on the weights of largest score. ValueError is raised for NaN."""
        score = given("score", score)
        check_score(score)
        return self.largest(score)

    def largest(self, score: Array) -> Array:
        """Return the same for a score without NaN, for loops on a device, which this does not make wait."""
        xp = namespace(score)
        if self.per_row:
            return keep_largest(score, score.shape[1] - self.zeros(score.shape[1]))
        flat = xp.reshape(score, (1, -1))
        return xp.reshape(keep_largest(flat, flat.shape[1] - self.zeros(flat.shape[1])), score.shape)

    def admits(self, mask: Array) -> bool:
        """Return whether a mask (True = kept) has at least the zeros that this pattern requires."""
        xp = namespace(mask)
        pruned = xp.sum(xp.astype(~mask, xp.int64), axis=1)
        if self.per_row:
            return bool(xp.all(pruned >= self.zeros(mask.shape[1])))
        return int(xp.sum(pruned)) >= self.zeros(mask.shape[0] * mask.shape[1])

    def __str__(self) -> str:
        return f"{100 * self.sparsity:g}%" + (" per row" if self.per_row else "")


@dataclass(frozen=True)
class NM:
    """argmax_mask <score, mask> subject to exactly `kept` of every `group` consecutive inputs of a row

    The sparsity is 1 - kept / group. (FISTAPruner, Section 2, calls n:m "sparsity n/m"; that is its density, and the two agree
    only for 2:4 and its kin.) Among equal scores the weight that comes first is kept.

    Parameters
    ----------
    kept : int
        n, the weights of a group that are kept.
    group : int
        m, the length of a group.

    Attributes
    ----------
    sparsity : float
        1 - n / m.

    Raises
    ------
    ValueError
        Unless 1 <= kept <= group.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import NM
    >>> pattern = NM(2, 4)
    >>> print(pattern, pattern.sparsity)
    2:4 0.5
    >>> pattern.select(np.array([[4.0, 1.0, 3.0, 2.0, 0.0, 0.0, 0.0, 5.0]])).astype(int).tolist()
    [[1, 0, 1, 0, 1, 0, 0, 1]]
    """

    kept: int
    group: int

    def __post_init__(self) -> None:
        counts = all(isinstance(count, Integral) and not isinstance(count, bool) for count in (self.kept, self.group))
        if not counts or not 1 <= self.kept <= self.group:
            raise ValueError(f"an n:m pattern keeps 1 <= n <= m weights but is {shown(self.kept)}:{shown(self.group)}")
        for name in ("kept", "group"):
            object.__setattr__(self, name, int(getattr(self, name)))

    @property
    def sparsity(self) -> float:
        """Return 1 - n / m."""
        return 1 - self.kept / self.group

    def check(self, shape: tuple[int, int]) -> None:
        """Raise ValueError when m does not divide the number of inputs."""
        if shape[1] % self.group:
            raise ValueError(f"pattern {self} needs a multiple of {self.group} inputs but weight is {tuple(shape)}")

    def select(self, score: Array) -> Array:
        """Return the boolean mask (q, p), True on the `kept` largest scores of every group.

        The rank of a weight is the number of weights of its group that beat it: this takes a comparison a pair and no sort, and
        shows the tie rule.
        """
        score = given("score", score)
        self.check(score.shape)
        check_score(score)
        return self.largest(score)

    def largest(self, score: Array) -> Array:
        """Return the same for a score without NaN, for loops on a device, which this does not make wait."""
        xp = namespace(score)
        members = copied(xp.reshape(score, (-1, self.group)).T)  # (m, groups): comparing runs of memory
        count = xp.int8 if self.group <= 128 else xp.int32
        beaten = [xp.full(members.shape[1:], later, dtype=count, device=members.device) for later in range(self.group)[::-1]]
        for i in range(self.group):
            for j in range(i + 1, self.group):
                first = xp.astype(members[i, :] >= members[j, :], count)
                beaten[i] -= first
                beaten[j] += first
        return xp.reshape(xp.stack([each < self.kept for each in beaten], axis=1), score.shape)

    def admits(self, mask: Array) -> bool:
        """Return whether a mask (True = kept) has at most `kept` weights in every group."""
        xp = namespace(mask)
        self.check(mask.shape)
        return bool(xp.all(xp.sum(xp.astype(xp.reshape(mask, (-1, self.group)), xp.int64), axis=1) <= self.kept))

    def __str__(self) -> str:
        return f"{self.kept}:{self.group}"


PatternLike = Pattern | str | float  # n:m as text, and a sparsity


def pattern_of(pattern: PatternLike, shape: tuple[int, int]) -> Pattern:
    """Return a pattern that fits weights (q, p): of a text such as "2:4" that n:m, of a number `TopK` of that sparsity.

    TypeError is raised for what is no pattern, and ValueError for weights that it does not fit.
    """
    if isinstance(pattern, str):
        pattern = parse_pattern(pattern)
    elif is_number(pattern):
        pattern = TopK(pattern)  # type: ignore[arg-type]  # is_number has seen to it
    elif isinstance(pattern, type) or not (hasattr(pattern, "check") and hasattr(pattern, "select")):
        raise TypeError(f"a pattern is TopK(0.5), NM(2, 4), '2:4' or a sparsity such as 0.5 but got {shown(pattern)}")
    pattern.check(shape)  # type: ignore[union-attr]
    return pattern  # type: ignore[return-value]


def counted_pattern(pattern: PatternLike, shape: tuple[int, int], method: str) -> TopK | NM:
    """Return the same for a method that takes `TopK` and `NM` alone, because it counts the zeros of a part of the weights."""
    found = pattern_of(pattern, shape)
    if not isinstance(found, TopK | NM):
        raise TypeError(
            f"{method} takes TopK and NM, whose zeros it can count in a part of the weights, but got {shown(found)}"
        )
    return found


def parse_pattern(text: str) -> NM:
    """Read an n:m pattern, as in `2:4`.

    Parameters
    ----------
    text : str
        n:m, each of one to three digits.

    Returns
    -------
    NM
        The pattern that keeps n of every m consecutive inputs.

    Raises
    ------
    ValueError
        For anything else.

    Examples
    --------
    >>> from gramian.solvers import parse_pattern
    >>> parse_pattern("2:4")
    NM(kept=2, group=4)
    """
    match = re.fullmatch(r"(\d{1,3}):(\d{1,3})", text.strip()) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"a pattern is written n:m, as in 2:4 (keep 2 of every 4), but got {shown(text)}")
    return NM(int(match[1]), int(match[2]))


def check_score(score: Array) -> None:
    """Raise ValueError for NaN, which no order has a place for."""
    xp = namespace(score)
    if bool(xp.any(xp.isnan(score))):
        raise ValueError("the score holds NaN, so nothing can be selected by it")


def keep_largest(score: Array, count: int) -> Array:
    """Return the mask of the `count` largest entries of every row.

    Among equals the first in the row win, so the count is exact.
    """
    xp = namespace(score)
    if count == 0:
        return xp.zeros(score.shape, dtype=xp.bool, device=score.device)
    return reaching(score, kth_largest(score, count), count)


def reaching(score: Array, cut: Array, count: int) -> Array:
    """Return the mask of the `count` largest entries of every row, of which the last is `cut` (rows, 1)."""
    xp = namespace(score)
    reached = score >= cut
    # No ties at the cut is the usual case, and cheaper; a device however would have to be waited for to know.
    if on_host(score) and int(xp.count_nonzero(reached)) == count * score.shape[0]:
        return reached
    above, level = score > cut, score == cut
    missing = count - xp.sum(xp.astype(above, xp.int64), axis=1, keepdims=True)
    order = xp.cumulative_sum(xp.astype(level, xp.int64), axis=1)
    return above | (level & (order <= missing))
