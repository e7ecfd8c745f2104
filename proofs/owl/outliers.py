"""What part of a block's weights are outliers (claim O1), and sparsities by it (claim O2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from gramian.proofs.kit.claims import Claim, Counterexample, Property, Verdict
from gramian.solvers.levels.outliers import OUTLIER, SPREAD, outlier_ratio, outlier_sparsities

__all__ = ["O1", "O2"]

OWL = "OWL"


# --- O1: the ratio ----------------------------------------------------------------------------------------------------

Scores = Sequence[np.ndarray]


@st.composite
def scores(draw: st.DrawFn) -> list[np.ndarray]:
    """Whole numbers, many of them zero and some large; one is exactly M times the mean at times."""
    shapes = draw(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 5)), min_size=1, max_size=3))
    entry = st.sampled_from([0, 0, 0, 0, 1, 2, 5, 7, 40])
    drawn = [draw(st.lists(entry, min_size=rows * columns, max_size=rows * columns)) for rows, columns in shapes]
    return [np.array(each, dtype=np.float64).reshape(shape) for each, shape in zip(drawn, shapes)]


def share(scores: Scores, *, bound: float = OUTLIER, least: bool = False, apart: bool = False, power: float = 1.0) -> float:
    """The part of entries above `bound` means. least: or at it. apart: each array by its own mean. power: of the entries."""
    arrays = [np.asarray(each) ** power for each in scores]
    mean = sum(float(each.sum()) for each in arrays) / sum(each.size for each in arrays)
    count = 0
    for each in arrays:
        limit = bound * (float(each.mean()) if apart else mean)
        count += int(np.sum(each >= limit if least else each > limit))
    return count / sum(each.size for each in arrays)


def counts_outliers(case: Scores, ratio: Callable[[Scores], float]) -> None:
    """The count in whole numbers, below 1 / M as Markov's inequality has it, in any unit and order."""
    entries = [int(entry) for each in case for entry in each.ravel()]
    count = sum(entry * len(entries) > int(OUTLIER) * sum(entries) for entry in entries)
    assert ratio(case) == count / len(entries)
    assert ratio(case) < 1 / OUTLIER
    for unit in (2.0**-20, 2.0**20):
        assert ratio([unit * each for each in case]) == ratio(case), "another unit"
    assert ratio([each.T[::-1] for each in case[::-1]]) == ratio(case), "another order"


O1 = Claim(
    "O1",
    f"{OWL}, the layerwise outlier distribution",
    "D = sum_ij [A_ij > M mean A] / (q p) of the scores A_ij = |X_j|_2 |W_ij| of a block is the part of its weights that are "
    "outliers: whatever unit activations and weights have, less than 1 / M, and 0 where all scores are alike",
    Verdict.HOLDS,
    properties=(
        Property(
            "D counts the scores above M times the mean of all operators of a block",
            scores(),
            counts_outliers,
            outlier_ratio,
            {
                "at least M times the mean": lambda scores: share(scores, least=True),
                "the mean of each operator": lambda scores: share(scores, apart=True),
                "squared scores": lambda scores: share(scores, power=2.0),
                "a limit of its own": lambda scores: float(
                    np.mean(np.concatenate([each.ravel() for each in scores]) > OUTLIER)
                ),
                "M = 3": lambda scores: share(scores, bound=3.0),
            },
        ),
    ),
)


# --- O2: sparsities ---------------------------------------------------------------------------------------------------


class Blocks(NamedTuple):
    """ratios, sizes and sparsities of blocks."""

    ratios: tuple[float, ...]
    sizes: tuple[int, ...]
    sparsities: tuple[float, ...]


@st.composite
def blocks(draw: st.DrawFn) -> Blocks:
    count = draw(st.integers(1, 6))
    ratios = draw(st.lists(st.sampled_from([0.0, 0.01, 0.02, 0.1]), min_size=count, max_size=count))
    sizes = draw(st.lists(st.integers(1, 9), min_size=count, max_size=count))
    return Blocks(tuple(ratios), tuple(sizes), (draw(st.sampled_from([0.0, 0.03, 0.1, 0.5, 0.7, 0.97])),) * count)


Divide = Callable[[Sequence[float], Sequence[int], Sequence[float]], Sequence[float]]


def places(ratios: Sequence[float]) -> np.ndarray:
    """(D - min D) / (max D - min D), 0 where all are alike."""
    given = np.asarray(ratios)
    span = np.ptp(given)
    return np.asarray((given - given.min()) / span if span > 0 else np.zeros_like(given))


def meets_the_mean(case: Blocks, divide: Divide) -> None:
    """The total is met in [0, 1); what is not cut off lies 2 lambda (D - min D) / (max D - min D) below one level for all."""
    found = np.asarray(divide(*case))
    size, plain = np.asarray(case.sizes), np.asarray(case.sparsities)
    assert np.all((found >= 0) & (found < 1))
    assert abs(size @ found - size @ plain) <= 1e-7 * size.sum(), "the total"
    level = found + 2 * SPREAD * places(case.ratios)
    free = (found > 1e-9) & (found < 1 - 1e-6)
    if np.any(free):
        assert np.ptp(level[free]) <= 1e-7, "one level for all that is not cut off"
        wanted = level[free].mean() - 2 * SPREAD * places(case.ratios)
        assert np.all(wanted[found <= 1e-9] <= 1e-7) and np.all(wanted[found >= 1 - 1e-6] >= 1 - 1e-5), "what is cut off"


def spread(
    ratios: Sequence[float], sizes: Sequence[int], sparsities: Sequence[float], *, width: float = 2.0, weighted: bool = True
) -> list[float]:
    """S - width lambda (place - mean place), cut off at 0 and 1. weighted: whether the mean is one over weights, or blocks."""
    place = places(ratios)
    mean = np.average(place, weights=sizes if weighted else None)
    return [float(each) for each in np.clip(np.asarray(sparsities) - width * SPREAD * (place - mean), 0.0, 1 - 1e-9)]


def printed_range_is_left() -> None:
    """Ten blocks of one size, one with outliers, S = 7/10, lambda = 8/100: the shift to the mean takes it to S - 9/5 lambda."""
    total, width = Fraction(7, 10), Fraction(8, 100)
    place = [Fraction(0)] * 9 + [Fraction(1)]
    mean = sum(place) / 10
    found = [total - 2 * width * (each - mean) for each in place]
    assert sum(found) == 10 * total
    assert min(found) < total - width  # outside of what the paper states
    ours = outlier_sparsities([0.0] * 9 + [0.1], [1] * 10, [0.7] * 10)
    assert all(abs(one - float(other)) < 1e-9 for one, other in zip(ours, found))


O2 = Claim(
    "O2",
    f"{OWL}, Section 3.2",
    "S_k, in the order of 1 - D_k, are in [S - lambda, S + lambda] with the mean S",
    Verdict.CONDITIONAL,
    "densities are spread by D over a width of 2 lambda and shifted to the mean, which leaves that range unless the mean of D "
    "is the middle of its own; with blocks of several sizes the mean is one over weights, and what the shift would take out of "
    "[0, 1) is cut off before the shift is found, so that the total is met",
    properties=(
        Property(
            "sum n_k S_k = sum n_k S0_k, S_k in [0, 1), and S_k = S - 2 lambda (D_k - min D) / (max D - min D) + c",
            blocks(),
            meets_the_mean,
            outlier_sparsities,
            {
                "a width of lambda": lambda *case: spread(*case, width=1.0),
                "a mean over blocks": lambda *case: spread(*case, weighted=False),
                "cut off after the shift": spread,
                "the more outliers the sparser": lambda ratios, sizes, sparsities: outlier_sparsities(
                    [-each for each in ratios], sizes, sparsities
                ),
                "every block alike": lambda ratios, sizes, sparsities: list(sparsities),
            },
        ),
    ),
    counterexamples=(Counterexample("one block of ten with outliers", printed_range_is_left),),
)
