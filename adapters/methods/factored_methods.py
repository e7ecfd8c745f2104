"""Methods whose weights are a product of two thin matrices, alone or beside sparse ones, as a run calls them."""

from __future__ import annotations

from gramian.solvers import FactoredSolution, Pattern, Quadratic, TopK, l0_admm, low_rank, sparse_low_rank
from gramian.solvers.factored.factors import divided_budget, rank_within
from gramian.solvers.support.starts import STARTS, check_choice

__all__ = ["low_rank_within", "sparse_low_rank_within"]

SHARE = 0.1  # of the numbers that the sparsity leaves
SUPPORTS = {"l0": l0_admm, **STARTS}


def low_rank_within(problem: Quadratic, pattern: Pattern, *, rank: int | None = None) -> FactoredSolution:
    """argmin_V f(V) over V of a rank, whose two factors hold as many numbers as the sparsity would keep

    rank: that of every operator, in place of the largest r for which r (p + q) is at most the weights that the pattern keeps.
    The weights are V = B A, written as one dense matrix; the report says what the factors would take.
    """
    pattern.check(problem.shape)
    return low_rank(problem, rank_within(pattern, problem.shape) if rank is None else rank)


def sparse_low_rank_within(
    problem: Quadratic,
    pattern: Pattern,
    *,
    rank: int | None = None,
    share: float | None = None,
    support: str = "l0",
    rounds: int = 4,
    polish: int = 4,
) -> FactoredSolution:
    """min f(S + L) over S of a pattern and L of a rank, in turn, so that the loss never rises (OATS, HASSLE-free, 3BASiL)

    rank: that of L, whose r (p + q) numbers come on top of what the pattern keeps. share: without a rank, the part of the
    numbers that the sparsity keeps which L takes (0.1), so that S has fewer and both together as many; n:m needs a rank.
    support: what chooses S: l0, sparsegpt, wanda (as OATS) or magnitude. rounds: how often both are chosen. polish: how often
    both are refitted afterwards.
    """
    check_choice("support", support, SUPPORTS)
    pattern.check(problem.shape)
    if rank is not None and share is not None:
        raise ValueError(f"rank={rank} and share={share} both say how large L is: give one of them")
    if rank is None:
        if not isinstance(pattern, TopK):
            raise ValueError(f"a share divides a number of weights, which {pattern} fixes by groups: give rank, as in rank=16")
        if sum(problem.shape) > problem.shape[0] * problem.shape[1] * (1 - pattern.sparsity):  # not even rank 1 is worth it
            rank = 1
        else:
            pattern, rank = divided_budget(pattern, problem.shape, SHARE if share is None else share)
    return sparse_low_rank(problem, pattern, rank, choose=SUPPORTS[support], rounds=rounds, polish=polish)
