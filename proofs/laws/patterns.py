"""Laws of a sparsity pattern: `select(score)` gives a mask, `admits(mask)` says whether one is allowed, `check(shape)` refuses
a shape.

Scores tie everywhere: they are few whole numbers, and often all the same. The cases are drawn for weights of any number of
rows and of a multiple of `inputs` columns.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from gramian.proofs.kit.backends import backends
from gramian.proofs.kit.strategies import masks, scores
from gramian.proofs.laws.law import Law

__all__ = ["PATTERN_LAWS", "Selecting"]


class Selecting(NamedTuple):
    """patterns: draws what is held to the laws. inputs: what the number of channels is a multiple of, for their groups."""

    patterns: st.SearchStrategy[Any]
    inputs: int


def the_count_is_exact(pattern: Any, score: np.ndarray, other: np.ndarray) -> None:
    """The mask is admitted, one weight more is not, and how many there are does not depend on the scores, even if they tie."""
    mask = pattern.select(score)
    assert mask.shape == score.shape and mask.dtype == bool
    assert pattern.admits(mask), f"{mask} of the scores {score} is not admitted"
    for spot in zip(*np.nonzero(~mask)):
        larger = mask.copy()
        larger[spot] = True
        assert not pattern.admits(larger), f"{mask} keeps fewer weights than it may: {larger} is admitted"
    counts = [int(np.sum(pattern.select(each))) for each in (score, other, 0 * score, distinct(score))]
    assert len(set(counts)) == 1, f"ties change the count: {counts}"


def the_mask_is_the_best(pattern: Any, score: np.ndarray, other: np.ndarray) -> None:
    """No other mask of the pattern has a higher total score."""
    kept, rival = score[pattern.select(score)].sum(), score[pattern.select(other)].sum()
    assert kept >= rival, f"the mask of {score} keeps {kept} of it, and the mask of {other} keeps {rival}"


def ties_keep_what_comes_first(pattern: Any, score: np.ndarray, other: np.ndarray) -> None:
    """Whole scores select what they do when every one is a little above the next that is equal."""
    expected = pattern.select(distinct(score))
    np.testing.assert_array_equal(pattern.select(score), expected, err_msg="among equals it is not the first that are kept")


def choosing_again_changes_nothing(pattern: Any, score: np.ndarray, other: np.ndarray) -> None:
    """Scores that are zero where nothing was kept, scores in other units, and the same scores again select the same mask."""
    positive = np.abs(score) + 1
    mask = pattern.select(positive)
    for again in (np.where(mask, positive, 0.0), 1024.0 * positive, positive / 1024, positive):
        np.testing.assert_array_equal(pattern.select(again), mask, err_msg="chosen again")


def fewer_are_admitted_too(pattern: Any, score: np.ndarray, other: np.ndarray, dropped: np.ndarray) -> None:
    """Natural zeros count: a mask with fewer weights than an admitted one is admitted."""
    assert pattern.admits(pattern.select(score) & ~dropped), "a mask with fewer weights is not admitted any more"


def not_a_number_is_refused(pattern: Any, score: np.ndarray, other: np.ndarray) -> None:
    """A score of NaN, which has no place in an order, raises ValueError."""
    score = score.copy()
    score[-1, -1] = np.nan
    try:
        pattern.select(score)
    except ValueError:
        return
    raise AssertionError("a score of NaN is not refused")


def backends_agree(pattern: Any, score: np.ndarray, other: np.ndarray) -> None:
    """Every array library and precision selects the same mask and admits it."""
    expected = pattern.select(score)
    for backend in backends():
        for dtype in ("float64", "float32"):
            mask = pattern.select(backend.asarray(score, dtype))
            assert pattern.admits(mask), f"the mask is not admitted on {backend}"
            np.testing.assert_array_equal(backend.numpy(mask), expected, err_msg=f"on {backend} in {dtype}")


def distinct(score: np.ndarray) -> np.ndarray:
    """Return whole scores made distinct, equal ones in descending order."""
    return score - np.arange(score.size).reshape(score.shape) / (2 * score.size)


@st.composite
def selecting(draw: st.DrawFn, candidate: Selecting) -> tuple[Any, np.ndarray, np.ndarray]:
    """Draw a pattern and two scores of one shape."""
    score = draw(scores(columns=2 * candidate.inputs, multiple=candidate.inputs))
    pattern = draw(candidate.patterns)
    pattern.check(score.shape)
    return pattern, score, np.random.default_rng(draw(st.integers(0, 99))).permutation(score.ravel()).reshape(score.shape)


def dropping(candidate: Selecting) -> st.SearchStrategy[tuple[Any, ...]]:
    return selecting(candidate).flatmap(lambda case: masks(case[1].shape).map(lambda dropped: (*case, dropped)))


PATTERN_LAWS = (
    Law(the_count_is_exact, selecting),
    Law(the_mask_is_the_best, selecting),
    Law(ties_keep_what_comes_first, selecting),
    Law(choosing_again_changes_nothing, selecting),
    Law(fewer_are_admitted_too, dropping),
    Law(not_a_number_is_refused, selecting, slow=4),
    Law(backends_agree, selecting, slow=2),
)
