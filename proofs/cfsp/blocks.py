"""How far blocks turn the stream (claim I1), and parts of their units that they keep by it (claim I2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from gramian.proofs.kit.claims import Claim, Counterexample, Property, Verdict
from gramian.solvers.levels.turning_blocks import STEEPNESS, angles, proportional_scores, turning_sparsities, turning_weights

__all__ = ["I1", "I2"]

CFSP = "CFSP"


# --- I1: angles -------------------------------------------------------------------------------------------------------


class Stream(NamedTuple):
    """One token before a block, behind it, and behind the next one: whole numbers, none of them all zero."""

    first: tuple[int, ...]
    second: tuple[int, ...]
    third: tuple[int, ...]


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    """Vectors of small whole numbers; now and then the second is the first but for one part in a thousand million."""
    size = draw(st.integers(1, 4))
    vector = st.lists(st.integers(-3, 3), min_size=size, max_size=size).filter(any).map(tuple)
    first, second, third = draw(vector), draw(vector), draw(vector)
    if draw(st.booleans()):
        near = tuple(10**9 * one + other for one, other in zip(first, second))
        second = near if any(near) else second
    return Stream(first, second, third)


def exact_angle(x: Sequence[int], y: Sequence[int]) -> float:
    """The angle in parts of half a turn, by Lagrange's |x|^2 |y|^2 - (x . y)^2 = |x|^2 |y|^2 sin^2 in whole numbers."""
    dot = sum(one * other for one, other in zip(x, y))
    product = sum(one * one for one in x) * sum(other * other for other in y)
    return math.atan2(math.sqrt(product - dot * dot), dot) / math.pi


Angle = Callable[[np.ndarray, np.ndarray], np.ndarray]


def measures_angles(case: Stream, angle: Angle) -> None:
    """The exact value to twelve digits or 1e-16, in any unit; 0 for one direction; that of two blocks at most their sum."""

    def of(x: Sequence[int], y: Sequence[int], scale: float = 1.0) -> float:
        return float(angle(scale * np.array([x], dtype=np.float64), np.array([y], dtype=np.float64))[0])

    for x, y in (case[:2], case[1:], case[::2]):
        expected = exact_angle(x, y)
        for scale in (1.0, 1e-6, 1e6):
            assert abs(of(x, y, scale) - expected) <= 1e-12 * expected + 1e-16
        assert 0 <= of(x, y) <= 1
    first, second, third = case
    assert of(first, third) <= of(first, second) + of(second, third) + 1e-15


def cosine(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x . y / (|x| |y|), row by row."""
    found = (x * y).sum(axis=1) / (np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1))
    return np.asarray(np.clip(found, -1.0, 1.0))


I1 = Claim(
    "I1",
    f"{CFSP}, the importance of a block",
    "arccos(x . f(x) / (|x| |f(x)|)) / pi in [0, 1] says how far block f turns its input x",
    Verdict.HOLDS,
    "in any unit of x and of f(x), 0 where directions remain; what two blocks turn together is at most the sum of what each "
    "does, so that blocks of small angles may go together; in float64 an arccos knows no angle below 1e-8, a half-angle's "
    "tangent does",
    properties=(
        Property(
            "2 atan2(|u - v|, |u + v|) / pi is the angle to twelve digits or 1e-16, and a distance of directions",
            streams(),
            measures_angles,
            angles,
            {
                "the arccos of the cosine": lambda x, y: np.arccos(cosine(x, y)) / math.pi,
                "one minus the cosine": lambda x, y: 1 - cosine(x, y),
                "in radians": lambda x, y: math.pi * angles(x, y),
                "between lines": lambda x, y: np.minimum(angles(x, y), 1 - angles(x, y)),
                "of what is added": lambda x, y: angles(x, y - x),
                "without a unit length": lambda x, y: (
                    2 / math.pi * np.arctan2(np.linalg.norm(x - y, axis=1), np.linalg.norm(x + y, axis=1))
                ),
            },
        ),
    ),
)


# --- I2: what blocks keep ---------------------------------------------------------------------------------------------


class Blocks(NamedTuple):
    """weights of blocks and scores of their units."""

    weights: tuple[float, ...]
    scores: tuple[tuple[int, ...], ...]


@st.composite
def blocks(draw: st.DrawFn) -> Blocks:
    """Two to four blocks of one to nine units, whose scores are of very different sizes."""
    count = draw(st.integers(2, 4))
    weights = draw(st.lists(st.sampled_from([0.125, 0.25, 0.5, 1.0]), min_size=count, max_size=count))
    scores = []
    for _ in range(count):
        scale = draw(st.sampled_from([1, 1000]))
        scores.append(tuple(scale * each for each in draw(st.lists(st.integers(1, 50), min_size=1, max_size=9, unique=True))))
    return Blocks(tuple(weights), tuple(scores))


Rank = Callable[[np.ndarray, float], np.ndarray]


def keeps_in_proportion(case: Blocks, rank: Rank) -> None:
    """Whatever the number of units that remain of all, one t says of every block how many: the best floor(w n / t), or all."""
    ranked = [np.asarray(rank(np.array(scores, dtype=np.float64), weight)) for weight, scores in zip(*case)]
    for cut in np.unique(np.concatenate(ranked)):
        kept = [each >= cut for each in ranked]
        some = [(Fraction(w) * len(s), int(k.sum())) for w, s, k in zip(*case, kept) if not k.all()]
        every = [Fraction(w) for w, s, k in zip(*case, kept) if k.all()]
        above = max((whole / (number + 1) for whole, number in some), default=Fraction(0))  # t is above this
        below = min([*every, *(whole / number for whole, number in some if number)], default=Fraction(1))  # and at most this
        assert above < below or not some, "one cut for all"
        for scores, which in zip(case.scores, kept):
            better = np.array(scores)
            assert which.all() or not which.any() or better[which].min() > better[~which].max(), "the best of a block"


class Operators(NamedTuple):
    """angles of blocks; weights, sizes and sparsities of operators in them."""

    turns: tuple[float, ...]
    weights: tuple[float, ...]
    sizes: tuple[int, ...]
    sparsities: tuple[float, ...]


@st.composite
def operators(draw: st.DrawFn) -> Operators:
    count = draw(st.integers(2, 6))

    def drawn(values: list[Any]) -> tuple[Any, ...]:
        return tuple(draw(st.lists(st.sampled_from(values), min_size=count, max_size=count)))

    return Operators(
        drawn([0.0, 0.1, 0.3, 0.5]), drawn([0.125, 0.25, 0.5, 1.0]), drawn([1, 4, 9]), drawn([0.1, 0.5, 0.75])
    )  # fmt: skip


def weighs_by_the_sigmoid(case: Operators, weigh: Callable[[Sequence[float]], Sequence[float]]) -> None:
    """log w / (1 - w) is a times the angle less the mean angle."""
    found = np.asarray(weigh(case.turns))
    wanted = STEEPNESS * (np.asarray(case.turns) - np.mean(case.turns))
    assert np.allclose(np.log(found / (1 - found)), wanted, rtol=1e-9, atol=1e-9)


Sparsities = Callable[[Sequence[float], Sequence[int], Sequence[float]], Sequence[float]]


def meets_the_total(case: Operators, sparsities: Sparsities) -> None:
    """sum n S = sum n S0, S in [0, 1), and what is kept, of what S0 keeps, in proportion to w where it is not all."""
    found, size, plain = (np.asarray(each) for each in (sparsities(*case[1:]), case.sizes, case.sparsities))
    assert abs(size @ found - size @ plain) <= 1e-7 * size.sum()
    assert np.all((found >= 0) & (found < 1))
    part = (1 - found) / (np.asarray(case.weights) * (1 - plain))
    free = found > 1e-9
    if free.any():
        assert np.ptp(part[free]) <= 1e-6 * part[free].max()
        assert np.all(part[~free] <= part[free].max() * (1 + 1e-6))


def uncapped(weights: Sequence[float], sizes: Sequence[int], sparsities: Sequence[float]) -> np.ndarray:
    """What is kept in proportion, without end."""
    kept = np.asarray(weights) * (1 - np.asarray(sparsities))
    return np.asarray(1 - kept * (np.asarray(sizes) @ (1 - np.asarray(sparsities))) / (np.asarray(sizes) @ kept))


def twice_the_text_is_another_budget() -> None:
    """Angles 1/10 and 3/10 of 10^5 tokens, or of twice as many: sums in units of 10^4, centred, are -1 and 1, or -2 and 2."""

    def kept(tokens: int) -> Fraction:
        sums = [Fraction(tokens, 10**4) * each for each in (Fraction(1, 10), Fraction(3, 10))]
        centred = [each - sum(sums, Fraction(0)) / 2 for each in sums]
        assert centred[0] == -centred[1]
        return centred[1]  # sigmoid(c) / sigmoid(-c) = exp(c), so that equal c is needed for equal parts

    assert kept(10**5) == 1 and kept(2 * 10**5) == 2


def more_than_all() -> None:
    """Weights 3/4 and 1/4 at a ratio of 1/10: the first block would keep 27/20 of its units."""
    weights, ratio = (Fraction(3, 4), Fraction(1, 4)), Fraction(1, 10)
    assert (1 - ratio) * weights[0] / (sum(weights) / 2) == Fraction(27, 20)


I2 = Claim(
    "I2",
    f"{CFSP}, budgets of blocks, and its released code",
    "block b keeps (1 - ratio) w_b / mean w of its units, w_b a sigmoid of the angles summed over all tokens, centred, by 10^4",
    Verdict.CONDITIONAL,
    "a sum grows with the text, so that the budgets depend on how much there is: a mean over tokens does not; and parts must "
    "not pass 1 (the released code then narrows all of them): one ranking of w n / (1 + place) keeps parts in proportion to w, "
    "cut off at 1, and meets the total",
    properties=(
        Property(
            "a cut of the scores w n / (1 + place) keeps the best min(1, w / t) of every block, to within a unit",
            blocks(),
            keeps_in_proportion,
            proportional_scores,
            {
                "relative scores, in one ranking": lambda scores, weight: weight * scores / scores.mean(),
                "scores as they are": lambda scores, weight: weight * scores,
                "without n": lambda scores, weight: proportional_scores(scores, weight) / len(scores),
                "every block alike": lambda scores, weight: proportional_scores(scores, 1.0),
                "the worst first": lambda scores, weight: proportional_scores(-scores, weight),
                "squared weights": lambda scores, weight: proportional_scores(scores, weight**2),
            },
        ),
        Property(
            "log w / (1 - w) = a (I_b - mean I)",
            operators(),
            weighs_by_the_sigmoid,
            turning_weights,
            {
                "not centred": lambda turns: 1 / (1 + np.exp(-STEEPNESS * np.asarray(turns))),
                "twice the text": lambda turns: turning_weights([2 * each for each in turns]),
                "the other way": lambda turns: turning_weights([-each for each in turns]),
                "as they are": lambda turns: [0.5 + 0.5 * each for each in turns],
            },
        ),
        Property(
            "sum n S = sum n S0, and 1 - S = min(1, c w (1 - S0))",
            operators(),
            meets_the_total,
            turning_sparsities,
            {
                "more than all": uncapped,
                "cut off afterwards": lambda *case: np.maximum(uncapped(*case), 0.0),
                "without sizes": lambda weights, sizes, plain: turning_sparsities(weights, [1] * len(sizes), plain),
                "every block alike": lambda weights, sizes, plain: list(plain),
                "squared weights": lambda weights, sizes, plain: turning_sparsities([w**2 for w in weights], sizes, plain),
            },
        ),
    ),
    counterexamples=(
        Counterexample("the same text twice", twice_the_text_is_another_budget),
        Counterexample("more than all units of a block", more_than_all),
    ),
)
