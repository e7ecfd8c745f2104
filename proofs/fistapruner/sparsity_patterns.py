"""FISTAPruner, Section 2, Section 3.3 and Eq. (7): sparsity patterns and rounding to them (claims F14, F15)."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np
from hypothesis import strategies as st

from gramian.proofs.fistapruner.printed import fractional, hard_threshold
from gramian.proofs.kit.claims import Claim, Counterexample, Property, Verdict
from gramian.proofs.kit.exact_rows import squared_error
from gramian.proofs.kit.references import brute_force_groups
from gramian.proofs.kit.strategies import scores
from gramian.solvers import NM, TopK

__all__ = ["F14", "F15"]

groupings = st.sampled_from([(1, 2), (2, 4), (1, 4), (3, 4), (1, 3)])


@st.composite
def grouped(draw: st.DrawFn) -> tuple[np.ndarray, NM, np.ndarray]:
    """Draw weights (q, p), a pattern n:m with m dividing p, and squared channel norms (p,)."""
    kept, group = draw(groupings)
    weights = draw(scores(multiple=group))
    sizes = draw(st.lists(st.integers(0, 4), min_size=weights.shape[1], max_size=weights.shape[1]))
    return weights, NM(kept, group), np.array(sizes, dtype=float)


def is_the_projection(instance: tuple[np.ndarray, NM, np.ndarray], select: Callable[..., np.ndarray]) -> None:
    """n of every m are kept, no such weights are nearer in the Frobenius norm, and a second projection changes nothing."""
    weights, pattern, _ = instance
    mask = select(weights, pattern)
    assert np.all(mask.reshape(-1, pattern.group).sum(axis=1) == pattern.kept)
    best = brute_force_groups(weights**2, pattern.kept, pattern.group).sum()
    rounded = np.where(mask, weights, 0.0)
    assert np.sum(rounded**2) == best
    assert np.array_equal(np.where(select(rounded, pattern), rounded, 0.0), rounded)


def is_best_for_the_output(instance: tuple[np.ndarray, NM, np.ndarray], score: Callable[..., np.ndarray]) -> None:
    """Where G is diagonal the output error of what is removed, the sum of w_j^2 G_jj, is the least of all masks."""
    weights, pattern, sizes = instance
    cost = weights**2 * sizes
    kept = np.sum(np.where(pattern.select(score(weights, sizes)), cost, 0.0))
    assert kept == brute_force_groups(cost, pattern.kept, pattern.group).sum()


def magnitude_misses_the_best_pair() -> None:
    """The channels have norm 1, G_12 = .9, G_13 = -.9, G_23 = -.8, the fourth is orthogonal to them, and w = (1, 1.1, 1.2,
    1.3)."""
    high, low = Fraction(9, 10), Fraction(-4, 5)
    gram: list[list[Any]] = [[1, high, -high, 0], [high, 1, low, 0], [-high, low, 1, 0], [0, 0, 0, 1]]
    assert 1 - high**2 > 0 and 1 + 2 * high * -high * low - 2 * high**2 - low**2 > 0  # leading minors: G is positive definite
    weights = [Fraction(10 + k, 10) for k in range(4)]
    cost = {
        pair: squared_error(gram, [entry if j in pair else Fraction(0) for j, entry in enumerate(weights)])
        for pair in combinations(range(4), 2)
    }
    kept = hard_threshold(fractional([weights]), 2, 4)[0]
    assert [j for j in range(4) if kept[j] == 0] == [0, 1] and cost[0, 1] == Fraction(419, 100)
    assert min(cost.values()) == cost[0, 2] == Fraction(28, 100)


def magnitude_misses_the_loud_channel() -> None:
    weights, gram = fractional([[1, 2]]), [[100, 0], [0, 1]]
    assert squared_error(gram, (weights - hard_threshold(weights, 1, 2))[0]) == 100
    assert squared_error(gram, [Fraction(0), Fraction(2)]) == 4


F14 = Claim(
    "F14",
    "FISTAPruner, Section 3.3 and Eq. (7)",
    "W_K+1 = H(W_K, 2:4) sets the two smallest magnitudes of every four consecutive entries of a row to zero: the step to the "
    "sparsity pattern that Eq. (1) asks for.",
    Verdict.CONDITIONAL,
    "H is a Euclidean projection onto n:m (one of several where magnitudes tie), so it is best for the output error |(W_K+1 - "
    "W_K) X*|_F where X* X*^T is a multiple of I. For diagonal X* X*^T = diag(G_jj) it is best to keep the largest w_j^2 "
    "G_jj; with correlated channels the costs of weights do not add up.",
    (
        Property(
            "the Euclidean projection",
            grouped(),
            is_the_projection,
            lambda weights, pattern: pattern.select(np.abs(weights)),
            {
                "the largest, not the largest magnitudes": lambda weights, pattern: pattern.select(weights),
                "the smallest kept": lambda weights, pattern: pattern.select(-np.abs(weights)),
                "per row instead of per group": lambda weights, pattern: TopK(pattern.sparsity, per_row=True).select(
                    np.abs(weights)
                ),
            },
        ),
        Property(
            "diagonal G: the best score",
            grouped(),
            is_best_for_the_output,
            lambda weights, sizes: weights**2 * sizes,
            {
                "magnitude": lambda weights, sizes: np.abs(weights),
                "G_jj squared": lambda weights, sizes: weights**2 * sizes**2,
                "|w_j| G_jj": lambda weights, sizes: np.abs(weights) * sizes,
            },
        ),
    ),
    (
        Counterexample("correlated channels: 419/100 by magnitude, 28/100 at best", magnitude_misses_the_best_pair),
        Counterexample("G = diag(100, 1), w = (1, 2), 1:2: 100 by magnitude, 4 at best", magnitude_misses_the_loud_channel),
    ),
)


def asks_for_these_zeros(instance: tuple[np.ndarray, NM, np.ndarray], sparsity: Callable[[NM], float]) -> None:
    """The formula is the least fraction of zeros of n:m weights, which is attained where no weight is zero of itself."""
    weights, pattern, _ = instance
    mask = pattern.select(np.abs(weights) + 1)
    assert abs(np.mean(~mask) - sparsity(pattern)) <= 1e-12
    natural = mask & (weights != 0)
    assert pattern.admits(natural) and np.mean(~natural) >= sparsity(pattern) - 1e-12


def one_of_four() -> None:
    mask = NM(1, 4).select(np.arange(1, 9).reshape(1, 8))
    assert mask.sum() == 2 and Fraction(int((~mask).sum()), mask.size) == Fraction(3, 4) != Fraction(1, 4)
    assert NM(2, 4).admits(np.zeros((1, 4), dtype=bool))  # "at most n" allows more zeros: no fixed level


F15 = Claim(
    "F15",
    "FISTAPruner, Section 2",
    "n:m sparsity is a fixed overall sparsity n/m with at most n nonzeros among every m consecutive entries.",
    Verdict.REFUTED,
    "n/m is the largest density. The sparsity is at least 1 - n/m, which is the same number for 2:4 and its kin only. m has "
    "to divide the length of a row.",
    (
        Property(
            "the sparsity of n:m",
            grouped(),
            asks_for_these_zeros,
            lambda pattern: pattern.sparsity,
            {
                "n/m as printed": lambda pattern: pattern.kept / pattern.group,
                "1 - (n - 1)/m": lambda pattern: 1 - (pattern.kept - 1) / pattern.group,
            },
        ),
    ),
    (Counterexample("1:4 makes three quarters zero", one_of_four),),
)
