"""TASP, Algorithm 1: the gradients it takes over a batch, and the weights it returns (claims T9, T10)."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import ceil, floor
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from gramian.proofs.kit.claims import Claim, Counterexample, Property, Verdict
from gramian.proofs.kit.grids import NONZERO
from gramian.proofs.tasp.saliency import Case, cases, contributions, point
from gramian.proofs.tasp.tiny_networks import GELU, RELU, SIGMOID, TANH, Activation, networks, positive, rational_network

__all__ = ["T9", "T10"]

PAPER = "TASP"
HARD_TANH = Activation(
    "hard tanh",
    lambda a: positive(a + 1) * (a + 1) - positive(a - 1) * (a - 1) - 1,
    lambda a: positive(a + 1) - positive(a - 1),
)


# --- T9: batches -----------------------------------------------------------------------------------------------------


def of_the_samples(case: Case) -> np.ndarray:
    return np.asarray(np.sum([case.network.saliency(gradient) for gradient in case.gradients], axis=0))


def of_the_batch(case: Case) -> np.ndarray:
    """Return the saliency as Algorithm 1 has it, of the gradient of the batch's output: gradients are summed before absolute
    values are taken."""
    first, second = zip(*case.gradients)
    return np.asarray(case.network.saliency((np.sum(first, axis=0), np.sum(second, axis=0))))


def bounds_the_contributions_of_a_batch(case: Case, formula: Callable[[Case], np.ndarray]) -> None:
    """What a unit adds to Theta(x, x), summed over samples, is at most the formula divided by the unit's least |W|."""
    least = np.min(np.abs(np.concatenate([case.network.first.T, case.network.second], axis=1)), axis=1)
    total = np.sum([contributions(gradient) for gradient in case.gradients], axis=0)
    bound = formula(case)
    assert np.all(total <= bound / least + 1e-12)
    assert np.all(of_the_batch(case) <= bound + 1e-12)


def gradients_of_a_batch_cancel() -> None:
    """With s(a) = a between -1 and 1, W1 = W2 = v = 1 and x = -1/2 and 1/2 the saliency of the batch is 0, but that of each
    sample is 1, and so is what each adds to Theta."""
    network = rational_network([[1]], [[1]], [1], HARD_TANH)
    gradients = [network.gradient(point(x)) for x in ("-1/2", "1/2")]
    summed = (gradients[0][0] + gradients[1][0], gradients[0][1] + gradients[1][1])
    assert network.saliency(summed)[0] == 0
    assert [(network.saliency(gradient)[0], contributions(gradient)[0]) for gradient in gradients] == [(1, 1), (1, 1)]


T9 = Claim(
    "T9",
    f"{PAPER}, Algorithm 1, lines 3 to 8",
    "S(unit) from compute_gradients(output of a mini-batch) identifies units that contribute little",
    Verdict.REFUTED,
    "Summed over the batch, gradients of opposite sign cancel. S = sum over samples of |grad f(x) . W| is never below it, and "
    "S / (least |W|) bounds what the unit adds to the sum of Theta(x, x), which with a linear readout is what pruning it "
    "takes away.",
    (
        Property(
            "sum over samples of a unit's contribution <= (sum of its saliencies) / min |W|",
            cases(networks(inner=(RELU, GELU, TANH), values=NONZERO)),
            bounds_the_contributions_of_a_batch,
            of_the_samples,
            {
                "saliency of the summed gradient": of_the_batch,
                "mean over samples": lambda case: of_the_samples(case) / len(case.inputs),
            },
        ),
    ),
    (Counterexample("two samples cancel", gradients_of_a_batch_cancel),),
)


# --- T10: shapes -----------------------------------------------------------------------------------------------------


class Cut(NamedTuple):
    """ratio: r, the fraction of units that is removed."""

    case: Case
    ratio: Fraction


cuts = st.builds(
    Cut,
    cases(networks(inner=(RELU, GELU, SIGMOID))),
    st.sampled_from([Fraction(k, 4) for k in range(5)] + [Fraction(1, 3), Fraction(1, 10)]),
)


def is_the_width_that_stays(cut: Cut, formula: Callable[[int, Fraction], Fraction | int]) -> None:
    """The formula is the width that Algorithm 1 keeps when it removes the r h lowest units, rounded down. Removing them gives
    the outputs of setting them to zero."""
    network = cut.case.network
    lowest = list(np.argsort(of_the_samples(cut.case), kind="stable")[: floor(cut.ratio * network.units)])
    smaller = network.without(lowest)
    assert smaller.first.shape[1] == smaller.second.shape[0] == formula(network.units, cut.ratio)
    for x in cut.case.inputs:
        np.testing.assert_allclose(smaller.value(x), network.pruned(lowest).value(x), rtol=0, atol=1e-12)


def reproduces_table_2(classes: int, formula: Callable[[int, int, Fraction], Fraction]) -> None:
    """t5-base has 32128 tokens, d = 768, h = 3072, 12 + 12 blocks and relative positions; its head is d x d and d x classes,
    with biases."""
    d, h = 768, 3072
    block, tokens = 4 * d * d + 2 * d * h + 2 * d, 32128 * d
    decoder = block + 4 * d * d + d
    dense = tokens + 12 * (block + decoder) + 2 * (32 * 12 + d) + d * d + d + d * classes + classes
    assert round(dense / 1e6, 2) == 223.50
    assert round((dense - 24 * formula(d, h, Fraction(1, 2))) / 1e6, 2) == 166.87


def quarter_is_not_three_quarters() -> None:
    """With h = 4 and r = 1/4 one unit is removed and three are kept, but h r = 1."""
    units, ratio = 4, Fraction(1, 4)
    network = rational_network([[1, 2, 3, 4]], [[1], [1], [1], [1]], [1])
    lowest = sorted(range(units), key=lambda u: network.saliency(network.gradient(point(1)))[u])[: floor(ratio * units)]
    assert network.without(lowest).first.shape == (1, 3) and ratio * units == 1


T10 = Claim(
    "T10",
    f"{PAPER}, Algorithm 1",
    "with sparsity ratio r, the pruned weights are W1 (d, h r) and W2 (h r, d)",
    Verdict.REFUTED,
    "r of the units are removed, so h - floor(r h) are kept, which is h r only at r = 1/2. Removing the units gives the "
    "outputs of setting them to zero, for any s, because the rows of W2 are removed. Table 2 (223.50 to 166.87 million) is "
    "half of all 24 sub-layers of t5-base with a classification head.",
    (
        Property(
            "h - floor(r h) units are kept, and the smaller network computes what the masked one does",
            cuts,
            is_the_width_that_stays,
            lambda units, ratio: units - floor(ratio * units),
            {
                "h r": lambda units, ratio: ratio * units,
                "rounded down": lambda units, ratio: units - ceil(ratio * units),
                "floor(h r)": lambda units, ratio: floor(ratio * units),
            },
        ),
        Property(
            "Table 2: 2 d (h r) weights less in each of 24 sub-layers",
            st.integers(2, 3),
            reproduces_table_2,
            lambda d, h, ratio: 2 * d * h * ratio,
            {
                "W1 alone": lambda d, h, ratio: d * h * ratio,
                "three matrices": lambda d, h, ratio: 3 * d * h * ratio,
            },
        ),
    ),
    (Counterexample("a quarter", quarter_is_not_three_quarters),),
)
