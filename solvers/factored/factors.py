"""Weights that are a product of two thin matrices, by themselves or added to sparse ones: what they are, what they take."""

from __future__ import annotations

from dataclasses import dataclass

from gramian.solvers.backend._xp import Array, namespace
from gramian.solvers.backend.options import number, whole
from gramian.solvers.core.patterns import NM, Pattern, TopK
from gramian.solvers.core.solution import Solution

__all__ = ["FactoredSolution", "divided_budget", "rank_within"]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class FactoredSolution(Solution):
    """Hold V = S + B A with the certificate of exactly these weights.

    Parameters
    ----------
    weights : array (q, p)
        V, in the dtype of the problem.
    status : Status
        How the solver ended.
    certificate : Certificate
        What is proven of these weights.
    steps : int, default 0
        Rounds spent.
    history : tuple of (int, float), default ()
        Pairs (step, loss).
    detail : dict of str to float
        Named figures of the factors.
    left : array (q, r)
        B.
    right : array (r, p)
        A.
    sparse : array (q, p), optional
        S; None where there is none.

    Attributes
    ----------
    rank : int
        r.
    parameters : int
        The nonzeros of S and r (p + q): what is stored, without the positions of the nonzeros.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import Quadratic, low_rank
    >>> problem = Quadratic(np.eye(3), np.diag([3.0, 2.0, 1.0]))
    >>> solution = low_rank(problem, 2)
    >>> solution.rank, solution.parameters, bool(np.allclose(solution.weights, solution.left @ solution.right))
    (2, 12, True)
    """

    left: Array
    right: Array
    sparse: Array | None = None

    @property
    def rank(self) -> int:
        """Return r, the columns of B."""
        return int(self.left.shape[1])

    @property
    def parameters(self) -> int:
        """Return how many numbers S and B A take."""
        nonzeros = 0 if self.sparse is None else int(namespace(self.sparse).sum(namespace(self.sparse).astype(
            self.sparse != 0, namespace(self.sparse).int64)))  # fmt: skip
        return nonzeros + int(self.rank * (self.left.shape[0] + self.right.shape[1]))


def kept_by(pattern: Pattern, shape: tuple[int, int]) -> int:
    """Return how many of (q, p) weights a pattern keeps. TypeError is raised for one that does not count them."""
    rows, width = shape
    if isinstance(pattern, NM):
        return rows * (width // pattern.group) * pattern.kept
    if isinstance(pattern, TopK):
        return rows * (width - pattern.zeros(width)) if pattern.per_row else rows * width - pattern.zeros(rows * width)
    raise TypeError(
        f"ranks are counted against TopK and NM, whose weights are counted, but the pattern is {pattern}: give rank"
    )


def rank_within(pattern: Pattern, shape: tuple[int, int]) -> int:
    """Return the largest r of which r (p + q) is no more than the weights that a pattern keeps; 1 at least."""
    return max(1, min(kept_by(pattern, shape) // sum(shape), *shape))


def divided_budget(pattern: TopK, shape: tuple[int, int], share: float) -> tuple[TopK, int]:
    """Return the pattern of S and the rank of L that together hold as many numbers as a pattern keeps.

        r = floor(share k / (p + q)) >= 1,    nonzeros of S <= k - r (p + q),

    with k the weights that `pattern` keeps of (q, p). Per row S has the same number in every row. ValueError is raised where a
    rank of one is more than all.
    """
    share = number("share", share, "(0, 1)")
    (rows, width), kept = shape, kept_by(pattern, shape)
    rank = max(1, min(int(share * kept) // (rows + width), rows, width))
    left = kept - rank * (rows + width)
    if left < 0:
        raise ValueError(
            f"a matrix of rank 1 takes {rows + width} numbers but {pattern} keeps {kept} of {rows} x {width}: give a lower "
            "sparsity, or leave the operator out"
        )
    if pattern.per_row:
        return TopK(min(1 - (left // rows) / width, 1 - 1e-9), True), rank
    return TopK(min(1 - left / (rows * width), 1 - 1e-9)), rank


def checked_rank(rank: object, shape: tuple[int, int]) -> int:
    """Return a rank that was given, at most that of any matrix (q, p)."""
    return min(whole("rank", rank), *shape)
