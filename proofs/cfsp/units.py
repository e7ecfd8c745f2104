"""Which units of a block are kept: relative weights cancel (claim I3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

from hypothesis import strategies as st

from gramian.proofs.kit.claims import Claim, Counterexample, Property, Verdict

__all__ = ["I3"]

Matrix = Sequence[Sequence[Fraction]]


class Channels(NamedTuple):
    """norms: |X_j|_2 of the hidden channels. down, up, gate: matrices with a column for every channel, no column of zeros."""

    norms: tuple[Fraction, ...]
    down: Matrix
    up: Matrix
    gate: Matrix


@st.composite
def channels(draw: st.DrawFn) -> Channels:
    hidden, rows = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    entry = st.integers(-9, 9).map(Fraction)
    column = st.lists(entry, min_size=rows, max_size=rows).filter(any)

    def matrix() -> Matrix:
        return list(zip(*draw(st.lists(column, min_size=hidden, max_size=hidden))))

    norms = draw(st.lists(st.integers(0, 20).map(Fraction), min_size=hidden, max_size=hidden))
    return Channels(tuple(norms), matrix(), matrix(), matrix())


def released(case: Channels, *, under: bool = True) -> list[Fraction]:
    """mean_i (|D_ij| / sum_k |D_kj| + the same of up and gate) |X_j|, as it is computed there. under: D is scaled by |X_j|
    first, which a column's sum divides out again, where it is not zero."""
    scored = []
    for place, norm in enumerate(case.norms):
        total = Fraction(0)
        for name, matrix in (("down", case.down), ("up", case.up), ("gate", case.gate)):
            column = [abs(row[place]) * (norm if under and name == "down" and norm else 1) for row in matrix]
            total += sum((each / sum(column) for each in column), Fraction(0))
        scored.append(norm * total / len(case.down))
    return scored


Score = Callable[[Channels], Sequence[Fraction]]


def is_the_released_score(case: Channels, score: Score) -> None:
    """The score of every channel, exactly."""
    assert list(score(case)) == released(case) == released(case, under=False)


def larger_weights_change_nothing() -> None:
    """Two channels of equal activations, all weights of the second a thousand times those of the first: equal scores."""
    one, other = Fraction(1), Fraction(1000)
    matrix = [[one, other], [2 * one, 2 * other]]
    first, second = released(Channels((one, one), matrix, matrix, matrix))
    assert first == second
    lost = [sum(row[place] ** 2 for row in matrix) for place in (0, 1)]  # |X_j|^2 |D_j|^2, when a channel goes
    assert lost[1] == 10**6 * lost[0]


I3 = Claim(
    "I3",
    "CFSP, the importance of a channel, as its released code has it",
    "mean_i (|D_ij| / sum_k |D_kj| + the same of U and G) |X_j|_2 ranks hidden channels j by weights and activations",
    Verdict.REFUTED,
    "a column's relative weights sum to one, so that the score is 3 |X_j|_2 / q: activations alone rank, whatever the weights; "
    "|X_j|_2 times the sum of |w| over all that goes with the channel does what is said",
    properties=(
        Property(
            "the score is 3 |X_j|_2 / q, q the number of rows",
            channels(),
            is_the_released_score,
            lambda case: [3 * norm / len(case.down) for norm in case.norms],
            {
                "one part of three": lambda case: [norm / len(case.down) for norm in case.norms],
                "a sum over rows": lambda case: [3 * norm for norm in case.norms],
                "squared norms": lambda case: [3 * norm**2 / len(case.down) for norm in case.norms],
                "with the weights": lambda case: [
                    3 * norm * sum(abs(row[place]) for row in case.down) / len(case.down)
                    for place, norm in enumerate(case.norms)
                ],
            },
        ),
    ),
    counterexamples=(Counterexample("weights a thousand times as large", larger_weights_change_nothing),),
)
