"""The exponent of heavy tails against a Pareto distribution and a plain loop; sparsities by it, at the same total."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pareto

from gramian.solvers.levels.heavy_tails import SPREAD, hill_exponent, tail_sparsities


def of_eigenvalues(values: np.ndarray, rng: np.random.Generator, rows: int) -> np.ndarray:
    """A matrix (rows, n) whose W^T W has these eigenvalues, in random bases."""
    left, _ = np.linalg.qr(rng.normal(size=(rows, len(values))))
    right, _ = np.linalg.qr(rng.normal(size=(len(values), len(values))))
    return left * np.sqrt(values) @ right


def by_hand(weight: np.ndarray) -> float:
    """The definition from the eigenvalues of W^T W, as a loop."""
    gram = weight.T @ weight if weight.shape[0] >= weight.shape[1] else weight @ weight.T
    values = sorted(np.linalg.eigvalsh(gram), reverse=True)
    k = len(values) // 2
    return 1 + k / sum(math.log(values[i] / values[k]) for i in range(k))


@pytest.mark.parametrize("shape", [(30, 12), (12, 30), (2, 2), (25, 25)])
@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_against_a_loop_in_any_unit(xp, shape, unit):
    weight = np.random.default_rng(0).standard_t(2, size=shape)
    assert hill_exponent(xp.asarray(unit * weight)) == pytest.approx(by_hand(weight), rel=1e-6)


@pytest.mark.parametrize("alpha", [1.5, 2.0, 4.0])
def test_finds_the_exponent_of_a_planted_tail(alpha):
    """Eigenvalues at the quantiles of a Pareto density l^-alpha: Hill's estimate is off by its bias of order ln n / n alone."""
    count = 400
    values = pareto.ppf((np.arange(count) + 0.5) / count, alpha - 1)
    weight = of_eigenvalues(values, np.random.default_rng(1), 500)
    assert hill_exponent(weight) - 1 == pytest.approx(alpha - 1, rel=0.03)


@pytest.mark.parametrize(
    "weight", [np.zeros((3, 4)), np.eye(4), np.ones((5, 3)), np.ones((1, 7)), np.zeros((2, 2)) + 1e-300]
)  # fmt: skip
def test_no_tail_is_infinite(xp, weight):
    assert hill_exponent(xp.asarray(weight)) == math.inf


def test_dead_channels_change_nothing(xp):
    weight = np.random.default_rng(2).normal(size=(9, 6))
    padded = np.pad(weight, ((0, 3), (0, 5)))
    assert hill_exponent(xp.asarray(padded)) == pytest.approx(hill_exponent(xp.asarray(weight)), rel=1e-9)


@given(
    st.lists(
        st.tuples(
            st.one_of(st.floats(1.01, 20), st.just(math.inf)), st.integers(1, 10**7), st.sampled_from([0.0, 0.3, 0.6, 0.95])
        ),
        min_size=1,
        max_size=6,
    )
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_the_total_is_met_and_light_tails_are_sparser(blocks):
    exponents, sizes, plain = (list(each) for each in zip(*blocks))
    found = np.array(tail_sparsities(exponents, sizes, plain))
    assert np.dot(sizes, found) == pytest.approx(np.dot(sizes, plain), rel=1e-6)
    assert (found >= 0).all() and (found < 1).all() and (found[np.array(plain) == 0] == 0).all()
    for one, other in zip(*np.triu_indices(len(blocks), 1)):
        if plain[one] == plain[other] and exponents[one] <= exponents[other]:
            assert found[one] <= found[other] + 1e-9


def test_sparsities_by_hand():
    """Two equal blocks at 0.5: the lighter tail has 1 + tau times the mean."""
    assert tail_sparsities([2.0, 3.0], [10, 10], [0.5, 0.5]) == pytest.approx([0.5 * (1 - SPREAD), 0.5 * (1 + SPREAD)])
    assert tail_sparsities([3.0, 3.0], [1, 5], [0.5, 0.6]) == pytest.approx([0.5, 0.6])
    assert tail_sparsities([2.0, math.inf, 3.0], [1, 1, 1], [0.5] * 3)[1:] == pytest.approx([0.5 * 1.3 / 1.1] * 2)
    assert tail_sparsities([2.0, 3.0], [10, 10], [0.9, 0.9]) == pytest.approx([0.8, 1.0])
