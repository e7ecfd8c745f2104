"""Numerical Pruning, Section 3.3: from the scores of channels to those of heads, and one threshold for a model (claims N11,
N12).

D is the hidden size, H the number of heads of D_h channels, D_inter the number of MLP channels, and rho the ratio to prune.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose

from gramian.proofs.kit.claims import Claim, Counterexample, Property, Verdict
from gramian.proofs.kit.rational import exact
from gramian.proofs.kit.strategies import small

__all__ = ["CLAIMS", "cheapest_prefix", "head_means"]

PAPER = "Numerical Pruning"

# -- head scores -------------------------------------------------------------------------------------------------------


def head_means(scores: np.ndarray, head: int) -> np.ndarray:
    """(1 / D_h) sum of z_i over i = (h - 1) D_h + 1 .. h D_h, for h = 1..H."""
    return np.asarray(scores.reshape(-1, head).mean(axis=1))


def overlapping(scores: np.ndarray, head: int) -> np.ndarray:
    """Return the sums of the printed bounds, counted from 0 and cut off where the channels end."""
    return np.array([scores[start : start + head + 1].sum() / head for start in range(0, len(scores), head)])


def check_heads(case: tuple[np.ndarray, int], formula: Any) -> None:
    """Every channel counts 1 / D_h in its own head and nothing elsewhere, and where scores are equal they are the score of the
    head."""
    scores, head = case
    for channel, unit in enumerate(np.eye(len(scores))):
        rise = formula(scores + unit, head) - formula(scores, head)
        assert_allclose(rise, np.eye(len(scores) // head)[channel // head] / head, rtol=0, atol=1e-12)
    assert_allclose(formula(np.full(len(scores), 0.75), head), 0.75)


def check_head_bounds() -> None:
    """Let z = (1, 2, 3, 4), D_h = 2 and H = 2. The printed sum runs over i = 2..4 and 4..6 (with h and i from 1) or over i =
    0..2 and 2..4 (with both from 0): it has three terms each, and reaches channels that do not exist."""
    scores = exact([1, 2, 3, 4])
    for first, expected in ((1, [Fraction(9, 2)]), (0, [Fraction(3)])):
        found = []
        for head in range(first, first + 2):
            terms = range(2 * head, 2 * (head + 1) + 1)
            assert len(terms) == 3
            if terms[-1] <= 3 + first:
                found.append(sum(scores[index - first] for index in terms) / 2)
        assert found == expected  # one of two heads is undefined, the other is no mean: 3/2 and 7/2 are


# -- the global threshold ----------------------------------------------------------------------------------------------

Units = tuple[list[int], list[int]]  # scores and costs of all heads and channels


def cheapest_prefix(units: Units, ratio: Fraction) -> set[int]:
    """Return the smallest set of lowest scores whose costs are at least `ratio` of all costs; equal scores keep their order."""
    scores, costs = units
    pruned: set[int] = set()
    for unit in sorted(range(len(scores)), key=scores.__getitem__):
        if sum(costs[one] for one in pruned) >= ratio * sum(costs):
            break
        pruned.add(unit)
    return pruned


def below_threshold(scores: Sequence[Any], ratio: Fraction) -> set[int]:
    """Eq. (8): everything below the entry that stands at `ratio` times the number of scores in their order."""
    threshold = sorted(scores)[math.floor(ratio * len(scores))]
    return {unit for unit, score in enumerate(scores) if score < threshold}


def scaled_scores(units: Units, ratio: Fraction) -> set[int]:
    """Return Eq. (8) with the cost as the factor on the score, and with an index that exists."""
    scores = [score * cost for score, cost in zip(*units, strict=True)]
    return below_threshold(scores, min(ratio, Fraction(len(scores) - 1, len(scores))))


def lowest_count(units: Units, ratio: Fraction) -> set[int]:
    """Return the lowest scores by number."""
    order = sorted(range(len(units[0])), key=units[0].__getitem__)
    return set(order[: math.ceil(ratio * len(order))])


def check_budget(units: Units, rule: Any) -> None:
    """rho <= pruned share < rho + max c / sum c. Lower scores are pruned first, a larger rho prunes a larger set, and where
    costs are equal the rule is to sort."""
    scores, costs = units
    previous: set[int] = set()
    for ratio in map(Fraction, ("0", "1/7", "1/2", "4/5", "1")):
        pruned = rule(units, ratio)
        share = Fraction(sum(costs[unit] for unit in pruned), sum(costs))
        assert ratio <= share < ratio + Fraction(max(costs), sum(costs))
        rest = set(range(len(scores))) - pruned
        assert not pruned or not rest or max(scores[unit] for unit in pruned) <= min(scores[unit] for unit in rest)
        assert previous <= pruned
        assert len(set(costs)) > 1 or len(pruned) == math.ceil(ratio * len(scores))
        previous = pruned


def llama_share(head_score: Fraction, ratio: Fraction) -> Fraction:
    """Return the share of the parameters that Eq. (8) prunes from a block of LLaMA-7B whose heads score alike and whose
    channels spread over (0, 1)."""
    width, heads, size, inner = 4096, 32, 128, 11008
    scores = [Fraction(4 * size, 3) * head_score] * heads + [Fraction(unit + 1, inner + 1) for unit in range(inner)]
    costs = [4 * width * size] * heads + [3 * width] * inner
    return Fraction(sum(costs[unit] for unit in below_threshold(scores, ratio)), sum(costs))


def check_llama() -> None:
    """LLaMA-7B: alpha = 512/3 lifts heads that score 1/2 above every channel, so that none is pruned, and 20 % and 50 % become
    13.4 % and 33.5 %, which is 3 (H + D_inter) / (4 D + 3 D_inter) of rho. Heads that score -1/100 are all pruned first, and
    10 % become 39.7 %."""
    total = 4 * 4096 + 3 * 11008
    rate = Fraction(3 * (32 + 11008), total)
    assert llama_share(Fraction(1, 2), Fraction(1, 5)) == rate / 5 < Fraction(135, 1000)
    assert llama_share(Fraction(1, 2), Fraction(1, 2)) == rate / 2 < Fraction(336, 1000)
    assert llama_share(Fraction(-1, 100), Fraction(1, 10)) == Fraction(4 * 4096 + 3 * 1072, total) > Fraction(39, 100)


def check_threshold_ends() -> None:
    """Where scores are equal nothing is below the threshold, at any rho. At rho = 1 the entry does not exist."""
    assert below_threshold([1, 1, 1, 1], Fraction(1, 2)) == set()
    try:
        below_threshold([1, 2, 3, 4], Fraction(1))
    except IndexError:
        return
    raise AssertionError("there is an entry behind the last")


@st.composite
def scored_heads(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """Draw (z, D_h) of one to four heads."""
    head = draw(st.integers(1, 4))
    return draw(arrays(float, head * draw(st.integers(1, 4)), elements=small)), head


UNITS = st.lists(st.tuples(st.integers(-3, 3), st.sampled_from([1, 1, 4, 9])), min_size=1, max_size=12).map(
    lambda units: ([score for score, _ in units], [cost for _, cost in units])
)

CLAIMS = (
    Claim(
        "N11",
        f"{PAPER}, Section 3.3, head scores",
        "z_h^head = (1 / D_h) sum of z_i^attn over i = h D_h .. (h + 1) D_h, for h in [H] and z^attn in R^D; z^mlp in R^D.",
        Verdict.REFUTED,
        "The sum is over i = (h - 1) D_h + 1 .. h D_h, the mean of head h. As printed there are D_h + 1 terms, neighbours "
        "overlap, and the last runs out of the channels. z^mlp is in R^{D_inter}, and H = D / D_h.",
        (
            Property(
                "a mean per head",
                scored_heads(),
                check_heads,
                head_means,
                {
                    "the printed bounds": overlapping,
                    "a sum": lambda scores, head: head * head_means(scores, head),
                    "heads interleaved": lambda scores, head: scores.reshape(head, -1).mean(axis=0),
                },
            ),
        ),
        (Counterexample("two heads of two channels", check_head_bounds),),
    ),
    Claim(
        "N12",
        f"{PAPER}, Section 3.3, Eq. (8)",
        "With Psi the scores of all L H heads, times alpha = 4 D_h / 3, and of all L D_inter MLP channels, pruning all below "
        "sort(Psi)[rho (L H + L D_inter)] prunes the specified ratio rho.",
        Verdict.REFUTED,
        "alpha is how much a head costs, not how much it scores: the index counts units, while the factor drives heads to one "
        "end of the order. One has to prune the smallest prefix of the sorted scores whose costs, 4 D D_h for a head and 3 D "
        "for a channel, reach rho of all; the share is then in [rho, rho + max c / sum c). The index needs rounding and an "
        "end, and where scores tie at the threshold fewer are pruned.",
        (
            Property(
                "costs in the cumulative sum",
                UNITS,
                check_budget,
                cheapest_prefix,
                {
                    "costs as a factor on the scores": scaled_scores,
                    "units counted": lowest_count,
                    "one unit less": lambda units, ratio: set(
                        sorted(cheapest_prefix(units, ratio), key=units[0].__getitem__)[:-1]
                    ),
                },
            ),
        ),
        (
            Counterexample("LLaMA-7B at 10, 20 and 50 %", check_llama),
            Counterexample("ties, and rho = 1", check_threshold_ends),
        ),
    ),
)
